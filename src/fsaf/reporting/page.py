"""Pages from templates, one file each; Jinja escapes all text from data."""

import re
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from fsaf._version import __version__
from fsaf.files import write_text
from fsaf.reporting.charts import number

# Control characters, lone surrogates (not valid in UTF-8), and marks that reverse text.
_CONTROL = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def write_page(path: Path, template: str, **values: Any) -> None:
    """Render ``template`` of the folder ``templates`` with ``values``, and write it whole to ``path``.

    Raises WriteError if it cannot be written.
    """
    environment = Environment(
        loader=PackageLoader("fsaf.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "duration": duration}
    written = datetime.now().strftime("%Y-%m-%d %H:%M")
    page = environment.get_template(template).render(version=__version__, written=written, **values)
    write_text(path, _CONTROL.sub("?", page))


def duration(seconds: float) -> str:
    """Format seconds as ``8.0 s``, ``75 s``, ``7 min`` or ``2 h 05 min``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
