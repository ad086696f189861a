"""Start a run: choose its folder, resume it if asked, or initialise its weights."""

from dataclasses import replace
from pathlib import Path

import torch

from fsaf.checkpoints.any_format import read_checkpoint
from fsaf.checkpoints.format import checkpoints_at, load_newest
from fsaf.config import Config
from fsaf.data.records import Classes
from fsaf.device import place, use_exact_fp32
from fsaf.errors import RecipeError, UserError
from fsaf.files import check_folder
from fsaf.model.convolution import use_winograd
from fsaf.model.detector import FSAF
from fsaf.model.weights import load_backbone_weights
from fsaf.processes import group
from fsaf.training.optim import MovingAverage, make_optimizer
from fsaf.training.precision import Precision
from fsaf.training.run import Run
from fsaf.training.transfer import plan_transfer


def start_run(config: Config, classes: Classes, device: torch.device) -> Run:
    """Build the network with its initial or resumed weights, optimizer, moving average and precision.

    Raises UserError if the run folder holds another run or weights are not available; nothing is written.
    """
    config = settle_resume(config)
    out = group.from_main(lambda: _run_folder(config))
    if config.train.accumulate > 1 and len(config.model.branches) > 1:
        raise RecipeError(
            f"train.accumulate = {config.train.accumulate}: works with one branch only, since the losses of "
            "two branches have different divisors; give one of model.branches, or a larger data.batch_size"
        )
    if config.train.exact_fp32:
        use_exact_fp32(device)
    torch.manual_seed(config.train.seed)
    model = FSAF(config.model, len(classes))
    notes = [] if config.resume else _initial_weights(model, classes, config)
    model = place(model, device)
    use_winograd(model, config.winograd)
    run = Run(
        config=replace(config, model=model.settings),
        classes=classes,
        out=out,
        model=model,
        optimizer=make_optimizer(model, config.optim, tensor_rate=config.train.graphs),
        average=MovingAverage(model, config.train.ema) if config.train.ema else None,
        precision=Precision(config.train, device),
        notes=notes,
    )
    torch.manual_seed(config.train.seed + group.rank())  # dropout differs between processes
    if config.resume:
        run.resume()
    return run


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


def settle_resume(config: Config) -> Config:
    """Return ``config`` with ``resume`` true or false.

    ``auto`` resumes if there is a ``last.pt``. Processes that a launcher has restarted resume only from a
    checkpoint that this launch wrote; otherwise a failed start would silently continue an older run.
    """
    restarted = max(group.gather_all(group.restarts())) > 0
    if config.out is None or config.resume is True or not (config.resume == "auto" or restarted):
        return config
    last_pt = Path(config.out) / "checkpoints" / "last.pt"

    def goes_on() -> bool:
        if not checkpoints_at(last_pt):
            return False
        return config.resume == "auto" or load_newest(last_pt)[0].launch == group.launch_id()

    return replace(config, resume=group.from_main(goes_on))


def _run_folder(config: Config) -> Path:
    if config.out is None:
        raise UserError("out is not set; give the run folder with --out FOLDER")
    out = Path(config.out)
    if checkpoints_at(out / "checkpoints" / "last.pt") and not config.resume:
        raise UserError(f"{out}: holds a run already; go on with --resume true, or give another --out FOLDER")
    check_folder(out)
    return out
