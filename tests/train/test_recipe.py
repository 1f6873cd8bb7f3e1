"""The recipe's numbers become the paper's schedules."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dsonas_hw.config import RetrainConfig, build_config, load_preset
from dsonas_hw.errors import UserError
from dsonas_hw.train.recipe import LearningRate, build_optimizer, fit_first_period, with_epochs


def recipe_of(preset: str) -> RetrainConfig:
    return build_config(load_preset(preset)).retrain


def test_cifar_restarts_where_the_paper_does() -> None:
    rate = LearningRate(recipe_of("cifar10"))
    starts = [0, 10, 30, 70, 150, 310]  # 10·(2⁰ + 2¹ + …)
    assert [rate.at(epoch) for epoch in starts] == [0.05] * 6
    assert rate.at(630 - 1e-6) == pytest.approx(0.001, abs=1e-6)
    assert rate.at(5) == pytest.approx((0.05 + 0.001) / 2)


def test_imagenet_falls_in_a_line_from_the_first_step() -> None:
    rate = LearningRate(recipe_of("imagenet"))
    assert [rate.at(epoch) for epoch in (0, 60, 120, 240)] == pytest.approx([0.5, 0.375, 0.25, 0.0])


def test_with_the_releases_warm_up_imagenet_rises_then_falls_in_a_line_to_zero() -> None:
    rate = LearningRate(recipe_of("imagenet-steered"))
    assert rate.at(0) == pytest.approx(0.1)
    assert rate.at(2.5) == pytest.approx(0.3)  # (0.1 + 0.5) / 2
    assert rate.at(5) == pytest.approx(0.5)
    assert rate.at(5 + 235 / 2) == pytest.approx(0.25)
    assert rate.at(240) == 0.0


@pytest.mark.parametrize(
    ("epochs", "waves"),
    [(630, [10, 20, 40, 80, 160, 320]), (25, [25 / 3, 50 / 3]), (5, [5]), (10, [10]), (80, [80 / 7])],
)
def test_a_wave_ends_with_the_training(epochs: float, waves: list[float]) -> None:
    assert fit_first_period(epochs, 10, 2) == pytest.approx(waves[0])


def test_other_epochs_scale_the_warm_up() -> None:
    recipe = with_epochs(recipe_of("imagenet-steered"), 24)
    assert (recipe.epochs, recipe.warmup_epochs) == (24, 0.5)
    assert with_epochs(recipe, 24) is recipe


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"warmup_epochs": 3, "epochs": 3}, "warmup_epochs"), ({"lr": 0.01, "min_lr": 0.1}, "min_lr")],
)
def test_schedules_that_make_no_sense_are_refused(changes: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        LearningRate(RetrainConfig(**{"schedule": "cosine", **changes}))


@pytest.mark.parametrize("schedule", ["constant", "step"])
def test_schedules_without_a_lower_end_ignore_it(schedule: str) -> None:
    rate = LearningRate(RetrainConfig(schedule=schedule, lr=1e-4, min_lr=1e-3, epochs=100))
    assert rate.at(99) == pytest.approx(1e-4 if schedule == "constant" else 1e-6)


def test_weight_decay_is_on_every_parameter() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    optimizer = build_optimizer(network, RetrainConfig())
    (group,) = optimizer.param_groups
    assert len(group["params"]) == 4
    assert group["weight_decay"] == 3e-4
    assert group["nesterov"]
    assert not build_optimizer(network, RetrainConfig(momentum=0.0)).param_groups[0]["nesterov"]
    assert isinstance(optimizer, torch.optim.SGD)
