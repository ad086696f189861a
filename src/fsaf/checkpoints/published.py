"""Detectors with a name: the FSAF checkpoints that MMDetection publishes, downloaded once."""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from fsaf.checkpoints.coco_classes import COCO
from fsaf.checkpoints.download import download

SERVER = "https://download.openmmlab.com/mmdetection/v2.0/fsaf"


@dataclass(frozen=True, kw_only=True)
class Published:
    """A published checkpoint.

    folder and file: where it is on ``SERVER``. sha256: the beginning of its sum, which its name ends with.
    ap: box AP on COCO val2017 as published, in percent. parameters: of the network, in millions. recipe: the
    recipe of this package that trains it.
    """

    name: str
    folder: str
    file: str
    sha256: str
    ap: float
    parameters: float
    recipe: str
    licence: str = "Apache-2.0"

    @property
    def url(self) -> str:
        """Return the address of the file."""
        return f"{SERVER}/{self.folder}/{self.file}"

    @property
    def path(self) -> Path:
        """Return the path of the file on this machine. It need not exist."""
        return cache() / self.file

    def to_dict(self) -> dict[str, object]:
        """Return plain values for JSON."""
        return {**asdict(self), "url": self.url, "path": str(self.path), "cached": self.path.is_file()}

    @property
    def megabytes(self) -> float:
        """Return the size of the download: four bytes a parameter."""
        return self.parameters * 4


# Source: configs/fsaf/metafile.yml and README.md of MMDetection 3.3.0.
PUBLISHED = {
    one.name: one
    for one in (
        Published(
            name="fsaf_r50_coco",
            folder="fsaf_r50_fpn_1x_coco",
            file="fsaf_r50_fpn_1x_coco-94ccc51f.pth",
            sha256="94ccc51f",
            ap=37.4,
            parameters=36.4,
            recipe="fsaf_r50_fpn_1x_coco",
        ),
        Published(
            name="fsaf_r101_coco",
            folder="fsaf_r101_fpn_1x_coco",
            file="fsaf_r101_fpn_1x_coco-9e71098f.pth",
            sha256="9e71098f",
            ap=39.3,
            parameters=55.4,
            recipe="fsaf_r101_fpn_1x_coco",
        ),
        Published(
            name="fsaf_x101_coco",
            folder="fsaf_x101_64x4d_fpn_1x_coco",
            file="fsaf_x101_64x4d_fpn_1x_coco-e3f6e6fd.pth",
            sha256="e3f6e6fd",
            ap=42.4,
            parameters=94.3,
            recipe="fsaf_x101_64x4d_fpn_1x_coco",
        ),
        Published(
            name="fsaf_r50_coco_paper",
            folder="fsaf_pscale0.2_nscale0.5_r50_fpn_1x_coco",
            file="fsaf_pscale0.2_nscale0.5_r50_fpn_1x_coco_20200715-b555b0e0.pth",
            sha256="b555b0e0",
            ap=36.0,
            parameters=36.4,
            recipe="fsaf_r50_fpn_1x_coco_paper",
        ),
    )
}
"""All published checkpoints by name."""


# Source: the paper's table 1, ResNet-50, on COCO minival.
PAPER = {
    "retinanet_r50_fpn_1x_coco": 35.7,
    "fsaf_r50_fpn_1x_coco_by_size": 34.7,
    "fsaf_r50_fpn_1x_coco_paper": 35.9,
    "ab_fsaf_r50_fpn_1x_coco": 37.2,
}
"""Box AP of recipes as the paper has it, in percent."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """Box AP that was published for a recipe, 0 to 1, and by whom."""

    ap: float
    source: str


def figures_of(recipe: str) -> list[Figure]:
    """Return the figures published for a recipe; none if there are none."""
    found = [
        (one.ap, "MMDetection 3.3.0, COCO val2017") for one in PUBLISHED.values() if one.recipe == recipe
    ]
    found += [(PAPER[recipe], "the paper's table 1, COCO minival")] if recipe in PAPER else []
    return [Figure(ap=round(ap / 100, 5), source=source) for ap, source in found]


def is_val2017(images: object, names: Sequence[str]) -> bool:
    """Return True for as many images as COCO val2017 has, 5,000, with its 80 classes."""
    return images == 5000 and tuple(names) == COCO.names


def cache() -> Path:
    """Return the folder of downloads: ``FSAF_HOME`` if it is set, else torch hub's."""
    home = os.environ.get("FSAF_HOME")
    return Path(home).expanduser() if home else Path(torch.hub.get_dir()) / "checkpoints"


def is_published(path: Path) -> bool:
    """Return True for the name of a published checkpoint, unless a file of that name is there."""
    return str(path) in PUBLISHED and not path.exists()


def fetch_published(name: str) -> Path:
    """Return the file of a published checkpoint, downloaded unless it is in the cache.

    Raises CheckpointError if it cannot be downloaded or is another file, WriteError if there is no space.
    """
    one = PUBLISHED[name]
    download(one.url, one.path, one.sha256)
    return one.path
