"""A folder with a page that runs an exported file in the browser, and everything that the page needs."""

import json
import shlex
import shutil
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fsaf.checkpoints.download import download
from fsaf.checkpoints.published import cache
from fsaf.config import Config
from fsaf.config.predict import SHOWN_SCORE
from fsaf.detection.draw import class_color
from fsaf.detection.file_info import FileInfo, read_info
from fsaf.detection.onnx import OnnxSession
from fsaf.device import HOST
from fsaf.errors import CheckpointError, UserError
from fsaf.files import check_folder, whole_folder

PAGE = Path(__file__).parent / "templates" / "web"
"""The page without detector and runtime."""

VERSION = "1.30.0"
"""Version of onnxruntime-web."""
URL = f"https://registry.npmjs.org/onnxruntime-web/-/onnxruntime-web-{VERSION}.tgz"
SHA256 = "d2228df7e4616bc3348bf504ee888f3bec43789a273f0a63f3e68d203ce3bf71"
"""Sum of the package at ``URL``, whose SHA-512 was compared with the one that npm publishes."""

RUNTIME = {
    "package/dist/ort.wasm.bundle.min.mjs": "ort.js",
    "package/dist/ort-wasm-simd-threaded.wasm": "ort.wasm",
}
"""Files of the package that the page needs, and their names there: few servers know the suffix .mjs."""


def check_web(folder: Path, path: Path, settings: Config, options: Mapping[str, Any]) -> None:
    """Raise UserError if a page cannot stand for the detector, or if its place is taken.

    path: of the exported file. options: of ``export_onnx``.
    """
    if path.suffix != ".onnx":
        raise UserError("web: the page runs ONNX files; leave it out, or give --format onnx")
    if options.get("outputs", "detections") != "detections":
        raise UserError("web: the page needs suppression inside the file; leave out --raw and --for")
    if options.get("batch", 1) > 1 and not options.get("dynamic_batch"):
        raise UserError("web: the page looks at one picture at a time; leave out --batch, or give --batch 0")
    if not settings.predict.is_plain():
        raise UserError(
            "web: the page looks at each picture once; leave out predict.scales, predict.flip, predict.tile"
        )
    if settings.data.exif_rotation is False:
        raise UserError("web: browsers turn photos by their EXIF tag; leave out data.exif_rotation = false")
    check_folder(folder)
    if folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"{folder}: is not empty; give another folder for --web")


def fetch_runtime() -> Path:
    """Return the package of onnxruntime-web, downloaded unless it is in the cache.

    Raises CheckpointError, naming address and place, if it cannot be downloaded or is another file.
    """
    path = cache() / URL.rpartition("/")[2]
    download(URL, path, SHA256)
    return path


def write_web(path: Path, folder: Path) -> Path:
    """Write the page for the exported file ``path`` to ``folder``, whole or not at all; return ``folder``.

    Raises UserError if the runtime cannot be downloaded, or something cannot be written.
    """
    package = fetch_runtime()
    session = OnnxSession(path, HOST)
    info = read_info(session.metadata, path)
    with whole_folder(folder) as draft:
        shutil.copytree(PAGE, draft, dirs_exist_ok=True)
        shutil.copy(path, draft / "model.onnx")
        about = json.dumps({"name": _name(path), **describe(info, session)}, ensure_ascii=False)
        (draft / "detector.json").write_text(about, encoding="utf-8")
        _unpack(package, draft)
    return folder


def _name(path: Path) -> str:
    """Return the title: the name of the run that the file is of, or of the file."""
    run = path.absolute().parents[1].name if path.absolute().parent.name == "checkpoints" else ""
    return run or path.stem


def describe(info: FileInfo, session: OnnxSession) -> dict[str, Any]:
    """Return what the page must know of an exported file."""
    data, predict = info.config.data, info.config.predict
    keys = ("short_side", "long_side", "shapes", "pad", "antialias")
    mean = info.config.model.mean_colour
    padding = [0, 0, 0] if session.takes_sizes else mean if session.float_images else [round(x) for x in mean]
    return {
        "classes": list(info.classes.names),
        "colors": [class_color(label) for label in range(len(info.classes))],
        "data": {key: getattr(data, key) for key in keys},
        "max_pixels": data.max_pixels,
        "padding": list(padding),
        "takes_sizes": session.takes_sizes,
        "float_images": session.float_images,
        "lowest_score": predict.score_threshold,
        "score": max(predict.score_threshold, SHOWN_SCORE),
    }


def _unpack(package: Path, folder: Path) -> None:
    """Write the files of ``RUNTIME``. Raises CheckpointError if the package is damaged."""
    try:
        with tarfile.open(package) as archive:
            for member, name in RUNTIME.items():
                content = archive.extractfile(member)
                if content is None:
                    raise KeyError(member)
                with (folder / name).open("wb") as file:
                    shutil.copyfileobj(content, file)
    except (tarfile.TarError, KeyError, EOFError) as error:
        raise CheckpointError(f"{package}: is damaged ({error}); delete it and export again") from error


def how_to_open(folder: Path) -> str:
    """Return what to do to see the page."""
    place = shlex.quote(str(folder))
    return (
        f"{folder}: a page that runs the file in the browser, offline; put it on any web server, or\n"
        f"  python3 -m http.server 8000 --bind 127.0.0.1 --directory {place}\n"
        "and open http://127.0.0.1:8000"
    )
