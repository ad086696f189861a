"""Keys of the sections ``optim``, ``train`` and ``log``: how training runs."""

from dataclasses import dataclass
from typing import Literal

from fsaf.config.fields import AutoInt, check, key, read_auto


@dataclass(kw_only=True)
class OptimConfig:
    """Optimizer and learning rate."""

    name: Literal["sgd", "adamw"] = key("sgd", "Optimizer.")
    lr: float = key(0.01, "Learning rate, for a total batch of `base_batch` images if `scale_lr`.")
    backbone_rate: float = key(1.0, "Learning rate of the backbone relative to the rest of the network.")
    momentum: float = key(0.9, "Momentum of SGD.")
    weight_decay: float = key(1e-4, "Weight decay.")
    clip_norm: float = key(10.0, "Clip the gradient to this norm; 0 turns clipping off.")
    schedule: Literal["step", "one_cycle", "constant"] = key(
        "step",
        "`step` multiplies the rate by `decay` after each of `milestones`; `one_cycle` follows a cosine "
        "from the peak to zero.",
    )
    milestones: list[int] = key([8, 11], "Epochs after which the step schedule decays.")
    decay: float = key(0.1, "Factor of the step schedule.")
    warmup_steps: AutoInt = key(
        500,
        "Steps of linear warm-up. Shortened in runs that it would fill. With `auto` 50, and at most a sixth "
        "of all steps.",
    )
    warmup_factor: float = key(0.001, "Learning rate at the start of warm-up relative to the full rate.")
    scale_lr: bool = key(False, "Scale the learning rate by total batch size / `base_batch`.")
    base_batch: int = key(16, "Total batch size that `lr` is meant for.")

    def __post_init__(self) -> None:
        self.warmup_steps = read_auto(self.warmup_steps, 50)
        check(self.lr > 0, "optim.lr", self.lr, "above 0")
        check(
            self.backbone_rate > 0,
            "optim.backbone_rate",
            self.backbone_rate,
            "above 0; freeze with model.frozen_stages",
        )
        check(0 <= self.momentum < 1, "optim.momentum", self.momentum, "in [0, 1)")
        check(self.weight_decay >= 0, "optim.weight_decay", self.weight_decay, "0 or more")
        check(self.clip_norm >= 0, "optim.clip_norm", self.clip_norm, "0 or more")
        epochs = self.milestones
        check(all(epoch >= 1 for epoch in epochs), "optim.milestones", epochs, "epochs from 1")
        check(self.decay > 0, "optim.decay", self.decay, "above 0")
        check(self.warmup_steps >= 0, "optim.warmup_steps", self.warmup_steps, "0 or more")
        factor = self.warmup_factor
        check(0 <= factor <= 1, "optim.warmup_factor", factor, "between 0 and 1")
        check(self.base_batch >= 1, "optim.base_batch", self.base_batch, "at least 1")


@dataclass(kw_only=True)
class TrainConfig:
    """Length, precision, evaluation."""

    epochs: AutoInt = key(
        12, "Passes over the training images. With `auto` 12, or more until there are 300 steps."
    )
    max_steps: int | None = key(None, "Stop after this many steps, if that is earlier.")
    precision: Literal["fp32", "bf16", "fp16", "auto"] = key(
        "fp32",
        "Precision of the network. Weights, geometry and losses stay float32. With `auto` bf16 where the "
        "device computes in it (CPUs with `avx512_bf16` or `amx_bf16`, most accelerators), else fp32.",
    )
    loss_scale: Literal["dynamic"] | float = key(
        "dynamic", "For fp16 only: `dynamic`, or a fixed loss scale (the original used 32)."
    )
    compile: bool = key(False, "Compile network and objective (torch.compile), once for each batch shape.")
    compile_backend: str = key(
        "inductor", "Back end of torch.compile: `inductor`, or another installed one, such as `npugraphs`."
    )
    graphs: bool = key(
        False, "Capture the whole step as one graph for each batch shape (CUDA, NPU; one process only)."
    )
    exact_fp32: bool = key(
        False, "Keep convolutions from rounding float32 to TF32 (CUDA) or HF32 (NPU), for reference runs."
    )
    ema: float = key(
        0.0, "Decay of the moving average of weights, which is evaluated and saved as best; 0 turns it off."
    )
    accumulate: int = key(
        1, "Accumulate gradients over this many batches per step, equal to one batch of all their images."
    )
    save_every: int = key(1000, "Save `last.pt` every this many steps; 0 saves by time only.")
    save_minutes: float = key(
        10.0,
        "Save `last.pt` at least this often, in minutes. The end of an epoch saves it after one minute, the "
        "end of training always.",
    )
    keep: int = key(
        2, "Number of checkpoints to keep: `last.pt`, then `last-1.pt`, the one before, and so on."
    )
    evaluate_every: AutoInt = key(
        1,
        "Epochs between evaluations. The last epoch is always evaluated. 0 for never. With `auto` 3, or a "
        "quarter of the epochs if these are `auto`.",
    )
    patience: int = key(
        0, "End training after this many evaluations in a row without a higher AP; 0 never ends it early."
    )
    hours: float | None = key(
        None,
        "End training after this many hours, evaluated and saved as at its normal end. Time before a resumed "
        "run was interrupted counts too.",
    )
    keep_every: int = key(
        0, "Keep the network of every so many epochs as `checkpoints/epoch-0010.pt` and so on; 0 keeps none."
    )
    seed: int = key(0, "Random seed of initial weights, order and augmentation.")

    def __post_init__(self) -> None:
        self.epochs, self.evaluate_every = read_auto(self.epochs, 12), read_auto(self.evaluate_every, 3)
        check(self.epochs >= 1, "train.epochs", self.epochs, "at least 1")
        check(self.max_steps is None or self.max_steps >= 1, "train.max_steps", self.max_steps, "at least 1")
        ok = self.loss_scale == "dynamic" or float(self.loss_scale) > 0
        check(ok, "train.loss_scale", self.loss_scale, "`dynamic` or a number above 0")
        for name in ("accumulate", "keep"):
            check(getattr(self, name) >= 1, f"train.{name}", getattr(self, name), "at least 1")
        check(self.save_every >= 0, "train.save_every", self.save_every, "0 or more")
        check(self.save_minutes > 0, "train.save_minutes", self.save_minutes, "above 0")
        check(0 <= self.ema < 1, "train.ema", self.ema, "in [0, 1)")
        for name in ("evaluate_every", "patience", "keep_every"):
            check(getattr(self, name) >= 0, f"train.{name}", getattr(self, name), "0 or more")
        check(self.hours is None or self.hours > 0, "train.hours", self.hours, "above 0")
        check(0 <= self.seed < 2**63, "train.seed", self.seed, "0 or more, and below 2**63")


@dataclass(kw_only=True)
class LogConfig:
    """Logging."""

    every: int = key(50, "Steps between log lines.")
    to: list[Literal["tensorboard", "wandb", "mlflow", "trackio", "csv"]] = key(
        ["tensorboard"],
        "Where the log goes, besides `metrics.jsonl` and the console. `wandb`, `mlflow` and `trackio` need "
        "an extra of that name.",
    )

    def __post_init__(self) -> None:
        check(len(self.to) == len(set(self.to)), "log.to", self.to, "names, each once")
        check(self.every >= 1, "log.every", self.every, "at least 1")
