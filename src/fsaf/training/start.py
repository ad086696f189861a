"""Start a run: choose its folder, resume it if asked, or initialise its weights."""

from dataclasses import replace
from pathlib import Path

import torch

from fsaf.checkpoints.any_format import read_checkpoint
from fsaf.checkpoints.backbone import load_backbone_weights
from fsaf.checkpoints.format import checkpoints_at
from fsaf.config import Config
from fsaf.data.records import Classes
from fsaf.device import place, use_exact_fp32
from fsaf.errors import RecipeError
from fsaf.model.convolution import use_winograd
from fsaf.model.depthwise import speed_up_depthwise
from fsaf.model.detector import FSAF
from fsaf.processes import group
from fsaf.training.optim import MovingAverage, make_optimizer
from fsaf.training.precision import Precision, fit_precision
from fsaf.training.resume import Earlier, changed_settings
from fsaf.training.run import Run
from fsaf.training.transfer import plan_transfer


def start_run(config: Config, classes: Classes, device: torch.device, earlier: Earlier | None = None) -> Run:
    """Build the network with its weights, optimizer, moving average and precision; nothing is written.

    earlier: of ``find_earlier``, to resume a run. Raises UserError if weights are not available or do not
    fit.
    """
    config, chosen = fit_precision(config, device, earlier.checkpoint.config if earlier else None)
    assert config.out is not None
    if config.train.accumulate > 1 and len(config.model.branches) > 1:
        raise RecipeError(
            f"train.accumulate = {config.train.accumulate}: works with one branch only, since the losses of "
            "two branches have different divisors; give one of model.branches, or a larger data.batch_size"
        )
    if config.train.exact_fp32:
        use_exact_fp32(device)
    torch.manual_seed(config.train.seed)
    model = FSAF(config.model, len(classes))
    notes = chosen + ([] if earlier else _initial_weights(model, classes, config))
    model = place(model, device)
    use_winograd(model, config.winograd)
    speed_up_depthwise(model)
    run = Run(
        config=replace(config, model=model.settings, resume=earlier is not None),
        classes=classes,
        out=Path(config.out),
        model=model,
        optimizer=make_optimizer(model, config.optim, tensor_rate=config.train.graphs),
        average=MovingAverage(model, config.train.ema) if config.train.ema else None,
        precision=Precision(config.train, device),
        notes=notes,
    )
    torch.manual_seed(config.train.seed + group.rank())  # dropout differs between processes
    if earlier:
        _resume(run, earlier)
    return run


def _resume(run: Run, earlier: Earlier) -> None:
    """Restore the state of ``earlier``; note which file it is from and which settings have changed."""
    run.good = earlier.path
    if earlier.path != run.last_pt:
        why = earlier.faults[0] if earlier.faults else f"{run.last_pt}: no such checkpoint"
        run.notes.append(f"warning: {why}; resuming from the checkpoint before it, {earlier.path}")
    run.load_state(earlier.checkpoint)
    run.notes += changed_settings(earlier.checkpoint.config, run.config)
    if not run.is_healthy:
        others = [path for path in checkpoints_at(run.last_pt) if path != earlier.path]
        run.good = others[0] if others else None
        before = f"; to resume from before that, from {run.good}, move {earlier.path} away" if others else ""
        run.notes.append(f"warning: {run.diverges} at this checkpoint; lower optim.lr{before}")


def _initial_weights(model: FSAF, classes: Classes, config: Config) -> list[str]:
    """Fill ``model`` from the checkpoint ``init`` as far as it fits; return lines to print about it.

    A backbone that ``init`` does not fill starts as ``model.weights`` says.
    """
    transfer = None
    if config.init is not None:
        transfer = plan_transfer(model, classes, read_checkpoint(Path(config.init)), config.init)
    if transfer is None or not transfer.backbone:
        load_backbone_weights(model.backbone, config.model.backbone, config.model.weights)
    if transfer is None or config.init is None:
        return []
    model.load_state_dict(transfer.state, strict=False)
    return transfer.lines(config.init, len(model.state_dict()))
