"""A page on this machine to try detectors on one's own pictures."""

import contextlib
import html
import json
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from PIL import Image

from fsaf.demo.guard import Guard
from fsaf.demo.look import LOWEST_SCORE, Look, look
from fsaf.detection.detector import Detector, load
from fsaf.detection.draw import draw_result
from fsaf.detection.result import Result
from fsaf.errors import Stopped, UserError
from fsaf.files import temporary_folder
from fsaf.text import markdown, printable

UPLOAD = 20_000_000
"""Bytes of the largest file that the page takes."""
PIXELS = 50_000_000
"""Largest picture that the page takes."""
AT_ONCE = 4
"""Pictures that are worked on at the same time, so that nobody waits for the largest."""
KEPT = 3600
"""Seconds that uploads and results are kept."""
PREFIX = "result-"
COLUMNS = ["class", "score", "x1", "y1", "x2", "y2", "level"]


def find_models(given: Sequence[Path], runs: Path | None = None) -> list[Path]:
    """Return what to choose from: the checkpoints given, others in their run folders, those of all ``runs``.

    given: files, folders, and names of what is downloaded, which stay as they are.
    """
    found = list(given)
    for path in given:
        if path.parent.name == "checkpoints":
            found += [path.parent / "best.pt", path.parent.parent / "model.onnx"]
    if runs is not None:
        found += sorted(runs.glob("*/checkpoints/best.pt")) + sorted(runs.glob("*/model.onnx"))
    return [path for path in dict.fromkeys(found) if path in given or path.is_file()]


def draw(seen: Look, result: Result, by_level: bool) -> Image.Image:
    """Draw the detections on the picture as shown, in the colours of their classes or of their levels."""
    labels, names = (
        result.by_level() if by_level and result.levels is not None else (result.labels, result.names)
    )
    scale = seen.picture.width / result.size[1]
    return draw_result(seen.picture, result.boxes * scale, labels, result.scores, names)


def rows(result: Result) -> list[list[Any]]:
    """Return a row for each detection: name, score, x1, y1, x2, y2 in pixels of the picture, level."""
    levels = ["-"] * len(result) if result.levels is None else [f"P{level + 3}" for level in result.levels]
    found = zip(result.names, result.scores.tolist(), result.boxes.tolist(), levels, strict=True)
    return [[name, round(score, 3), *(round(v) for v in box), level] for name, score, box, level in found]


def make_page(
    models: Sequence[Path], device: str | None = None, threshold: float = 0.3, folder: Path | None = None
) -> Any:
    """Return the page as a gradio app, with the first of ``models`` open.

    folder: for files that the page offers, by default the system's for temporary files.
    Raises UserError if gradio is not installed or the first file cannot be opened.
    """
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    try:
        import gradio
    except ImportError as error:
        raise UserError("the demo page needs gradio: pip install 'fsaf[demo]'") from error

    detectors: dict[str, Detector] = {str(models[0]): load(models[0], device)}

    opening = threading.Lock()

    def open_model(name: str) -> Detector:
        if name not in map(str, models):
            raise gradio.Error(f"{name} is not one of the models of this page.")
        with opening:
            if name not in detectors:
                detectors[name] = load(name, device)
        return detectors[name]

    def see(picture: str | None, name: str, score: float, iou: float, by_level: bool) -> tuple[Any, ...]:
        """Run the network on a new picture, or with another model."""
        if picture is None:
            return None, None, [], "", None
        path = Path(picture)
        try:
            seen = look(open_model(name), path, PIXELS)
        except UserError as error:
            text = str(error).replace(str(path), "the picture").replace("data.max_pixels", "the limit")
            raise gradio.Error(html.escape(printable(text))) from error
        return seen, *show(seen, score, iou, by_level)

    def show(seen: Look | None, score: float, iou: float, by_level: bool) -> tuple[Any, ...]:
        """Choose detections again from the candidates of the network."""
        if seen is None:
            return None, [], "", None
        result = seen.choose(score, iou)
        text = f"{len(result)} found; reading and network took {1e3 * seen.seconds:.0f} ms"
        if by_level and result.levels is None:
            text += "; a file with suppression inside does not give levels"
        place = _new_folder(folder)
        # Saved here, on a thread of its own: gradio would save it where it also answers everybody else.
        draw(seen, result, by_level).save(place / "detections.png", compress_level=1)
        (place / "detections.json").write_text(json.dumps(result.to_dict(), indent=1), encoding="utf-8")
        return str(place / "detections.png"), rows(result), text, str(place / "detections.json")

    names = list(map(str, models))
    classes = markdown(", ".join(detectors[names[0]].classes.names[:20])[:1000])
    with gradio.Blocks(title="FSAF", analytics_enabled=False, delete_cache=(600, KEPT)) as page:
        gradio.Markdown("# FSAF\nDrop a picture on the left.")
        seen = gradio.State()
        with gradio.Row():
            with gradio.Column():
                picture = gradio.Image(
                    type="filepath", label="Picture", image_mode=None, sources=["upload", "clipboard"]
                )
                model = gradio.Dropdown(
                    names, value=names[0], label="Model", info=f"The first finds: {classes}"
                )
                score = gradio.Slider(LOWEST_SCORE, 0.95, threshold, step=0.01, label="Lowest score shown")
                iou = gradio.Slider(
                    0.1, 1.0, detectors[names[0]].config.predict.nms_iou, step=0.05,
                    label="Overlap (IoU) above which the lower scored of two boxes goes",
                )  # fmt: skip
                by_level = gradio.Checkbox(False, label="Colours of pyramid levels")
            with gradio.Column():
                drawn = gradio.Image(type="filepath", label="Detections", format="png", interactive=False)
                told = gradio.Markdown(elem_id="told")
                table = gradio.Dataframe(headers=COLUMNS, label="In pixels", interactive=False)
                file = gradio.DownloadButton("Download as JSON")
        shown = [drawn, table, told, file]
        settings = [score, iou, by_level]
        for event in (picture.change, model.change):
            event(see, [picture, model, *settings], [seen, *shown], concurrency_limit=AT_ONCE)
        for event in (score.release, iou.release, by_level.change):
            event(show, [seen, *settings], shown, concurrency_limit=AT_ONCE)
    return page


def _new_folder(parent: Path | None) -> Path:
    """Return a new folder in ``parent`` for files that the page offers, and delete those of an hour ago."""
    if parent is not None:
        for old in parent.glob(f"{PREFIX}*"):
            with contextlib.suppress(OSError):  # another thread may delete it
                if time.time() - old.stat().st_mtime > KEPT:
                    shutil.rmtree(old, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))


def serve(models: Sequence[Path], device: str | None, host: str, port: int) -> None:
    """Serve the page until a signal comes, such as that of Ctrl-C, and raise Stopped.

    Uploads and results are in one temporary folder, which is deleted at the end. Raises UserError if the port
    is in use.
    """

    def stop(number: int, _: object) -> NoReturn:
        raise Stopped("the page is closed", number)

    for number in (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
        signal.signal(number, stop)
    with temporary_folder("fsaf-demo") as folder:
        os.environ["GRADIO_TEMP_DIR"] = str(folder)  # read when the page is made
        page = make_page(models, device, folder=folder)
        try:
            launch(page, host, port, prevent_thread_lock=True)
            while True:
                time.sleep(1)
        finally:
            page.close(verbose=False)


def launch(page: Any, host: str, port: int | None, **options: Any) -> Any:
    """Start the server of a page, with its limits. Raises UserError if the port is in use.

    options: of gradio's ``launch``, whose result is returned.
    """
    from starlette.middleware import Middleware

    guard = Middleware(Guard, host=host, limit=UPLOAD + 1_000_000)
    options = {"quiet": False, **options, "app_kwargs": {"middleware": [guard]}}
    try:
        return page.launch(server_name=host, server_port=port, max_file_size=UPLOAD, share=False, **options)
    except OSError as error:
        raise UserError(f"port {port} of {host} cannot be used ({error}); give another --port") from error
