"""Learning rates as pure functions of the time in epochs (a fraction inside an epoch counts).

    epoch = step / steps_per_epoch;   lr = schedule.at(epoch)

Nothing is carried from step to step, so resuming needs no state. The paper's: constant 0.1 in search; cosine
with warm restarts 0.05 → 0.001, periods 10, 20, 40, … epochs (CIFAR); linear 0.5 → 0 (ImageNet).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import cos, pi
from typing import Literal

KINDS = ("constant", "cosine", "restarts", "linear", "step")


def cosine(epoch: float, *, epochs: float, lr: float, min_lr: float) -> float:
    """Half a cosine wave from lr at 0 to min_lr at `epochs`, and min_lr after that."""
    progress = min(epoch / epochs, 1.0)
    return min_lr + (lr - min_lr) * (1 + cos(pi * progress)) / 2


def cosine_restarts(
    epoch: float, *, first_period: float, period_factor: int, lr: float, min_lr: float
) -> float:
    """A cosine wave down from lr to min_lr that starts again after each period (SGDR, Loshchilov 2017).

    Periods last first_period, first_period · period_factor, … epochs.
    """
    start, period = 0.0, first_period
    while epoch >= start + period:
        start += period
        period *= period_factor
    return cosine(epoch - start, epochs=period, lr=lr, min_lr=min_lr)


def linear(epoch: float, *, epochs: float, lr: float, min_lr: float) -> float:
    """A straight line from lr at 0 to min_lr at `epochs`, and min_lr after that."""
    return lr + (min_lr - lr) * min(epoch / epochs, 1.0)


def step_decay(epoch: float, *, milestones: tuple[float, ...], factor: float, lr: float) -> float:
    """lr, multiplied by `factor` at each milestone that has been reached."""
    return lr * factor ** sum(epoch >= milestone for milestone in milestones)


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A learning rate over a run of `epochs` epochs; `at` gives its value."""

    kind: Literal["constant", "cosine", "restarts", "linear", "step"]
    lr: float
    """The highest rate."""
    epochs: float
    min_lr: float = 0.0
    """Where cosine, restarts and linear end."""
    warmup_epochs: float = 0.0
    """The rate first rises in a straight line from 0 for that long; the schedule proper takes the rest."""
    first_period: float = 10.0
    """Restarts only, in epochs."""
    period_factor: int = 2
    """Restarts only: each period is that many times the last."""
    milestones: tuple[float, ...] = ()
    """Step only, in epochs after the warm-up."""
    factor: float = 0.1
    """Step only."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"unknown schedule {self.kind!r}; known: {', '.join(KINDS)}")
        if not 0 <= self.min_lr <= self.lr:
            raise ValueError(f"need 0 <= min_lr <= lr, got min_lr {self.min_lr} and lr {self.lr}")
        if not 0 <= self.warmup_epochs < self.epochs:
            raise ValueError(f"need 0 <= warmup_epochs < epochs, got {self.warmup_epochs} and {self.epochs}")
        if self.first_period <= 0 or self.period_factor < 1:
            raise ValueError(
                f"need first_period > 0 and period_factor >= 1, got {self.first_period}, {self.period_factor}"
            )

    def at(self, epoch: float) -> float:
        """The learning rate after `epoch` epochs."""
        if epoch < self.warmup_epochs:
            return self.lr * epoch / self.warmup_epochs
        epoch -= self.warmup_epochs
        epochs = self.epochs - self.warmup_epochs
        match self.kind:
            case "constant":
                return self.lr
            case "cosine":
                return cosine(epoch, epochs=epochs, lr=self.lr, min_lr=self.min_lr)
            case "restarts":
                return cosine_restarts(
                    epoch,
                    first_period=self.first_period,
                    period_factor=self.period_factor,
                    lr=self.lr,
                    min_lr=self.min_lr,
                )
            case "linear":
                return linear(epoch, epochs=epochs, lr=self.lr, min_lr=self.min_lr)
            case "step":
                return step_decay(epoch, milestones=self.milestones, factor=self.factor, lr=self.lr)

    def scaled_to(self, epochs: float) -> Schedule:
        """The same curve over another number of epochs: warm-up, periods and milestones shrink alike.

        A restart schedule so still ends at the bottom of a wave.
        """
        scale = epochs / self.epochs
        return replace(
            self,
            epochs=epochs,
            warmup_epochs=self.warmup_epochs * scale,
            first_period=self.first_period * scale,
            milestones=tuple(milestone * scale for milestone in self.milestones),
        )
