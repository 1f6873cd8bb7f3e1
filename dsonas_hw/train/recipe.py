"""From `RetrainConfig` to what a training loop uses: learning rate, optimizer, augmentation."""

from __future__ import annotations

from dataclasses import replace
from math import log
from typing import Literal

import torch
from torch import nn

from dsonas_hw.config import RetrainConfig
from dsonas_hw.errors import UserError
from dsonas_hw.train.augment import Augmentation
from dsonas_hw.train.data import Dataset
from dsonas_hw.train.schedule import Schedule

_KINDS: dict[str, Literal["constant", "cosine", "restarts", "linear", "step"]] = {
    "cosine": "cosine",
    "cosine-restarts": "restarts",
    "linear": "linear",
    "step": "step",
    "constant": "constant",
}


class LearningRate:
    """The learning rate at a time in epochs: a straight line from warmup_lr to lr, then the schedule.

    Raises:
        UserError: a warm-up as long as the training, or min_lr above lr.
    """

    def __init__(self, recipe: RetrainConfig) -> None:
        self.recipe = recipe
        epochs = recipe.epochs - recipe.warmup_epochs
        if epochs <= 0:
            raise UserError(
                f"retrain.warmup_epochs={recipe.warmup_epochs:g} leaves nothing of "
                f"retrain.epochs={recipe.epochs}; give a shorter warm-up or more epochs"
            )
        min_lr = 0.0 if recipe.schedule in ("constant", "step") else recipe.min_lr
        if min_lr > recipe.lr:
            raise UserError(f"retrain.min_lr={recipe.min_lr:g} is above retrain.lr={recipe.lr:g}; lower it")
        self.schedule = Schedule(
            kind=_KINDS[recipe.schedule],
            lr=recipe.lr,
            min_lr=min_lr,
            epochs=epochs,
            first_period=fit_first_period(epochs, recipe.restart_epochs, recipe.restart_factor),
            period_factor=recipe.restart_factor,
            milestones=(epochs / 2, 3 * epochs / 4),
        )

    def at(self, epoch: float) -> float:
        recipe = self.recipe
        if epoch < recipe.warmup_epochs:
            return recipe.warmup_lr + (recipe.lr - recipe.warmup_lr) * epoch / recipe.warmup_epochs
        return self.schedule.at(epoch - recipe.warmup_epochs)


def fit_first_period(epochs: float, first_period: float, factor: int) -> float:
    """The first period of a restart schedule, changed as little as possible so that a wave ends at `epochs`.

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


def with_epochs(recipe: RetrainConfig, epochs: int) -> RetrainConfig:
    """The same recipe over another number of epochs; its warm-up shrinks or grows alike."""
    if epochs == recipe.epochs:
        return recipe
    warmup = recipe.warmup_epochs * epochs / recipe.epochs
    return RetrainConfig.model_validate({**recipe.model_dump(), "epochs": epochs, "warmup_epochs": warmup})


def build_optimizer(network: nn.Module, recipe: RetrainConfig) -> torch.optim.SGD:
    """SGD with Nesterov momentum (the paper's NAG); weight decay on every parameter."""
    return torch.optim.SGD(
        network.parameters(),
        lr=recipe.lr,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=recipe.momentum > 0,
    )


def build_augmentation(dataset: Dataset, recipe: RetrainConfig) -> Augmentation:
    """What suits the dataset, with the recipe's cutout."""
    return replace(dataset.augmentation, cutout=recipe.cutout)
