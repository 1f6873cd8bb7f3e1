"""From `RetrainConfig` to what a training loop uses: epochs, optimizer, augmentation."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from dsonas_hw.config import RetrainConfig
from dsonas_hw.train.augment import Augmentation
from dsonas_hw.train.data import Dataset


def with_epochs(recipe: RetrainConfig, epochs: int) -> RetrainConfig:
    """Return the same recipe over another number of epochs; its warm-up shrinks or grows alike."""
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
    """Return what suits the dataset, with the recipe's cutout."""
    return replace(dataset.augmentation, cutout=recipe.cutout)
