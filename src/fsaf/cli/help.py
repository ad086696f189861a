"""How the command line explains itself: verbs by what they are for, examples, options of a recipe's keys."""

import argparse
import re
import textwrap
from collections.abc import Sequence
from typing import Any, NoReturn

from fsaf.errors import nearest
from fsaf.keys import Key, section_titles

GROUPS = {
    "data": ("check",),
    "training": ("train", "report", "quickstart"),
    "using a detector": ("evaluate", "predict", "demo", "export", "publish"),
    "tools": ("convert", "benchmark", "info", "completion"),
}
"""Verbs by what they are for, in the order of ``fsaf --help``; those of no group come last."""

EXAMPLES = {
    "": (
        "fsaf quickstart",
        "fsaf train lite0 --data.root DATA --out runs/mine",
        "fsaf predict runs/mine/checkpoints/best.pt photos/",
        "fsaf VERB --help",
    ),
    "check": ("fsaf check DATA", "fsaf check DATA --shapes 4", "fsaf check DATA --fix DATA_CLEAN"),
    "train": (
        "fsaf train lite0 --data.root DATA --out runs/mine",
        "fsaf train lite0 --data.root DATA --out runs/mine --dry-run",
        "fsaf train mine.yaml --train.precision bf16 --devices 4 --resume auto",
        "fsaf train lite0 --data.root DATA --init runs/other/checkpoints/best.pt",
    ),
    "quickstart": ("fsaf quickstart", "fsaf quickstart --out runs/again --train.epochs 2"),
    "evaluate": (
        "fsaf evaluate runs/mine/checkpoints/best.pt",
        "fsaf evaluate model.onnx --data.root DATA --out scores",
    ),
    "report": ("fsaf report runs/mine", "fsaf report runs/mine runs/other --out both.html"),
    "predict": (
        "fsaf predict runs/mine/checkpoints/best.pt photos/ --out predictions",
        "fsaf predict runs/mine/checkpoints/best.pt photo.jpg --format json",
        "fsaf predict runs/mine/checkpoints/best.pt clip.mp4 --save-crops",
        "fsaf predict runs/mine/checkpoints/best.pt scan.png --tile 640 --predict.flip true",
    ),
    "demo": ("fsaf demo runs/mine/checkpoints/best.pt",),
    "export": (
        "fsaf export runs/mine/checkpoints/best.pt",
        "fsaf export runs/mine/checkpoints/best.pt --size 384 512 --batch 0",
        "fsaf export runs/mine/checkpoints/best.pt --for ascend --out fsaf.onnx",
    ),
    "publish": (
        "fsaf publish runs/mine/checkpoints/best.pt --license apache-2.0",
        "fsaf publish runs/mine/checkpoints/best.pt --upload USER/NAME --private",
    ),
    "convert": (
        "fsaf convert fsaf_r50_fpn_1x_coco.pth fsaf_r50.pt",
        "fsaf convert runs/mine/checkpoints/best.pt mine.safetensors",
    ),
    "benchmark": ("fsaf benchmark lite0", "fsaf benchmark lite0 --data.batch_size 16 --train.precision bf16"),
    "info": ("fsaf info", "fsaf info --json"),
    "completion": (
        'eval "$(fsaf completion bash)"',
        "fsaf completion fish > ~/.config/fish/completions/fsaf.fish",
    ),
}
"""Commands to start from, of each verb and, under the empty name, of ``fsaf`` itself."""

SHELLS = ("bash", "zsh", "fish", "tcsh", "powershell")
"""Those that ``fsaf completion`` knows."""

_INVALID = re.compile(r"invalid choice: '?(.*?)'? \(choose from (.*)\)$", re.DOTALL)


class Parser(argparse.ArgumentParser):
    """Says what was wrong and what is near it in one line; options are not shortened."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("allow_abbrev", False)
        super().__init__(formatter_class=_Formatter, **options)

    def error(self, message: str) -> NoReturn:
        """One line on stderr, exit status 2."""
        match = _INVALID.search(message)
        near = nearest(match[1], re.findall(r"[\w.-]+", match[2])) if match else ""
        self.exit(2, f"{self.prog}: {message}{near} (usage: {self.short_usage()}; --help explains)\n")

    def short_usage(self) -> str:
        """What has to be given, without the options one by one."""
        words = []
        for action in self._actions:
            if action.option_strings:
                continue
            name = str(action.metavar or action.dest)
            many = {"?": f"[{name}]", "*": f"[{name} ...]", "+": f"{name} [{name} ...]"}
            words.append(many.get(str(action.nargs), name))
        return " ".join([self.prog, *words, "[options]"])

    def format_help(self) -> str:
        """Verbs in groups where there are verbs, then options, then the epilog."""
        self.usage = self.short_usage()
        verbs = verbs_of(self)
        if verbs is None:
            return super().format_help()
        texts = {action.dest: action.help or "" for action in verbs._choices_actions}
        wide = max(map(len, texts))
        lines = [f"usage: {self.prog} VERB [options]", "", self.description or ""]
        grouped = {name for names in GROUPS.values() for name in names}
        groups = GROUPS | {"others": tuple(name for name in texts if name not in grouped)}
        for title, names in groups.items():
            shown = [name for name in names if name in texts]
            if shown:
                lines += ["", f"{title}:", *(f"  {name:<{wide}}  {texts[name]}" for name in shown)]
        lines += ["", "options:", f"  {'--help':<{wide}}  show this help; of a verb: fsaf VERB --help"]
        lines += [f"  {'--version':<{wide}}  show the version"]
        return "\n".join([*lines, "", epilog(""), ""])


def verbs_of(parser: argparse.ArgumentParser) -> Any:
    """The action that holds the parsers of verbs in ``choices``, by name; None where there are no verbs."""
    return next((a for a in parser._actions if isinstance(a, argparse._SubParsersAction)), None)


def options_of(parser: argparse.ArgumentParser) -> dict[str, list[str]]:
    """The options of each verb, by its name."""
    return {
        name: [option for action in child._actions for option in action.option_strings]
        for name, child in verbs_of(parser).choices.items()
    }


class _Formatter(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=32)


class Override(argparse.Action):
    """Collects ``--key.sub value`` in ``overrides``, in order; the recipe's schema checks the values."""

    def __call__(
        self, parser: Any, namespace: argparse.Namespace, value: Any, option_string: str | None = None
    ) -> None:
        namespace.overrides = [*namespace.overrides, f"{option_string}={value}"]


def add_keys(parser: argparse.ArgumentParser, keys: Sequence[Key]) -> None:
    """An option for each key, in groups by section of the recipe."""
    parser.set_defaults(overrides=[])
    titles = section_titles()
    groups: dict[str, Any] = {}
    for key in keys:
        if key.section not in groups:
            title = f"recipe, {key.section}" if key.section else "recipe"
            groups[key.section] = parser.add_argument_group(title, titles.get(key.section))
        default = "" if key.default is None else f" ({_shown(key.default)})"
        groups[key.section].add_argument(
            f"--{key.name}",
            action=Override,
            dest="overrides",
            default=argparse.SUPPRESS,
            metavar=key.metavar,
            help=(key.text.replace("`", "").rstrip(".") + default).replace("%", "%%"),
        )


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def epilog(verb: str, note: str = "") -> str:
    """What stands below a verb's options: a note, and examples."""
    lines = textwrap.wrap(note, 78)
    if verb in EXAMPLES:
        lines += ["", "examples:", *(f"  {example}" for example in EXAMPLES[verb])]
    return "\n".join(lines).strip("\n")
