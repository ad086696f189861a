"""The model card of a detector: description, use, figures, and how it was trained."""

import json
import platform
import re
import shlex
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCardData

from fsaf.checkpoints.any_format import is_remote
from fsaf.checkpoints.format import Checkpoint
from fsaf.checkpoints.hub import PREFIX, without_places
from fsaf.config import Config, to_dict
from fsaf.errors import UserError
from fsaf.keys import flatten
from fsaf.recipe import find_recipe, recipe_names, to_yaml
from fsaf.run_folder.read import finite, read_metrics
from fsaf.scoring.metrics import METRICS
from fsaf.text import markdown, parse_json, printable, printable_lines, short

PAPER = "https://arxiv.org/abs/1903.00621"
PLACES = ("init", "resume", "out", "device", "data.root", "data.workers", "log.every")
"""Keys that do not affect the trained weights."""
TOLERANCE = 1e-3
"""Two evaluations of the same weights on the same images may differ by this much in AP."""


def read_figures(run: Path, checkpoint: Checkpoint, file: Path | None) -> dict[str, Any]:
    """Return the evaluation to show in a card: ``file``, or ``evaluation.json`` of the run folder.

    Raises UserError if there is none, or if the evaluation of the run is of other weights than
    ``checkpoint``, such as those of the last epoch instead of the best.
    """
    path = file or run / "evaluation.json"
    try:
        figures = parse_json(path.read_text(encoding="utf-8"))
        score = finite(figures["AP"])
    except FileNotFoundError as error:
        raise UserError(
            f"{path}: no figures for the card; `fsaf evaluate CHECKPOINT` writes them, or name them with "
            "--evaluation FILE"
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not an evaluation of fsaf ({short(error)})") from error
    if not isinstance(figures, dict) or not isinstance(figures.get("per_class", {}), dict):
        raise UserError(f"{path}: not an evaluation of fsaf")
    step = checkpoint.step
    _, evaluations = read_metrics(run / "metrics.jsonl", [])
    own = [
        value
        for entry in evaluations
        if entry.get("step") == step and (value := finite(entry["AP"])) is not None
    ]
    if file is None and own and (score is None or abs(score - own[-1]) > TOLERANCE):
        raise UserError(
            f"{path}: is of other weights (AP {short(figures['AP'])}) than the checkpoint, whose run had AP "
            f"{own[-1]} after its step; run `fsaf evaluate CHECKPOINT`, or give others with --evaluation FILE"
        )
    return figures


def write_card(
    checkpoint: Checkpoint,
    figures: Mapping[str, Any],
    *,
    name: str,
    folder: str,
    dataset: str | None = None,
    repository: str | None = None,
    license: str | None = None,
) -> str:
    """Return the text of ``README.md``, with the hub's metadata on top.

    figures: content of ``evaluation.json``. name: of the detector. folder: name of the folder that holds the
    card. dataset: name of the data, by default that of its folder. repository: ``USER/NAME`` on the hub.
    license: of the weights, as the hub abbreviates it.
    """
    config = checkpoint.config
    dataset = dataset or (Path(config.data.root).resolve().name if config.data.root else "the training data")
    data = ModelCardData(
        library_name="fsaf",
        pipeline_tag="object-detection",
        tags=["object-detection", "anchor-free", "fsaf", "pytorch"],
        license=license,
        model_name=printable(name),
        eval_results=[
            EvalResult(
                task_type="object-detection",
                dataset_type=printable(dataset),
                dataset_name=printable(dataset),
                metric_type=key,
                metric_name=key,
                metric_value=round(value, 4),
            )
            for key in ("AP", "AP50", "AP75")
            if (value := finite(figures.get(key))) is not None
        ],
    )
    names = ", ".join(markdown(each) for each in checkpoint.classes.names)
    rows = {
        name: row if isinstance(row, dict) else {"AP": row}
        for name, row in figures.get("per_class", {}).items()
    }
    parts = [
        f"# {markdown(name)}",
        f"An object detector: [FSAF]({PAPER}) (Feature Selective Anchor-Free) with the backbone "
        f"`{config.model.backbone}`, made with the Python package fsaf. It finds "
        f"{len(checkpoint.classes.names)} classes: {names}.",
        "## Use",
        _usage(f"{PREFIX}{repository}" if repository else folder, published=bool(repository)),
        "## Figures",
        f"COCO's metrics on {_count(figures.get('images'), 'the')} images of {markdown(dataset)}.",
        _table(("", "", "meaning"), [(k, _figure(figures.get(k)), text) for k, text in METRICS.items()]),
        _table(
            ("class", "AP", "AP50", "boxes"),
            [
                (
                    markdown(key),
                    _figure(row.get("AP")),
                    _figure(row.get("AP50")),
                    _count(row.get("boxes"), "-"),
                )
                for key, row in rows.items()
            ],
        ),
        "## Training",
        _training(checkpoint, config),
        "## Limits",
        _limits(config, dataset),
        "## Licence",
        f"The weights: {markdown(license)}." if license else "No licence has been stated for these weights.",
    ]
    return f"---\n{data.to_yaml().strip()}\n---\n\n" + "\n\n".join(parts) + "\n"


def _usage(detector: str, *, published: bool) -> str:
    detector = printable(detector).replace("`", "?")
    word = shlex.quote(detector)
    note = "downloaded once" if published else "this folder; hf:USER/NAME once it is on the hub"
    return f"""```python
import fsaf

detector = fsaf.load({detector!r})  # {note}
result = detector.predict("photo.jpg", score_threshold=0.3)
for box, score, name in zip(result.boxes, result.scores, result.names):
    print(name, score, box)  # pixels of the photo: x1, y1, x2, y2
```

On the command line: `fsaf predict {word} photo.jpg`, `fsaf export {word} --out model.onnx`.
The network alone, a PyTorch module: `detector.model`."""


def _training(checkpoint: Checkpoint, config: Config) -> str:
    lines = ["The checkpoint does not say how it was trained."]
    if checkpoint.step is not None:
        start = f" It started from the weights of {markdown(_public(config.init))}." if config.init else ""
        lines = [f"These are the weights after step {checkpoint.step} of this command.{start}"]
        lines.append(_fenced("sh", printable(as_command(config))))
    packages = ", ".join(
        f"{package} {version(package)}" for package in ("fsaf", "torch", "torchvision", "timm")
    )
    lines.append(f"This card was written with {packages}, Python {platform.python_version()}.")
    text = _fenced("yaml", to_yaml(to_dict(without_places(config))).rstrip("\n"))
    lines.append(f"<details><summary>Every setting</summary>\n\n{text}\n\n</details>")
    return "\n\n".join(lines)


def _limits(config: Config, dataset: str) -> str:
    data, lowest = config.data, config.predict.score_threshold
    return (
        f"- The figures are of {markdown(dataset)} alone. On other pictures, cameras or places expect "
        "others; `fsaf evaluate` measures them.\n"
        f"- Pictures are resized to {data.short_side} x {data.long_side} pixels at most; objects that are "
        "then a few pixels high are missed.\n"
        "- It knows no class but those above. What it does not know it takes for one of them, or misses.\n"
        f"- Scores are not probabilities. The figures count detections from {lowest:g} on; which to show is "
        "yours to choose."
    )


def as_command(config: Config) -> str:
    """Return the ``fsaf train`` command of ``config``: the nearest shipped recipe, and keys that differ."""
    wanted = flatten(to_dict(without_places(config)))
    defaults, differing = flatten(to_dict(Config())), {}
    for name in recipe_names():
        known = defaults | flatten(yaml.safe_load(find_recipe(name).read_text(encoding="utf-8")))
        differing[name] = {k: v for k, v in wanted.items() if k not in PLACES and v != known[k]}
        if "model.backbone" in differing[name]:  # a recipe's mean and deviation apply to its own alone
            differing[name] |= {key: wanted[key] for key in ("model.mean", "model.std")}
    recipe = min(differing, key=lambda name: len(differing[name]))
    words = ["fsaf", "train", recipe, "--data.root", "DATA"]
    if config.init:
        words += ["--init", _public(config.init)]
    for key, value in differing[recipe].items():
        words += [f"--{key}", value if isinstance(value, str) else json.dumps(value)]
    return shlex.join(words)


def _public(init: str) -> str:
    """Return a repository of the hub as it is, and only the last part of a path on this machine."""
    return init if is_remote(Path(init)) else Path(init).name


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _fenced(language: str, text: str) -> str:
    """Return a code block, with a fence that nothing in ``text`` can end."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{printable_lines(text)}\n{fence}"


def _count(value: Any, otherwise: str) -> str:
    return otherwise if (number := finite(value)) is None else f"{number:.0f}"


def _figure(value: Any) -> str:
    number = finite(value)
    return "-" if number is None or number < 0 else f"{number:.3f}"
