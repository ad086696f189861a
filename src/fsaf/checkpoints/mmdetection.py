"""Read and write FSAF checkpoints of MMDetection 2.x and 3.x, without changing a bit of their tensors.

MMDetection has the same tensors under other names (``FSAF`` in mmdet/models/detectors, ``FSAFHead`` in
dense_heads).
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from fsaf.checkpoints.classes import check_count, read_classes
from fsaf.checkpoints.coco_classes import COCO
from fsaf.checkpoints.format import Checkpoint, header, read_header
from fsaf.checkpoints.structure import fits
from fsaf.checkpoints.weights import check_values
from fsaf.config import Config, ModelConfig
from fsaf.data.records import Classes
from fsaf.errors import CheckpointError, UserError
from fsaf.model.detector import FSAF

BACKBONES = {
    # blocks of the four stages, shape of layer1.0.conv2.weight -> timm's name
    ((3, 4, 6, 3), (64, 64, 3, 3)): "resnet50.tv_in1k",
    ((3, 4, 23, 3), (64, 64, 3, 3)): "resnet101.tv_in1k",
    ((3, 4, 23, 3), (256, 4, 3, 3)): "resnext101_64x4d.gluon_in1k",
}
"""The backbones of MMDetection's FSAF, recognised by the names and shapes of their tensors."""

PUBLISHED = {"mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375)}
"""Normalisation of R, G and B in MMDetection's FSAF, for checkpoints that do not state it."""

KIND = "ResNet-50, ResNet-101 or ResNeXt-101-64x4d"


def from_mmdetection(checkpoint: Any, where: str) -> tuple[dict[str, Tensor], ModelConfig, Classes]:
    """Return the weights under fsaf's names, the config of their network, and its classes.

    checkpoint: the content of file ``where``, as returned by ``fsaf.checkpoints.pickles.load_plain``.
    The class names are those of the checkpoint's meta. If it lists none, they are COCO's for 80 classes and
    otherwise ``class_0``, ``class_1`` and so on. MMDetection does not store category ids: they are COCO's for
    COCO's names, and otherwise 1..C.
    Raises UserError if the file holds no FSAF; missing, unknown and misshapen tensors are listed by name.
    """
    theirs = _tensors(checkpoint, where)
    meta = _meta(checkpoint)
    config = _network(theirs, meta, where)
    num_classes = theirs["bbox_head.retina_cls.weight"].shape[0]
    check_count(num_classes, where)
    prefixes = [(to, start) for start, to in _prefixes(config)]
    _check_tensors(theirs, config, num_classes, where)
    state = {_rename(name, prefixes): tensor for name, tensor in theirs.items()}
    return state, config, _classes(meta, num_classes, where)


def import_checkpoint(checkpoint: Any, where: str) -> Checkpoint:
    """Return the content of an MMDetection file ``where`` as a checkpoint.

    Config and category ids are restored from a file that ``export_checkpoint`` wrote. Raises UserError as
    ``from_mmdetection`` and ``check_values``.
    """
    state, model, classes = from_mmdetection(checkpoint, where)
    config = Config(model=model)
    ours = _meta(checkpoint).get("fsaf")
    if fits(ours, dict[str, Any]) and {"config", "classes"} <= ours.keys():
        # Early versions of fsaf wrote neither format nor version.
        config, classes = read_header({**header(config, classes), **ours}, where)
    return Checkpoint(config=config, classes=classes, weights=check_values(state, where))


def export_checkpoint(checkpoint: Checkpoint, where: str) -> dict[str, Any]:
    """Return a checkpoint (of file ``where``) in MMDetection's layout, for 2.x and 3.x alike.

    Training state is left out. Raises UserError if MMDetection's FSAF has no such backbone or head.
    """
    config, classes = checkpoint.config, checkpoint.classes
    known = {name.split(".")[0] for name in BACKBONES.values()}
    if config.model.backbone.split(".")[0] not in known:
        raise CheckpointError(
            f"{where}: MMDetection's FSAF has {KIND} as its backbone, not {config.model.backbone}"
        )
    if config.model.branches != ["anchor_free"]:
        raise CheckpointError(
            f"{where}: MMDetection's FSAF has no anchors; model.branches = {config.model.branches}"
        )
    if config.model.separable:
        raise CheckpointError(f"{where}: MMDetection's FSAF has no such layers; model.separable = true")
    prefixes = _prefixes(config.model)
    names = list(classes.names)
    return {
        "meta": {
            "CLASSES": names,
            "dataset_meta": {"classes": names},
            "fsaf": header(config, classes),
        },
        "state_dict": {_rename(name, prefixes): tensor for name, tensor in checkpoint.weights.items()},
    }


def _prefixes(config: ModelConfig) -> list[tuple[str, str]]:
    """Return pairs of prefixes of tensor names, fsaf's and MMDetection's; each name has exactly one."""
    pairs = [("backbone.body.", "backbone.")]
    for i in range(3):
        pairs.append((f"pyramid.lateral.{i}.", f"neck.lateral_convs.{i}.conv."))
        pairs.append((f"pyramid.smooth.{i}.", f"neck.fpn_convs.{i}.conv."))
    pairs += [("pyramid.p6.", "neck.fpn_convs.3.conv."), ("pyramid.p7.", "neck.fpn_convs.4.conv.")]
    layers = 3 if config.norm == "group" else 2  # convolution, norm, ReLU
    for ours, theirs in (("class_tower", "cls_convs"), ("box_tower", "reg_convs")):
        for i in range(config.convs):
            pairs.append((f"head.{ours}.{layers * i}.", f"bbox_head.{theirs}.{i}.conv."))
            if config.norm == "group":
                pairs.append((f"head.{ours}.{layers * i + 1}.", f"bbox_head.{theirs}.{i}.gn."))
    return [*pairs, ("head.classes.", "bbox_head.retina_cls."), ("head.distances.", "bbox_head.retina_reg.")]


def _rename(name: str, prefixes: Iterable[tuple[str, str]]) -> str:
    start, to = next(pair for pair in prefixes if name.startswith(pair[0]))
    return to + name[len(start) :]


def _meta(checkpoint: Mapping[str, Any]) -> Mapping[str, Any]:
    meta = checkpoint.get("meta")
    return meta if isinstance(meta, Mapping) else {}


def _tensors(checkpoint: Any, where: str) -> dict[str, Tensor]:
    """Return the state dict of a file, under MMDetection's names."""
    state = checkpoint.get("state_dict", checkpoint) if isinstance(checkpoint, Mapping) else None
    if not fits(state, dict[str, Tensor]) or not state:
        raise CheckpointError(
            f"{where}: holds no 'state_dict' of tensors; not a checkpoint of MMDetection or fsaf"
        )
    # Drop the prefix of a parallel wrapper. Drop ``ema_*`` too: MMDetection 2.x saves the moving average
    # under the plain names, and the weights before averaging under these.
    found = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    return {name: tensor for name, tensor in found.items() if not name.startswith("ema_")}


def _network(theirs: Mapping[str, Tensor], meta: Mapping[str, Any], where: str) -> ModelConfig:
    """Return the config of the network that has tensors of these names and shapes."""
    shapes = {name: tuple(tensor.shape) for name, tensor in theirs.items()}
    heads = [f"bbox_head.{name}.weight" for name in ("retina_cls", "retina_reg")]
    if not all(len(shapes.get(name, ())) == 4 for name in heads):
        parts = ", ".join(sorted({name.split(".")[0] for name in theirs})[:8])
        raise CheckpointError(
            f"{where}: not an FSAF of MMDetection: no tensor {heads[0]}; it has {parts}. "
            "Weights of a backbone alone go to --model.weights"
        )
    outputs = shapes[heads[1]][0]
    if outputs != 4:
        raise CheckpointError(
            f"{where}: not an FSAF of MMDetection but another detector: {heads[1]} has {outputs} outputs, "
            f"for {outputs / 4:g} anchors per location; FSAF has 4 distances"
        )
    blocks = tuple(
        len({name.split(".")[2] for name in theirs if name.startswith(f"backbone.layer{stage}.")})
        for stage in (1, 2, 3, 4)
    )
    width = shapes.get("backbone.layer1.0.conv2.weight")
    backbone = BACKBONES.get((blocks, width)) if width else None  # type: ignore[arg-type]
    if backbone is None:
        raise CheckpointError(
            f"{where}: the backbone is not {KIND}: its stages have {blocks} blocks, "
            f"backbone.layer1.0.conv2.weight is {'missing' if width is None else list(width)}"
        )
    mean, std = _normalisation(meta, where)
    group = any(name.startswith("bbox_head.cls_convs.") and ".gn." in name for name in theirs)
    try:
        return ModelConfig(
            backbone=backbone,
            weights="none",
            channels=shapes[heads[0]][1],
            convs=len({name.split(".")[2] for name in theirs if name.startswith("bbox_head.cls_convs.")}),
            norm="group" if group else "none",
            mean=mean,
            std=std,
        )
    except UserError as error:  # such as too many channels
        raise CheckpointError(f"{where}: {error}") from error


def _normalisation(
    meta: Mapping[str, Any], where: str
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Return mean and standard deviation from the config that MMDetection stores as text, or ``PUBLISHED``.

    Raises UserError for settings that do not show in the tensors: BGR input, and Caffe's ResNet, whose blocks
    have their stride in the first convolution.
    """
    text = next((each for each in (meta.get("config"), meta.get("cfg")) if isinstance(each, str)), "")
    for sign in ("style='caffe'", "to_rgb=False"):
        if sign in text:
            raise CheckpointError(
                f"{where}: trained with {sign} (Caffe's ResNet), which is not supported; "
                "FSAF's published checkpoints have style='pytorch' and RGB input"
            )
    found = []
    for key, default in PUBLISHED.items():
        texts = set(re.findall(rf"\b{key}=\[([\d., ]+)\]", text))
        values = [_three_numbers(values) for values in texts]
        found.append(values[0] or default if len(values) == 1 else default)
    return found[0], found[1]


def _three_numbers(text: str) -> tuple[float, float, float] | None:
    parts = [part for part in text.split(",") if part.strip()]
    try:
        first, second, third = map(float, parts)
    except ValueError:
        return None
    return first, second, third


def _check_tensors(theirs: Mapping[str, Tensor], config: ModelConfig, num_classes: int, where: str) -> None:
    """Raise UserError that lists the tensors whose names or shapes differ from the network's."""
    with torch.device("meta"):
        wanted = FSAF(config, num_classes).state_dict()
    prefixes = _prefixes(config)
    shapes = {_rename(name, prefixes): list(tensor.shape) for name, tensor in wanted.items()}
    wrong = [
        f"{name} {list(theirs[name].shape)} instead of {shape}"
        for name, shape in shapes.items()
        if name in theirs and list(theirs[name].shape) != shape
    ]
    faults = {
        "missing": [name for name in shapes if name not in theirs],
        "of another shape": wrong,
        "unknown": [name for name in theirs if name not in shapes],
    }
    if any(faults.values()):
        listed = "; ".join(f"{what}: {_some(names)}" for what, names in faults.items() if names)
        raise CheckpointError(
            f"{where}: not all tensors of an FSAF with {config.backbone} are right. {listed}"
        )


def _some(names: list[str], count: int = 12) -> str:
    return ", ".join(names[:count]) + (f" and {len(names) - count} more" if len(names) > count else "")


def _classes(meta: Mapping[str, Any], count: int, where: str) -> Classes:
    """Return the classes that a file names, or default names; ``count`` is that of the weights."""
    dataset = meta.get("dataset_meta")
    names: Any = None
    for source, key in ((dataset, "classes"), (dataset, "CLASSES"), (meta, "CLASSES")):
        given = source.get(key) if isinstance(source, Mapping) else None
        if names is None and isinstance(given, (str, list, tuple)):
            names = given
    if names is None:
        if count == len(COCO):
            return COCO
        names = [f"class_{label}" for label in range(count)]
    names = (names,) if isinstance(names, str) else tuple(names)
    names = tuple(str(name) if isinstance(name, int) else name for name in names)
    if len(names) != count:
        raise CheckpointError(
            f"{where}: its meta names {len(names)} classes, bbox_head.retina_cls.weight has {count}; "
            "save it again with the right names in meta['dataset_meta']['classes']"
        )
    if names == COCO.names:
        return COCO
    return read_classes([*names], [*range(1, count + 1)], where)
