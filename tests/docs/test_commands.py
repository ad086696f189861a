"""Every command in README and docs is parsed by its parser, and run if a small run is possible."""

import ast
import re
import shlex
import shutil
from collections.abc import Callable, Sequence
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import Any

import av
import pytest
import torch
from PIL import Image

import fsaf
from documents import PAGES, ROOT, Block, blocks, commands, inline
from fsaf import recipe
from fsaf.cli import main
from fsaf.cli.main import make_parser
from fsaf.cli.parser import Override
from fsaf.errors import UserError
from fsaf.recipe import build_config, load_recipe
from synthetic import write_eight

pytestmark = pytest.mark.slow

LANGUAGES = {"sh", "bash", "python", "yaml", "json", "text"}
SHELL = [block for page in PAGES for block in blocks(page) if block.language in ("sh", "bash")]

# Commands in blocks that are neither parsed nor run, by their first word, with the reason.
OTHER_PROGRAMS = {
    "export": "sets a variable of the shell",
    "hf": "another program",
    "atc": "Ascend's compiler",
    "trtexec": "TensorRT's compiler",
    "python3": "Ascend's ais_bench; a script of export --standalone, tests/exporting/test_standalone.py",
    "docker": "another program",
    "curl": "another program; tests/docs/test_server.py asks the server",
    "df": "shows free space",
    "du": "shows used space",
}

# Words of commands that are parsed but not run here.
RUN_ELSEWHERE = {
    "--dry-run": "takes seconds; tests/measuring/test_dry_run.py",
    "--init": "tests/training/test_transfer.py",
    "--track": "needs the package trackers; tests/annotation/test_tracking.py",
    "export": "takes seconds; tests/test_your_data.py and tests/exporting",
    "fsaf.om": "comes of Ascend's compiler; tests/detection/test_om.py",
    "runs/quickstart/model.onnx": "comes of the export; tests/exporting/test_onnx.py",
    "demo": "serves until it is stopped; tests/demo opens it in a browser",
    "quickstart": "tests/cli/test_quickstart.py",
    "benchmark": "tests/measuring/test_benchmark.py",
    "fsaf_r50_coco": "is downloaded; tests/checkpoints/test_published.py",
    "hf:USER/NAME": "needs the network; tests/checkpoints/test_hub.py",
}

RUN_PAGES = (
    "README.md",
    "docs/your-data.md",
    "docs/batch-shapes.md",
    "docs/quickstart.md",
    "docs/report.md",
    "docs/hub.md",
    "docs/predicting.md",
    "docs/troubleshooting.md",
)
"""Pages whose commands are run, in this order. The others need COCO, an accelerator or many machines."""

MADE = {"CHECKPOINT": "runs/mine/checkpoints/best.pt", "cat,dog": "red,green"}
"""Words of the pages, and what replaces them when the commands run."""

SMALL = {
    "train": "--model.backbone test_efficientnet --model.weights none --train.max_steps 2 --log.every 1 "
    "--data.shapes [[64,96]] --data.short_side 64 --data.long_side 96 --data.workers 0 --data.batch_size 2 "
    "--device cpu",
    "evaluate": "--data.workers 0 --device cpu",
    "predict": "--device cpu",
}
"""Options added to the commands of a verb, so that they run in a moment."""

NEEDED = {
    "train": ["lite0"],
    "tune": ["lite0"],
    "benchmark": ["lite0"],
    "evaluate": ["best.pt"],
    "export": ["best.pt"],
    "predict": ["best.pt", "photo.jpg"],
    "report": ["runs/mine"],
    "reproduce": ["fsaf_r50_fpn_1x_coco"],
    "convert": ["a.pt", "b.pth"],
    "check": ["DATA"],
    "publish": ["best.pt"],
    "completion": ["bash"],
}
"""Arguments of a verb, for inline code that shows only options."""


def fsaf_commands(block: Block) -> list[list[str]]:
    return [words for words in commands(block) if words[0] == "fsaf"]


# Parsing.


@cache
def parser() -> Any:
    return make_parser()


def verbs() -> dict[str, Any]:
    """Return the parser of each verb."""
    return next(action for action in parser()._actions if action.dest == "verb").choices


def parse_fsaf(words: list[str]) -> None:
    """Raise SystemExit or UserError if ``fsaf`` would refuse the words, whatever the files contain."""
    _parse_fsaf(tuple(words))


@cache
def _parse_fsaf(words: tuple[str, ...]) -> None:
    args, unknown = parser().parse_known_args(list(words))
    assert unknown == []
    if args.verb in ("train", "benchmark", "quickstart"):
        name = getattr(args, "config", "digits_lite0")
        overrides = args.overrides
        if name is None:
            assert resumes(words), "neither a recipe nor --resume RUN"
            overrides = [word for word in overrides if not word.startswith("--resume=")]
        load_recipe("lite0" if name in (None, "mine.yaml", "DATA") else name, overrides)
    else:
        build_config({}, args.overrides, where="a checkpoint")


def resumes(words: Sequence[str]) -> bool:
    """Return True for ``fsaf train --resume RUN``, which takes its recipe from the run folder."""
    return "--resume" in words and words[-1] not in ("--resume", "true", "false", "auto")


def parse_make(words: list[str]) -> None:
    text = (ROOT / "Makefile").read_text()
    for word in words:
        name = word.split("=")[0]
        assert re.search(rf"^{re.escape(name)}( \?=|:)", text, re.MULTILINE), f"make {word}: no such target"


def parse_pip(words: list[str]) -> None:
    """Check that our package has the extras; other packages are not checked."""
    text = (ROOT / "pyproject.toml").read_text().partition("[project.optional-dependencies]")[2]
    extras = re.findall(r"^(\w+) = \[", text.partition("\n[")[0], re.MULTILINE)
    for word in words:
        if match := re.fullmatch(r"(?:\.|fsaf)\[(.*)\]", word):
            assert set(match[1].split(",")) <= set(extras), f"{word}: no such extra"


def parse_python(words: list[str]) -> None:
    """Check a script of this repository, and that its source names the options."""
    if words[:2] == ["-m", "fsaf"]:
        return parse_fsaf(words[2:]) if words[2:] else None
    script = ROOT / words[0]
    trees = [ast.parse(script.read_text())]
    imported = {getattr(node, "module", "") for node in ast.walk(trees[0])}
    imported |= {
        name.name for node in ast.walk(trees[0]) if isinstance(node, ast.Import) for name in node.names
    }
    trees += [ast.parse(p.read_text()) for p in script.parent.glob("*.py") if p.stem in imported]
    calls = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)]
    known = {
        call.args[0].value
        for call in calls
        if getattr(call.func, "attr", "") == "add_argument" and isinstance(call.args[0], ast.Constant)
    }
    options = {word.split("=")[0] for word in words[1:] if word.startswith("-")}
    keys = {option for option in options if "." in option}
    assert keys <= set(recipe.config_parser()._option_string_actions), keys
    assert options - keys <= known, f"{script.name} has no {options - known}"


def parse_torchrun(words: list[str]) -> None:
    from torch.distributed.run import get_args_parser

    args = get_args_parser().parse_args(words)
    assert args.module and args.training_script == "fsaf"
    parse_fsaf(args.training_script_args)


def parse_eval(words: list[str]) -> None:
    assert len(words) == 1 and words[0].startswith("$(fsaf ") and words[0].endswith(")")
    parse_fsaf(shlex.split(words[0][2:-1])[1:])


def parse_srun(words: list[str]) -> None:
    PARSERS[words[0]](words[1:])


PARSERS: dict[str, Callable[[list[str]], None]] = {
    "fsaf": parse_fsaf,
    "make": parse_make,
    "pip": parse_pip,
    "python": parse_python,
    "torchrun": parse_torchrun,
    "srun": parse_srun,
    "eval": parse_eval,
}


def accepted(parse: Callable[[list[str]], None], words: list[str], place: str) -> None:
    try:
        parse(words)
    except (SystemExit, Exception) as error:
        pytest.fail(f"{place}: {shlex.join(words)}: {error}")


def test_every_block_says_its_language() -> None:
    """Without a language this file would miss commands."""
    found = [block for page in PAGES for block in blocks(page)]
    assert len(found) > 20
    assert [block.place for block in found if block.language not in LANGUAGES] == []


@pytest.mark.parametrize("block", SHELL, ids=lambda block: block.place)
def test_every_command_parses(block: Block) -> None:
    for words in commands(block):
        if words[0] not in OTHER_PROGRAMS:
            assert words[0] in PARSERS, f"{block.place}: how is {words[0]!r} to be checked?"
            accepted(PARSERS[words[0]], words[1:], block.place)


def completed(first: str, words: list[str], page: Path) -> list[str] | None:
    """Complete inline code to a whole command; return None if it is not a command to check."""
    words = ["2" if word == "N" else word for word in takewhile("|".__ne__, words) if word != "..."]
    if first == "torchrun" and "-m" not in words:
        return [*words, "-m", "fsaf", "train", "lite0"]
    if first == "python" and page.name == "coming-from-mmdetection.md":
        return None  # MMDetection's scripts
    if first == "fsaf":
        if "--help" in words or words == ["--version"]:
            words = [word for word in words if word not in ("--help", "--version", "VERB")]
            return [*words, *NEEDED.get(words[0], [])] if words else None
        verb, *rest = ("lite0" if word == "CONFIG" else word for word in words)
        if not rest or (rest[0].startswith("-") and not resumes(words)):
            rest = [*NEEDED.get(verb, []), *rest]
        last = rest[-1] if rest else ""
        action = verbs()[verb]._option_string_actions.get(last) if verb in verbs() else None
        share = isinstance(action, Override) and action.key.kind is float
        value = (
            [str([*(action.choices or []), "0.5" if share else "2"][0])]
            if action and action.nargs != 0
            else []
        )
        return [verb, *rest, *value]
    return words


def test_every_command_in_a_sentence_parses() -> None:
    checked = 0
    for page in PAGES:
        for code in inline(page):
            first, _, rest = code.partition(" ")
            words = completed(first, shlex.split(rest), page) if first in PARSERS and rest else None
            if words is not None:
                accepted(PARSERS[first], words, f"{page.relative_to(ROOT)}: `{code}`")
                checked += 1
    assert checked > 30


def test_a_wrong_command_would_be_noticed() -> None:
    for parse, words in (
        (parse_fsaf, ["train", "lite1"]),
        (parse_fsaf, ["train", "lite0", "--data.rot", "DATA"]),
        (parse_fsaf, ["train", "lite0", "--train.precision", "fp17"]),
        (parse_eval, ["$(fsaf completion bush)"]),
        (parse_fsaf, ["predict", "best.pt", "photo.jpg", "--forma", "json"]),
        (parse_fsaf, ["evaluate", "best.pt", "--optim.lr", "1"]),
        (parse_fsaf, ["fly"]),
        (parse_make, ["quick"]),
        (parse_pip, ["install", ".[everything]"]),
        (parse_python, ["benchmarks/predict.py", "--bach", "1"]),
        (parse_torchrun, ["--nods", "4", "-m", "fsaf", "train", "lite0"]),
    ):
        with pytest.raises((SystemExit, UserError, AssertionError)):
            parse(words)


def test_what_is_left_out_is_there() -> None:
    words = [words for block in SHELL for words in commands(block)]
    assert set(OTHER_PROGRAMS) <= {first for first, *_ in words}
    assert set(RUN_ELSEWHERE) <= {word for some in words for word in some}


# Running.


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with small files for the names in the pages: DATA, PATH, photos and so on."""
    folder = tmp_path_factory.mktemp("docs")
    write_eight(folder / "DATA")
    shutil.copytree(folder / "DATA" / "images" / "val", folder / "photos")
    picture = Image.open(folder / "photos" / "0501.png").convert("RGB")
    for name in ("photo.jpg", "a.jpg", "b.jpg", "scan.png"):
        picture.save(folder / name)
    with av.open(folder / "clip.mp4", "w") as clip:
        stream = clip.add_stream("libx264", rate=25, width=64, height=64, pix_fmt="yuv420p")
        clip.mux(stream.encode(av.VideoFrame.from_image(picture.resize((64, 64)))))
        clip.mux(stream.encode())
    return folder


def make_quickstart(folder: Path) -> None:
    """Copy the files of the README's commands as those of ``fsaf quickstart`` and of another training."""
    shutil.copytree(folder / "runs" / "mine", folder / "runs" / "other")
    run = folder / "runs" / "quickstart"
    shutil.copytree(folder / "runs" / "mine", run)
    (run / "digits" / "images" / "val").mkdir(parents=True)
    shutil.copy(folder / "photo.jpg", run / "digits" / "images" / "val" / "000001.jpg")


def test_the_commands_run_one_after_another(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Run the commands page by page, with options that make them small, then the page's Python blocks."""
    monkeypatch.chdir(workplace)
    torch.manual_seed(0)
    words, train = SMALL["train"].replace("--", "").split(), fsaf.train
    small = dict(zip(words[::2], words[1::2], strict=True))
    monkeypatch.setattr(fsaf, "train", lambda *args, **settings: train(*args, **settings, **small))
    ran: list[list[str]] = []
    for name in RUN_PAGES:
        names: dict[str, Any] = {"pictures": ["photo.jpg"]}  # of a page's blocks of Python
        if name == "docs/quickstart.md":
            make_quickstart(workplace)
        if name == "docs/hub.md":
            shutil.rmtree(workplace / "runs" / "mine" / "hub")  # made by the README's commands already
        for block in blocks(ROOT / name):
            if block.language == "python" and name != "docs/hub.md":  # which needs the network
                exec(compile(block.text, block.place, "exec"), names)
            for _, *words in fsaf_commands(block) if block in SHELL else []:
                if words in ran or set(words) & set(RUN_ELSEWHERE):
                    continue
                ran.append(words)
                words = [MADE.get(word, word) for word in words]
                status = main([*words, *SMALL.get(words[0], "").split()])
                assert status == 0, f"{block.place}: {shlex.join(words)}: {capsys.readouterr().err}"
    assert {words[0] for words in ran} >= {
        "check",
        "train",
        "evaluate",
        "predict",
        "info",
        "publish",
        "report",
    }
    assert (workplace / "predictions" / "0501.png").is_file()


def test_the_python_of_static_shapes(capsys: pytest.CaptureFixture[str]) -> None:
    def step(images: torch.Tensor, boxes: torch.Tensor) -> None:
        if (images * boxes).sum().item() > 10:
            raise AssertionError

    (block,) = (b for b in blocks(ROOT / "docs" / "static-shapes.md") if b.language == "python")
    exec(
        compile(block.text, block.place, "exec"),
        {"step": step, "images": torch.ones(2), "boxes": torch.ones(2)},
    )
    assert "host read: aten._local_scalar_dense.default" in capsys.readouterr().out


def test_names_in_blocks_of_python_exist() -> None:
    """Blocks that need the network are checked too, although no test runs them."""
    things = {"fsaf": fsaf, "detector": fsaf.Detector, "result": fsaf.Result, "run": fsaf.Run}
    things["network"] = fsaf.FSAF
    used = 0
    for page in PAGES:
        for block in blocks(page):
            if block.language != "python" or page.parent.name == "reference":  # signatures, from the source
                continue
            for node in ast.walk(ast.parse(block.text)):
                if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") in things:
                    thing = things[node.value.id]
                    fields = getattr(thing, "__dataclass_fields__", {})
                    assert node.attr in fields or hasattr(thing, node.attr), f"{block.place}: {node.attr}"
                    used += 1
    assert used > 8
