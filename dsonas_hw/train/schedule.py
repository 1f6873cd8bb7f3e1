"""Learning rates as pure functions of the time in epochs (a fraction inside an epoch counts).

    epoch = step / steps_per_epoch;   lr = LearningRate(recipe).at(epoch)

Nothing is carried from step to step, so resuming needs no state. The paper's: constant 0.1 in search; cosine
with warm restarts 0.05 → 0.001, periods 10, 20, 40, … epochs (CIFAR); linear 0.5 → 0 (ImageNet).
"""

from __future__ import annotations

from math import cos, log, pi

from dsonas_hw.config import RetrainConfig
from dsonas_hw.errors import UserError


def cosine(epoch: float, *, epochs: float, lr: float, min_lr: float) -> float:
    """Return half a cosine wave from lr at 0 to min_lr at `epochs`, and min_lr after that."""
    progress = min(epoch / epochs, 1.0)
    return min_lr + (lr - min_lr) * (1 + cos(pi * progress)) / 2


def cosine_restarts(
    epoch: float, *, first_period: float, period_factor: int, lr: float, min_lr: float
) -> float:
    """Return a cosine wave from lr to min_lr that starts again after each period (SGDR, Loshchilov 2017).

    Periods last first_period, first_period · period_factor, … epochs.
    """
    start, period = 0.0, first_period
    while epoch >= start + period:
        start += period
        period *= period_factor
    return cosine(epoch - start, epochs=period, lr=lr, min_lr=min_lr)


def linear(epoch: float, *, epochs: float, lr: float, min_lr: float) -> float:
    """Return a straight line from lr at 0 to min_lr at `epochs`, and min_lr after that."""
    return lr + (min_lr - lr) * min(epoch / epochs, 1.0)


def fit_first_period(epochs: float, first_period: float, factor: int) -> float:
    """Return the first period of a restart schedule, changed a little so that a wave ends at `epochs`.

    The paper's 630 epochs are 10 + 20 + … + 320, and stay so; 25 epochs become 8.3 + 16.7.
    """
    totals: list[float] = []
    period, total = first_period, 0.0
    while not totals or totals[-1] < epochs:
        total += period
        totals.append(total)
        period *= factor
    nearest = min(totals, key=lambda total: abs(log(total / epochs)))
    return first_period * epochs / nearest


class LearningRate:
    """The learning rate of a recipe: a straight line from warmup_lr to lr, then the recipe's schedule."""

    def __init__(self, recipe: RetrainConfig) -> None:
        """Check that the recipe's numbers make a schedule.

        Raises:
            UserError: the warm-up is as long as the training, or min_lr is above lr.
        """
        self.recipe = recipe
        self.epochs = recipe.epochs - recipe.warmup_epochs
        if self.epochs <= 0:
            raise UserError(
                f"retrain.warmup_epochs={recipe.warmup_epochs:g} leaves nothing of "
                f"retrain.epochs={recipe.epochs}; give a shorter warm-up or more epochs"
            )
        if recipe.min_lr > recipe.lr:
            raise UserError(f"retrain.min_lr={recipe.min_lr:g} is above retrain.lr={recipe.lr:g}; lower it")
        self.first_period = fit_first_period(self.epochs, recipe.restart_epochs, recipe.restart_factor)

    def at(self, epoch: float) -> float:
        """Return the learning rate after `epoch` epochs."""
        recipe = self.recipe
        if epoch < recipe.warmup_epochs:
            return recipe.warmup_lr + (recipe.lr - recipe.warmup_lr) * epoch / recipe.warmup_epochs
        epoch -= recipe.warmup_epochs
        match recipe.schedule:
            case "cosine":
                return cosine(epoch, epochs=self.epochs, lr=recipe.lr, min_lr=recipe.min_lr)
            case "linear":
                return linear(epoch, epochs=self.epochs, lr=recipe.lr, min_lr=recipe.min_lr)
            case "cosine-restarts":
                return cosine_restarts(
                    epoch, first_period=self.first_period, period_factor=recipe.restart_factor,
                    lr=recipe.lr, min_lr=recipe.min_lr,
                )  # fmt: skip
