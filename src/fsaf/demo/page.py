"""A page on this machine to try a detector on one's own pictures."""

import os
from pathlib import Path
from typing import Any

from PIL import Image

from fsaf.errors import UserError
from fsaf.results.draw import draw_result
from fsaf.results.predict import Detector

UPLOAD = "20mb"
"""Largest file that the page takes."""
PIXELS = 50_000_000
"""Largest picture that the page takes."""


def detect(detector: Detector, picture: Image.Image, threshold: float) -> tuple[Image.Image, list[list[Any]]]:
    """The picture with its detections drawn on, and their rows: name, score, x1, y1, x2, y2."""
    result = detector.predict(picture, score_threshold=threshold)
    drawn = draw_result(picture, result.boxes, result.labels, result.scores, result.names)
    rows = zip(result.names, result.scores.tolist(), result.boxes.tolist(), strict=True)
    return drawn, [[name, round(score, 3), *(round(v) for v in box)] for name, score, box in rows]


def make_page(detector: Detector, title: str, threshold: float = 0.3) -> Any:
    """The page as a gradio app. Raises UserError where gradio is not installed."""
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    try:
        import gradio
    except ImportError as error:
        raise UserError("the demo page needs gradio: pip install 'fsaf[demo]'") from error

    def answer(picture: Image.Image | None, score: float) -> tuple[Image.Image, list[list[Any]]]:
        if picture is None:
            raise gradio.Error("Give a picture first.")
        if picture.width * picture.height > PIXELS:
            raise gradio.Error(f"The picture has more than {PIXELS // 1_000_000} million pixels.")
        return detect(detector, picture, score)

    classes = ", ".join(detector.classes.names[:20])
    with gradio.Blocks(title=title, analytics_enabled=False) as page:
        gradio.Markdown("# FSAF\nDrop a picture on the left. Detects:")
        gradio.Textbox(classes, label=f"{len(detector.classes)} classes", interactive=False)
        with gradio.Row():
            with gradio.Column():
                picture = gradio.Image(type="pil", label="Picture", image_mode="RGB")
                score = gradio.Slider(0.05, 0.95, threshold, step=0.05, label="Lowest score shown")
                button = gradio.Button("Detect", variant="primary")
            with gradio.Column():
                drawn = gradio.Image(type="pil", label="Detections", format="png")
                table = gradio.Dataframe(
                    headers=["class", "score", "x1", "y1", "x2", "y2"], label="In pixels"
                )
        for event in (button.click, picture.upload):
            event(answer, [picture, score], [drawn, table])
    return page


def serve(detector: Detector, checkpoint: Path, host: str, port: int) -> None:
    """Show the page until interrupted. Raises UserError where the port is taken."""
    page = make_page(detector, f"FSAF: {checkpoint.name}")
    try:
        page.launch(server_name=host, server_port=port, max_file_size=UPLOAD, share=False, quiet=False)
    except OSError as error:
        raise UserError(f"port {port} of {host} cannot be used ({error}); give another --port") from error
