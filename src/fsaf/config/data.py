"""Keys of the section ``data``: images, boxes, and how they are put into batches."""

from dataclasses import dataclass
from typing import Literal

from fsaf.config import limits
from fsaf.config.fields import AUTO, AutoInt, check, key, read_auto, section

MULTIPLE = 32
"""Sides of batch shapes are multiples of this, so that every level halves evenly down to P5."""


_LIGHT = {"crop": 0.3, "zoom_out": 0.2, "affine": 0.3, "photometric": 0.5}
PRESETS: dict[str, dict[str, float]] = {
    "none": {},
    "light": _LIGHT,
    "strong": {
        "mosaic": 0.5, "crop": 0.3, "zoom_out": 0.3, "affine": 0.5, "photometric": 0.8, "blur": 0.1,
        "noise": 0.1, "jpeg": 0.1, "erase": 0.3,
    },
    "aerial": _LIGHT | {"turn": 0.75},
}  # fmt: skip
"""Probabilities of the augmentations of each ``data.augment``; those not listed are 0.

``aerial`` turns by 0, 90, 180 and 270 degrees equally often, which with a horizontal flip covers vertical
flips too."""
AUGMENTATIONS = (
    "mosaic",
    "turn",
    "crop",
    "zoom_out",
    "affine",
    "photometric",
    "blur",
    "noise",
    "jpeg",
    "erase",
)
"""Keys of section ``data`` that hold the probability of an augmentation, in the order of application."""


@dataclass(kw_only=True)
class SplitConfig:
    """The files of one split of a data set."""

    annotations: str | None = key(
        None,
        "A COCO JSON file; a folder of Pascal VOC XML files, or a list in ImageSets/Main; YOLO's "
        "data.yaml, or a folder of labels. Relative to `data.root`. If neither this nor `images` is given,"
        " fsaf looks for the split in `data.root`.",
    )
    images: str | None = key(
        None, "Folder of the split's images, relative to `data.root`. Required with a COCO JSON file."
    )


@dataclass(kw_only=True)
class DataConfig:
    """Images, boxes, and how they are put into batches."""

    root: str | None = key(
        None,
        "Folder that the relative paths below start from (default: the working directory). Enough by "
        "itself for a COCO, Pascal VOC or YOLO folder with a standard layout.",
    )
    train: SplitConfig = section(SplitConfig, "The training split")
    val: SplitConfig = section(SplitConfig, "The validation split")
    batch_size: AutoInt = key(
        2,
        "Images per batch and process. With `auto` 8, or fewer for a data set of under 96 images; on an "
        "accelerator also fewer if its memory is too small, and up to 64 if `optim.scale_lr` is on.",
    )
    workers: int = key(2, "Loader processes per training process; 0 loads in the training process itself.")
    shuffle: bool = key(True, "Reshuffle the training images every epoch.")
    balance: float = key(
        0.0,
        "Repeat images of rare classes, as LVIS does: a class in the share f of the images appears "
        "sqrt(`balance` / f) times as often if f is below this value. 0 turns it off.",
    )
    flip: float = key(0.5, "Probability of a horizontal flip.")
    flip_vertical: float = key(0.0, "Probability of a vertical flip.")
    scale: tuple[float, float] = key(
        (1.0, 1.0),
        "Scale training images by a random factor in this range, then crop at random what exceeds the batch "
        "shape. [0.8, 1.0] with a short side of 800 is multi-scale training from 640 to 800.",
    )
    color: float = key(
        0.0,
        "Strength of colour jitter: brightness, contrast and saturation change by up to this share, hue by"
        " up to a tenth of it (1 is the full circle). 0.5 is close to SSD's training.",
    )
    augment: Literal["none", "light", "strong", "aerial"] = key(
        "none",
        "Preset of random changes besides flip, scale and colour: `light` for photographs, `strong` for long "
        "trainings on few images, `aerial` for views from above, which have no fixed up. The keys from "
        "`mosaic` to `erase` set the probability of each change; one that you give replaces the preset's.",
    )
    mosaic: float | None = key(
        None, "Probability of a mosaic: the image and three others, at half to full size, around one corner."
    )
    turn: float | None = key(None, "Probability of a turn by 90, 180 or 270 degrees.")
    crop: float | None = key(
        None, "Probability of a random crop that keeps objects, enlarged to the image's size (SSD's)."
    )
    zoom_out: float | None = key(
        None, "Probability of shrinking the image to between half and all of its size, on a grey ground."
    )
    affine: float | None = key(
        None,
        "Probability of a rotation by up to 5 degrees with a shear of up to 2, a scale of 0.8 to 1.2 and a "
        "shift of up to a tenth.",
    )
    photometric: float | None = key(
        None, "Probability of changing brightness, contrast, saturation and hue, in SSD's ranges."
    )
    blur: float | None = key(None, "Probability of a Gaussian blur.")
    noise: float | None = key(None, "Probability of Gaussian noise.")
    jpeg: float | None = key(None, "Probability of JPEG compression with a quality of 30 to 90.")
    erase: float | None = key(
        None, "Probability of covering a rectangle, of 1% to 10% of the image, with one colour."
    )
    short_side: AutoInt = key(
        800,
        "Resize images, keeping their ratio, to this short side (pixels), unless `long_side` is reached "
        "first. With `auto` 5/3 of the training images' median short side, as COCO's 480 become 800, but 480 "
        "to 800.",
    )
    long_side: AutoInt = key(
        1333, "Maximum long side of resized images (pixels). With `auto` 5/3 of `short_side`."
    )
    antialias: bool = key(
        False, "Antialias when shrinking. Off gives the pixels of MMDetection's (OpenCV's) bilinear resize."
    )
    exif_rotation: bool | None = key(
        None,
        "Rotate images by their EXIF tag. If not given, prediction rotates them, as viewers do; for a data "
        "set, the sizes in the annotations tell which picture was labelled, and YOLO labels, which hold no "
        "sizes, refer to the rotated picture.",
    )
    shapes: list[tuple[int, int]] | None = key(
        None, "Fixed batch shapes, (height, width). Each image goes into the shape that wastes least padding."
    )
    pad: int | None = key(
        None,
        "Without fixed shapes: pad each side to a multiple of this, and a batch to the largest of its "
        "images.",
    )
    max_boxes: int = key(
        100, "Maximum number of boxes per training image. Boxes beyond it are dropped, with a warning."
    )
    min_size: int = key(
        32, "Leave out training images with a side shorter than this (pixels, before resizing)."
    )
    keep_empty: bool = key(False, "Train on images without boxes too.")
    val_share: float = key(
        0.2, "Share of the images held out for evaluation if the data set has no splits; 0 trains on all."
    )
    val_seed: int = key(0, "Choose other images to hold out.")
    on_bad_image: Literal["refuse", "skip", "accept"] = key(
        "refuse",
        "What to do about images that do not decode, such as files with bytes missing at their end: refuse "
        "the data; skip these images (all are decoded before training to find them); or accept what there is"
        " of them, with the rest grey.",
    )
    max_pixels: int = key(
        100_000_000, "Refuse images with more pixels before decoding them, as protection against image bombs."
    )

    def __post_init__(self) -> None:
        self.batch_size = read_auto(self.batch_size, 8)
        self.short_side = read_auto(
            self.short_side, 800 if self.long_side == AUTO else min(800, self.long_side)
        )
        self.long_side = read_auto(self.long_side, round(self.short_side * 5 / 3))
        for name, least, most in (
            ("batch_size", 1, limits.BATCH),
            ("workers", 0, limits.WORKERS),
            ("max_boxes", 1, limits.BOXES),
        ):
            value = getattr(self, name)
            check(least <= value <= most, f"data.{name}", value, f"between {least} and {most}")
        check(self.max_pixels >= 1, "data.max_pixels", self.max_pixels, "at least 1")
        for name in ("balance", "flip", "flip_vertical", *AUGMENTATIONS):
            value = getattr(self, name)
            check(value is None or 0 <= value <= 1, f"data.{name}", value, "between 0 and 1")
        check(0 <= self.val_share < 1, "data.val_share", self.val_share, "0 or more, and below 1")
        low, high = self.scale
        check(0 < low <= high, "data.scale", [low, high], "two factors above 0, the smaller first")
        check(0 <= self.color <= 1, "data.color", self.color, "between 0 and 1")
        for name in ("short_side", "long_side"):
            side = getattr(self, name)
            within = MULTIPLE <= side <= limits.SIDE
            check(within, f"data.{name}", side, f"between {MULTIPLE} and {limits.SIDE} pixels")
        fits = self.short_side <= self.long_side
        check(fits, "data.short_side", self.short_side, f"at most data.long_side ({self.long_side})")
        area = self.short_side * self.long_side <= limits.AREA
        sides = [self.short_side, self.long_side]
        check(area, "data.short_side and data.long_side", sides, f"at most {limits.AREA:,} pixels together")
        within = self.pad is None or 1 <= self.pad <= limits.PAD
        check(within, "data.pad", self.pad, f"between 1 and {limits.PAD}")
        for height, width in self.shapes or []:
            ok = all(MULTIPLE <= side <= limits.SIDE and side % MULTIPLE == 0 for side in (height, width))
            check(
                ok and height * width <= limits.AREA,
                "data.shapes",
                [height, width],
                f"[height, width], multiples of {MULTIPLE} up to {limits.SIDE}, of at most {limits.AREA:,} "
                "pixels together",
            )

    @property
    def chances(self) -> dict[str, float]:
        """Return the probability of each of ``AUGMENTATIONS``: that of its key, else that of the preset."""
        preset = PRESETS[self.augment]
        given = {name: getattr(self, name) for name in AUGMENTATIONS}
        return {name: preset.get(name, 0.0) if value is None else value for name, value in given.items()}
