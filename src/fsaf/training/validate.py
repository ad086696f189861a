"""Score the network of a run during training, and keep it if none was better."""

from typing import Any

from fsaf.checking.command import check_command
from fsaf.data.records import Records
from fsaf.detection.detector import Detector
from fsaf.processes import group
from fsaf.processes.stop import StopRequest
from fsaf.scoring.evaluate import evaluate
from fsaf.scoring.metrics import Metrics
from fsaf.scoring.results import write_evaluation
from fsaf.text import counted
from fsaf.training.log import NoLog, RunLog
from fsaf.training.place import follow
from fsaf.training.run import Run
from fsaf.training.validation_loss import ValidationLoss

ZERO = 0.0005
"""An AP below this is printed as 0.000."""


def validate(
    run: Run, records: Records, epoch: int, log: RunLog | NoLog, request: StopRequest, last: bool = False
) -> Metrics:
    """Score the network of a run after ``epoch`` epochs. last: there is no further evaluation.

    If none was better it becomes ``best.pt``, with ``evaluation.json`` and ``predictions.json``. Of equal
    networks the later one is kept, also if AP is undefined because there are no boxes to evaluate on.
    """
    group.copy_from_main(run.evaluated)  # batch-norm statistics may differ between processes
    network = ValidationLoss(run.evaluated.eval(), run.config.objective)
    detector = Detector(network, run.classes, run.config)
    alone = group.processes() == 1  # several processes cannot agree on the batch to stop at

    def before_batch(done: int, total: int) -> None:
        log.evaluating(done, total)
        if alone and request.number:
            follow(run, log)
            log.sync()
            run.save()
            run.stop_if(request.number)

    metrics, predictions = evaluate(
        detector,
        records,
        run.config.data,
        before_batch=before_batch,
        stop=lambda: alone and request.number,
        after_batch=network.add,
    )
    metrics["val_loss"] = network.value()
    follow(run, log)
    record: dict[str, Any] = {"step": run.step, "epoch": epoch, **metrics}
    log.evaluation(record)
    run.to_evaluate = False
    score, before, loss = metrics["AP"], run.best, metrics["val_loss"]
    shown = "" if loss is None else f"  validation loss {loss:.4f}"
    if score is None:
        log.say(f"epoch {epoch}: AP is undefined: {records.source} has no box to evaluate on{shown}")
    else:
        log.say(f"epoch {epoch}: AP {score:.3f}  AP50 {metrics['AP50'] or 0.0:.3f}{shown}")
    if score is not None:
        run.waited = run.waited + 1 if before is not None and score <= before else 0
    if before is None or (score is not None and score >= before):
        run.best, run.best_epoch = score, epoch
        run.save_best()
        if group.is_main():
            metrics["step"], metrics["epoch"] = run.step, epoch
            write_evaluation(run.out, metrics, predictions, run.config.data, run.classes)
    if score is not None and max(score, before or 0.0) < ZERO and (last or before is not None):
        log.once("hint", _hint(run, epoch, bool(predictions)))
    return metrics


def _hint(run: Run, epoch: int, detects: bool) -> str:
    """Return advice for a training whose AP has been 0 in every evaluation so far."""
    config = run.config
    nothing = f", and nothing is detected above a score of {config.predict.score_threshold:g}"
    loss = run.losses
    fell = f" (now {loss['last']:.3g}, {loss['lowest']:.3g} at its lowest)" if loss else ""
    return (
        f"AP is still 0 after epoch {epoch}{'' if detects else nothing}. If the loss{fell} does not fall, "
        f"lower optim.lr ({config.optim.lr:g}). Check boxes and classes with: {check_command(config)}. If "
        f"all is right, train longer than {counted(run.step, 'step')}. See docs/troubleshooting.md"
    )
