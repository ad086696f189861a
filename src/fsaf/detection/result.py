"""The detections of one picture: as numbers, as a table, drawn."""

from collections import Counter
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from fsaf.data.arrays import read_array
from fsaf.detection.draw import draw_result
from fsaf.detection.fetch import fetch, is_url
from fsaf.errors import UserError
from fsaf.files import whole

if TYPE_CHECKING:
    import pandas
    import supervision
    from torch import Tensor


@dataclass(kw_only=True, repr=False)
class Result:
    """The n detections of one image, best first, in pixels of the original image.

    boxes: (n, 4) float32, x1, y1, x2, y2. scores: (n,) float32. labels: (n,) int64, 0..C-1. names: the class
    names of the n boxes. size: height and width of the image. path: the file of the image, None for an image
    from memory. levels: (n,) int64, the pyramid level of each box in the view that it was found in, 0 for P3;
    None for a file with suppression inside. tracks: (n,) int64, the number of the object in a video, -1 for
    one that is seen for the first time; None without tracking.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    names: list[str]
    size: tuple[int, int]
    path: str | None = None
    levels: np.ndarray | None = None
    tracks: np.ndarray | None = None

    def __repr__(self) -> str:
        """Return one line: ``Result(photo.jpg, 640 x 480: 3 dog, 1 cat)``."""
        counts = ", ".join(f"{count} {name}" for name, count in Counter(self.names).most_common())
        where = f"{Path(self.path).name}, " if self.path else ""
        return f"Result({where}{self.size[1]} x {self.size[0]}: {counts or 'nothing'})"

    def __len__(self) -> int:
        return len(self.scores)

    def to_dict(self) -> dict[str, object]:
        """Return plain values for JSON: image, size, detections (box, score, label, name).

        With tracking each detection has ``track`` too; None for an object that is seen for the first time.
        """
        rows = zip(self.boxes.tolist(), self.scores.tolist(), self.labels.tolist(), self.names, strict=True)
        found = [
            {"box": [round(v, 3) for v in box], "score": round(score, 6), "label": label, "name": name}
            for box, score, label, name in rows
        ]
        if self.tracks is not None:
            found = [one | {"track": track} for one, track in zip(found, self.track_ids(), strict=True)]
        return {"image": self.path, "size": list(self.size), "detections": found}

    def track_ids(self) -> list[int | None]:
        """Return the track of each detection; None for those without one."""
        if self.tracks is None:
            return [None] * len(self)
        return [track if track >= 0 else None for track in self.tracks.tolist()]

    def captions(self) -> list[str]:
        """Return the names for drawing, with the track if there is one: ``cat #3``."""
        tracks = zip(self.names, self.track_ids(), strict=True)
        return [name if track is None else f"{name} #{track}" for name, track in tracks]

    def by_level(self) -> tuple[np.ndarray, list[str]]:
        """Return labels and names for drawing by pyramid level: numbers from 0, and ``cat P3``.

        Raises UserError if the levels are not known.
        """
        if self.levels is None:
            raise UserError("a file with suppression inside has no pyramid levels; use the checkpoint")
        return self.levels, [f"{name} P{i + 3}" for name, i in zip(self.names, self.levels, strict=True)]

    def draw(
        self, image: "Image.Image | np.ndarray | Tensor | None" = None, *, score_threshold: float = 0.0
    ) -> Image.Image:
        """Return the picture with the detections drawn.

        image: the picture, as ``fsaf.detection.draw.draw_result`` takes it; by default the file ``path``.
        score_threshold: leave out detections with lower scores. Raises UserError if the result is of a
        picture from memory, or of a frame, and no ``image`` is given.
        """
        if image is None:
            if self.path is None:
                raise UserError("the picture came from memory, not from a file; pass it to draw(image)")
            content = fetch(self.path) if is_url(self.path) else None
            image = read_array(self.path, None, recorded=self.size, otherwise=True, content=content)
        return draw_result(
            image, self.boxes, self.labels, self.scores, self.captions(), score_threshold=score_threshold
        )

    def save(
        self, path: str | PathLike[str], image: "Image.Image | np.ndarray | Tensor | None" = None
    ) -> None:
        """Write the picture with the detections drawn; the suffix of ``path`` says in which format.

        image: as in ``draw``. Raises UserError if the suffix is not one of a picture.
        """
        path = Path(path)
        format = Image.registered_extensions().get(path.suffix.lower())
        if format not in Image.SAVE:
            raise UserError(f"{path}: give a name that ends in .png or .jpg")
        with whole(path) as draft:
            self.draw(image).save(draft, format)

    def show(self, image: "Image.Image | np.ndarray | Tensor | None" = None) -> None:
        """Show the picture with the detections drawn in a window. image: as in ``draw``.

        In a notebook, ``result.draw()`` as the last line of a cell shows it there.
        """
        self.draw(image).show()

    def to_dataframe(self) -> "pandas.DataFrame":
        """Return a row for each detection: image, name, label, score, x1, y1, x2, y2.

        Raises UserError if pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise UserError("to_dataframe needs the package: pip install pandas") from error
        table = pandas.DataFrame(self.boxes.reshape(-1, 4), columns=["x1", "y1", "x2", "y2"])
        first: dict[str, object] = {
            "image": self.path,
            "name": self.names,
            "label": self.labels,
            "score": self.scores,
        }
        if self.tracks is not None:
            first["track"] = self.track_ids()
        for place, (name, values) in enumerate(first.items()):
            table.insert(place, name, values)
        return table

    def to_supervision(self) -> "supervision.Detections":
        """Convert to ``supervision.Detections``. Raises UserError if that package is not installed."""
        try:
            import supervision
        except ImportError as error:
            raise UserError("to_supervision needs the package: pip install supervision") from error
        return supervision.Detections(
            xyxy=self.boxes,
            confidence=self.scores,
            class_id=self.labels,
            tracker_id=self.tracks,
            data={"class_name": np.array(self.names)},
        )
