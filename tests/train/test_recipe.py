"""The recipe's numbers become what a training loop uses."""

from __future__ import annotations

import torch
from torch import nn

from dsonas_hw.config import RetrainConfig, build_config, load_preset
from dsonas_hw.train.recipe import build_optimizer, with_epochs


def test_other_epochs_scale_the_warm_up() -> None:
    recipe = with_epochs(build_config(load_preset("imagenet-steered")).retrain, 24)
    assert (recipe.epochs, recipe.warmup_epochs) == (24, 0.5)
    assert with_epochs(recipe, 24) is recipe


def test_weight_decay_is_on_every_parameter() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    optimizer = build_optimizer(network, RetrainConfig())
    (group,) = optimizer.param_groups
    assert len(group["params"]) == 4
    assert group["weight_decay"] == 3e-4
    assert group["nesterov"]
    assert not build_optimizer(network, RetrainConfig(momentum=0.0)).param_groups[0]["nesterov"]
    assert isinstance(optimizer, torch.optim.SGD)
