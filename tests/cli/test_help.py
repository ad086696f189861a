"""Help, version, and messages for mistakes in a command."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import fsaf
from cli.commands import refused
from fsaf.cli import main
from fsaf.cli.main import make_parser
from fsaf.cli.parser import EXAMPLES
from fsaf.cli.verbs import VERBS
from fsaf.config import Config, to_dict
from settings import flat


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([verb, "--help"])
    assert end.value.code == 0
    assert f"usage: fsaf {verb}" in capsys.readouterr().out


def test_help_lists_the_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    out = capsys.readouterr().out
    assert all(f"\n  {verb}  " in out for verb in VERBS)


def test_help_of_train_lists_every_key(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    out = capsys.readouterr().out

    names = [f"--{key} " for key in flat(to_dict(Config()))]
    assert len(names) > 50
    assert [name for name in names if name not in out] == []


def test_help_of_train_shows_sections_and_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    out = " ".join(capsys.readouterr().out.split())
    assert "recipe, optim: Optimizer and learning rate" in out
    assert "--optim.lr N Learning rate, for a total batch of base_batch images if scale_lr (0.01)" in out
    assert "--train.precision fp32|bf16|fp16" in out and "--data.shuffle true|false" in out


@pytest.mark.parametrize("verb", VERBS)
def test_examples_of_every_verb_parse(verb: str) -> None:
    assert VERBS[verb].examples
    for example in VERBS[verb].examples:
        words = shlex.split(example.split(" > ")[0].removeprefix('eval "$(').removesuffix(')"'))
        args, unknown = make_parser().parse_known_args(words[1:])
        assert (words[0], args.verb, unknown) == ("fsaf", verb, [])


def test_examples_of_fsaf_itself_name_verbs() -> None:
    assert {example.split()[1] for example in EXAMPLES} <= {*VERBS, "VERB"}


def test_a_short_option_is_the_same_as_its_key() -> None:
    for verb in VERBS.values():
        for key, short in verb.short.items():
            words = {"predict": ["predict", "a", "b"], "check": ["check", "a"]}[verb.name]
            by_short, by_key = (
                make_parser().parse_args([*words, name, "640"]) for name in (short, f"--{key}")
            )
            assert by_short.overrides == by_key.overrides
            assert by_key.overrides[-1] == f"--{key}={'[640]' if key == 'predict.classes' else 640}"


def test_a_list_needs_no_brackets() -> None:
    for given, value in (("cat,dog", "[cat,dog]"), ("[cat, dog]", "[cat, dog]"), ("null", "null")):
        args = make_parser().parse_args(["predict", "a", "b", "--classes", given])
        assert args.overrides == [f"--predict.classes={value}"]


def test_help_lists_each_option_once(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["predict", "--help"])
    out = capsys.readouterr().out
    assert out.count("  --tile N") == 1 and "--predict.tile " not in out
    assert "Keep detections with a higher score than this (0.3)" in " ".join(out.split())
    assert "(0.5)" not in out and "as in CHECKPOINT" in out  # the default of nms_iou is the checkpoint's


def test_version_in_a_process_of_its_own() -> None:
    done = subprocess.run([sys.executable, "-m", "fsaf", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"fsaf {fsaf.__version__}\n", "")


@pytest.mark.parametrize("argv", [["fly"], ["predict"], ["--colour"]])
def test_a_command_that_cannot_be_parsed(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(argv)
    assert end.value.code == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and "usage: fsaf" in err


@pytest.mark.parametrize(
    ("argv", "near"),
    [
        (["trian", "lite0"], "train"),
        (["completion", "bsh"], "bash"),
        (["predict", "a.pt", "a.png", "--format", "jsn"], "json"),
        (["train", "bccd_lit0"], "bccd_lite0"),
        (["train", "bccd_lit0.yaml"], "bccd_lite0"),
        (["train", "lite0", "--data.batchsize", "4"], "--data.batch_size"),
        (["train", "lite0", "--lr=4"], "--optim.lr"),
        (["train", "lite0", "--train.precision", "bf61"], "bf16"),
        (["train", "lite0", "--resume", "ture"], "true"),
        (["train", "lite0", "--dryrun"], "--dry-run"),
        (["evaluate", "a.pt", "--score_threshold", "1"], "--predict.score_threshold"),
        (["predict", "a.pt", "a.png", "--show-level"], "--show-levels"),
        (["benchmark", "--data.bach_size", "4"], "--data.batch_size"),
        (["info", "--jsn"], "--json"),
        (["check", "DATA", "--shape", "4"], "--shapes"),
    ],
)
def test_a_mistake_names_what_is_near(
    argv: list[str], near: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        assert main(argv) == 2
    except SystemExit as end:
        assert end.code == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and f"did you mean '{near}'?" in err


@pytest.mark.parametrize("verb", VERBS)
def test_no_option_is_passed_over(verb: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = {
        "predict": ["a", "b"],
        "convert": ["a", "b"],
        "completion": ["bash"],
        "quickstart": [],
        "info": [],
    }
    refused(capsys, [verb, *words.get(verb, ["a"]), "--nonsense=3"], "--nonsense")
    refused(capsys, [verb, *words.get(verb, ["a"]), "-x"], "-x")
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["evaluate", "a.pt", "--show-levels"], "belongs to fsaf predict"),
        (["evaluate", "a.pt", "--data.flip", "1"], "belongs to fsaf train"),
        (["predict", "a.pt", "a.png", "--data.batch_size", "2"], "--data.batch_size"),
        (["benchmark", "lite0", "--resume", "true"], "belongs to fsaf train"),
        (["convert", "a.pt", "b.pt", "--data.root", "x"], "--data.root"),
        (["info", "more"], "unexpected argument 'more'"),
    ],
)
def test_an_option_of_another_verb(
    argv: list[str], told: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused(capsys, argv, told)


def test_overrides_may_stand_before_what_they_override(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused(capsys, ["train", "--train.epochs", "2", "nothing"], "nothing: no such recipe file")
    refused(
        capsys, ["benchmark", "--data.batch_size", "0"], "data.batch_size = 0: must be between 1 and 4096"
    )


def test_names_too_long_for_any_file_system(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = 300 * "a"
    for argv in (
        ["evaluate", f"{name}.pt"],
        ["export", f"{name}.pt"],
        ["report", name],
        ["check", name],
        ["train", name],
        ["train", "bccd_lite0", "--data.root", name],
    ):
        refused(capsys, argv, name)
    assert list(here.iterdir()) == []
