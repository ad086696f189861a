"""The figures of docs/how-fsaf-works.md, drawn from what the package itself computes.

    fsaf quickstart
    python tools/figures.py [RUN]      # RUN: its folder (runs/quickstart); writes docs/figures/*.png

One validation picture of the built-in digits, the quickstart's detector, matplotlib (extra ``docs``).
"""

import argparse
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.patches import Patch, Rectangle
from PIL import Image
from torch import Tensor

from fsaf import load
from fsaf.boxes import scale_boxes
from fsaf.config import ObjectiveConfig, PredictConfig
from fsaf.data.batch import Boxes, pad_boxes
from fsaf.data.readers.splits import open_split
from fsaf.data.transforms import read_image
from fsaf.detection.postprocess import postprocess
from fsaf.model.outputs import FreeOutputs, RawOutputs
from fsaf.model.points import STRIDES, decode_boxes
from fsaf.objective.anchor_free import MIN_DISTANCE
from fsaf.objective.assign import assign
from fsaf.objective.losses import box_loss, focal_losses
from fsaf.objective.select import level_losses, select_levels

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "figures"
PICTURE = 133
"""Image id of the validation picture: a large, a middling and a small digit."""
LEVELS = [f"P{i + 3}" for i in range(len(STRIDES))]
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
"""Of boxes; told apart by colour-blind eyes too (Okabe and Ito)."""
GREY, IGNORED = "#b8b8b8", "#f0c24b"


@dataclass(kw_only=True)
class Scene:
    """A picture, what is in it, and what the detector says of it."""

    image: np.ndarray
    """(H, W, 3) uint8."""
    boxes: Boxes
    """Of a batch of one image."""
    names: list[str]
    """Class of each box."""
    outputs: FreeOutputs

    @property
    def level_shapes(self) -> list[tuple[int, int]]:
        """(height, width) of each level."""
        return [(x.shape[2], x.shape[3]) for x in self.outputs.logits]


def read_scene(run: Path) -> Scene:
    """The picture with the boxes of its annotations, largest first, and the raw outputs of the network."""
    detector = load(run / "checkpoints" / "best.pt", "cpu")
    detector.config.data.root = str(run / "digits")
    records = open_split(detector.config.data, "val", detector.classes)
    record = next(record for record in records.images if record.id == PICTURE)
    xyxy, labels = torch.as_tensor(record.boxes), torch.as_tensor(record.labels)
    order = torch.argsort((xyxy[:, 2] - xyxy[:, 0]) * (xyxy[:, 3] - xyxy[:, 1]), descending=True)
    xyxy, labels = xyxy[order].float(), labels[order].long()
    image = read_image(record.path)
    size = (image.shape[1], image.shape[2])
    boxes, _ = pad_boxes([xyxy], [labels], [torch.zeros(len(labels), dtype=torch.bool)], [size], len(labels))
    with torch.inference_mode():
        outputs = detector.model(image[None], boxes.sizes).free
    names = [detector.classes.names[label] for label in labels]
    return Scene(image=image.permute(1, 2, 0).numpy(), boxes=boxes, names=names, outputs=outputs)


def each_level(values: Tensor, scene: Scene) -> list[np.ndarray]:
    """(P,) of all locations as (height, width) of each level."""
    sizes = [height * width for height, width in scene.level_shapes]
    return [x.reshape(s).numpy() for x, s in zip(values.split(sizes), scene.level_shapes, strict=True)]


def show_picture(ax: Any, scene: Scene, fade: float = 0.0) -> None:
    """The picture, mixed with this share of white."""
    ax.imshow((scene.image * (1 - fade) + 255 * fade).astype(np.uint8))
    ax.set(xlim=(0, scene.image.shape[1]), ylim=(scene.image.shape[0], 0), xticks=[], yticks=[])


def draw_box(
    ax: Any, box: Sequence[float] | Tensor, color: str, style: str = "-", width: float = 2.0
) -> None:
    """An outline of x1, y1, x2, y2."""
    x1, y1, x2, y2 = (float(v) for v in box)
    ax.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, ec=color, lw=width, ls=style))


def draw_locations(scene: Scene) -> Any:
    """Which locations of each level learn which box, before a level is chosen."""
    config = ObjectiveConfig()
    assigned = assign(scene.level_shapes, scene.boxes, 10, config)
    learns = each_level(torch.where(assigned.positive_bp, assigned.box_bp, -1)[0], scene)
    figure, axes = plt.subplots(2, 3, figsize=(9.6, 5.4), layout="constrained")
    ax = axes.flat[0]
    show_picture(ax, scene)
    for box, color in zip(scene.boxes.xyxy[0], COLORS, strict=False):
        draw_box(ax, box, color)
        draw_box(ax, scale_boxes(box, config.pos_scale), color, ":", 1.6)
    ax.set_title("boxes, and their cores (dotted)", fontsize=10)
    for ax, name, stride, level in zip(axes.flat[1:], LEVELS, STRIDES, learns, strict=True):
        show_picture(ax, scene, 0.82)
        for box, color in zip(scene.boxes.xyxy[0], COLORS, strict=False):
            draw_box(ax, box, color, width=0.8)
        rows, columns = np.indices(level.shape)
        ax.scatter(columns * stride, rows * stride, s=4, c="#8a8a8a", lw=0, zorder=1.5)
        for index in range(len(scene.names)):
            of = level == index
            ax.scatter(columns[of] * stride, rows[of] * stride, s=26, c=COLORS[index], lw=0, zorder=3)
        ax.set_title(f"{name}: a location every {stride} pixels", fontsize=10)
    return figure


def draw_core(scene: Scene) -> Any:
    """Core, shadow and background of the largest box on P4, with the paper's shadow; and four distances."""
    config = ObjectiveConfig(neg_scale=0.5)
    one = Boxes(*(x[:, :1] for x in scene.boxes[:4]), scene.boxes.sizes)
    level = 1
    stride, shape = STRIDES[level], scene.level_shapes[level]
    assigned = assign([shape], one, 10, config, [stride])
    positive = assigned.positive_bp[0].reshape(shape)
    ignored = ~assigned.counts_bcp[0, one.labels[0, 0]].reshape(shape)
    box, color = one.xyxy[0, 0].tolist(), COLORS[0]
    x1, y1, x2, y2 = box
    figure, axes = plt.subplots(1, 2, figsize=(9.0, 4.7), layout="constrained")
    for ax in axes:
        show_picture(ax, scene, 0.6)
        ax.set(xlim=(x1 - 48, min(x2 + 48, scene.image.shape[1])), ylim=(y2 + 20, max(y1 - 20, 0)))
        draw_box(ax, box, color, width=2.2)
    for (i, j), learns in np.ndenumerate(positive.numpy()):
        face = color if learns else IGNORED if ignored[i, j] else "none"
        corner = ((j - 0.5) * stride, (i - 0.5) * stride)
        axes[0].add_patch(Rectangle(corner, stride, stride, fc=face, ec="#666666", lw=0.5, alpha=0.8))
        axes[0].plot(j * stride, i * stride, ".", ms=3, color="#333333")
    for factor, style in ((config.pos_scale, "-"), (config.neg_scale, "--")):
        draw_box(axes[0], scale_boxes(one.xyxy[0, 0], factor), "#111111", style, 1.3)
    handles = [
        Patch(fc=color, alpha=0.8, label="learn the box: touch its core"),
        Patch(fc=IGNORED, alpha=0.8, label="ignored for its class: touch its shadow only"),
        Patch(fc="white", ec="#666666", label="background"),
    ]
    axes[0].legend(
        handles=handles, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.01), frameon=False
    )
    axes[0].set_title(f"{LEVELS[level]}: each location owns a square of {stride} pixels", fontsize=10)
    i, j = next(zip(*np.nonzero(positive.numpy()), strict=True))
    x, y = float(j * stride), float(i * stride)
    for end, name, at in (
        ((x, y1), "top", (x + 3, (y + y1) / 2)),
        ((x, y2), "bottom", (x + 3, (y + y2) / 2)),
        ((x1, y), "left", ((x + x1) / 2 - 9, y - 11)),
        ((x2, y), "right", ((x + x2) / 2 - 6, y - 11)),
    ):
        arrow = {"arrowstyle": "->", "lw": 1.6, "shrinkA": 0, "shrinkB": 0}
        axes[1].annotate("", end, (x, y), arrowprops=arrow)
        length = abs(end[0] - x) + abs(end[1] - y)
        axes[1].text(*at, f"{name}\n{length:.0f} px", fontsize=8.5, va="center", linespacing=1.3)
    axes[1].plot(x, y, "o", color=color, ms=7)
    axes[1].set_title("each location predicts four distances", fontsize=10)
    return figure


def losses_of_levels(scene: Scene) -> tuple[np.ndarray, list[int]]:
    """Mean loss of each box on each level, (boxes, levels), infinite where it has no location; the choice."""
    config = ObjectiveConfig()
    logits_bcp, distances_b4p, points = scene.outputs.flat()
    assigned = assign(points.level_shapes, scene.boxes, logits_bcp.shape[1], config)
    other, own = focal_losses(
        logits_bcp, assigned.label_bp, assigned.positive_bp, assigned.counts_bcp, config.alpha, config.gamma
    )
    predicted = decode_boxes(distances_b4p.clamp(min=MIN_DISTANCE), points)
    target = scene.boxes.xyxy[0][assigned.box_bp].mT
    total = other + own + box_loss(predicted, target)
    losses = level_losses(total, assigned.positive_bp, assigned.box_bp, points.level_sizes, len(scene.names))
    return losses[0].numpy(), select_levels(losses)[0][0].tolist()


def draw_choice(scene: Scene) -> Any:
    """The loss of each box on each level, and the level that it chooses."""
    losses, chosen = losses_of_levels(scene)
    figure, axes = plt.subplots(
        1,
        1 + len(scene.names),
        figsize=(9.6, 3.1),
        layout="constrained",
        width_ratios=[1.5] + [1] * len(scene.names),
    )
    show_picture(axes[0], scene)
    top = 1.15 * losses[np.isfinite(losses)].max()
    for index, (name, row) in enumerate(zip(scene.names, losses, strict=True)):
        color, box = COLORS[index], scene.boxes.xyxy[0, index]
        draw_box(axes[0], box, color, width=2.4)
        ax = axes[1 + index]
        finite = np.isfinite(row)
        bars = ax.bar(LEVELS, np.where(finite, row, 0), color=GREY, width=0.72)
        bars[chosen[index]].set_color(color)
        for level, value in enumerate(row):
            text = f"{value:.2f}" if finite[level] else "none"
            ax.text(
                level, value + 0.02 * top if finite[level] else 0, text, ha="center", va="bottom", fontsize=8
            )
        height = float(box[3] - box[1])
        ax.set_title(f'"{name}", {height:.0f} px high: {LEVELS[chosen[index]]}', fontsize=10, color=color)
        ax.set(ylim=(0, top), yticks=[])
        ax.spines[["top", "left", "right"]].set_visible(False)
    axes[1].set_ylabel("mean loss of its locations", fontsize=9)
    return figure


def draw_scores(scene: Scene) -> Any:
    """The highest score of any class at each location, level by level."""
    figure, axes = plt.subplots(1, 5, figsize=(9.6, 2.0), layout="constrained")
    height, width = scene.image.shape[:2]
    for ax, name, stride, logits in zip(axes, LEVELS, STRIDES, scene.outputs.logits, strict=True):
        score = logits[0].sigmoid().amax(0).numpy()
        rows, columns = score.shape
        extent = (-stride / 2, (columns - 0.5) * stride, (rows - 0.5) * stride, -stride / 2)
        shown = ax.imshow(score, cmap="inferno", vmin=0, vmax=1, extent=extent)
        for box in scene.boxes.xyxy[0]:
            draw_box(ax, box, "#9a9a9a", width=0.8)
        ax.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[], facecolor="#000004")
        ax.set_title(f"{name}: at most {score.max():.2f}", fontsize=9)
    figure.colorbar(shown, ax=axes, shrink=0.8, label="highest score")
    return figure


def draw_suppression(scene: Scene) -> Any:
    """Candidates, and what suppression leaves of them."""
    figure, axes = plt.subplots(1, 2, figsize=(9.6, 4.1), layout="constrained")
    levels: list[str] = []
    for ax, title, overlap in (
        (axes[0], "{} candidates with a score above 0.3", 1.0),
        (axes[1], "{} left", 0.5),
    ):
        config = PredictConfig(score_threshold=0.3, nms_iou=overlap)
        found = postprocess(RawOutputs(scene.outputs), scene.boxes.sizes, config)
        assert found.levels_bm is not None
        show_picture(ax, scene)
        rows = [i for i in range(config.max_detections) if found.labels_bm[0, i] >= 0]
        for i in reversed(rows):
            level = int(found.levels_bm[0, i])
            levels.append(LEVELS[level])
            draw_box(ax, found.boxes_bm4[0, i], COLORS[level], width=1.2 if overlap == 1 else 2.4)
            if overlap < 1:
                x, y = found.boxes_bm4[0, i, :2].tolist()
                text = f"{int(found.labels_bm[0, i])}: {found.scores_bm[0, i]:.2f}"
                ax.text(
                    x,
                    y - 3,
                    text,
                    fontsize=9,
                    color="white",
                    va="bottom",
                    bbox={"fc": COLORS[level], "lw": 0, "pad": 1.5},
                )
        ax.set_title(title.format(len(rows)), fontsize=10)
    handles = [
        Patch(fc=COLORS[i], label=f"found on {name}") for i, name in enumerate(LEVELS) if name in levels
    ]
    axes[0].legend(handles=handles, fontsize=8, loc="lower right")
    return figure


FIGURES = {
    "locations.png": draw_locations,
    "core.png": draw_core,
    "choice.png": draw_choice,
    "scores.png": draw_scores,
    "suppression.png": draw_suppression,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "run", type=Path, nargs="?", default=Path("runs/quickstart"), help="the quickstart's folder"
    )
    scene = read_scene(parser.parse_args().run)
    matplotlib.use("agg")
    FOLDER.mkdir(exist_ok=True)
    for name, draw in FIGURES.items():
        figure = draw(scene)
        drawn = io.BytesIO()
        figure.savefig(drawn, dpi=110)
        plt.close(figure)
        small = Image.open(drawn).convert("RGB").quantize(128, dither=Image.Dither.NONE)
        small.save(FOLDER / name, optimize=True)
        print(f"written: docs/figures/{name}")


if __name__ == "__main__":
    main()
