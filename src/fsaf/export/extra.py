"""The packages of the extra ``fsaf[export]``, imported when first needed."""

import importlib
from typing import Any

from fsaf.errors import UserError


def import_extra(name: str) -> Any:
    """The module ``name``. Raises UserError with the line that installs it where it is absent."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(f"ONNX files need the package {name}: pip install 'fsaf[export]'") from error
