"""All verbs, by what they are for, in the order of ``fsaf --help``."""

from fsaf.cli import (
    benchmark,
    check,
    completion,
    convert,
    demo,
    evaluate,
    export,
    info,
    models,
    predict,
    publish,
    quickstart,
    report,
    reproduce,
    train,
    tune,
)
from fsaf.cli.verb import Verb

GROUPS: dict[str, tuple[Verb, ...]] = {
    "data": (check.VERB,),
    "training": (train.VERB, tune.VERB, report.VERB, quickstart.VERB, reproduce.VERB),
    "using a detector": (evaluate.VERB, predict.VERB, demo.VERB, export.VERB, publish.VERB),
    "tools": (models.VERB, convert.VERB, benchmark.VERB, info.VERB, completion.VERB),
}
VERBS = {verb.name: verb for verbs in GROUPS.values() for verb in verbs}
