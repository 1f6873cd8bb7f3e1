"""Learning rates against torch's own schedulers, and the paper's numbers."""

from __future__ import annotations

import pytest
import torch
from torch.optim import lr_scheduler

from dsonas_hw.config import RetrainConfig, build_config, load_preset
from dsonas_hw.errors import UserError
from dsonas_hw.train.schedule import LearningRate, cosine, cosine_restarts, fit_first_period, linear


def torch_rates(make_scheduler, lr: float, steps: int) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)
    scheduler = make_scheduler(optimizer)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def rate_of(preset: str) -> LearningRate:
    return LearningRate(build_config(load_preset(preset)).retrain)


def test_cosine_is_torchs():
    expected = torch_rates(lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=30, eta_min=0.01), 0.5, 31)
    assert [cosine(t, epochs=30, lr=0.5, min_lr=0.01) for t in range(31)] == pytest.approx(expected)


def test_cosine_restarts_is_torchs():
    expected = torch_rates(
        lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, T_0=10, T_mult=2, eta_min=0.001), 0.05, 160
    )
    actual = [cosine_restarts(t, first_period=10, period_factor=2, lr=0.05, min_lr=0.001) for t in range(160)]
    assert actual == pytest.approx(expected)


def test_linear_is_torchs():
    expected = torch_rates(
        lambda o: lr_scheduler.LinearLR(o, start_factor=1.0, end_factor=0.1, total_iters=20), 0.5, 25
    )
    assert [linear(t, epochs=20, lr=0.5, min_lr=0.05) for t in range(25)] == pytest.approx(expected)


@pytest.mark.parametrize("start", [0, 10, 30, 70, 150, 310])  # 10 · (1 + 2 + 4 + …)
def test_cifar_restarts_where_the_paper_does(start: int) -> None:
    rate = rate_of("cifar10")
    assert rate.at(start) == pytest.approx(0.05)
    if start:
        assert rate.at(start - 1e-6) == pytest.approx(0.001, abs=1e-6)


def test_cifar_ends_at_the_bottom_of_a_wave() -> None:
    rate = rate_of("cifar10")
    assert rate.at(630 - 1e-6) == pytest.approx(0.001, abs=1e-6)  # 10+20+40+80+160+320 = 630
    assert rate.at(20) == pytest.approx((0.05 + 0.001) / 2)  # half of the wave from 10 to 30


def test_imagenet_falls_in_a_line_from_the_first_step() -> None:
    rate = rate_of("imagenet")
    assert [rate.at(epoch) for epoch in (0, 60, 120, 240)] == pytest.approx([0.5, 0.375, 0.25, 0.0])


def test_with_the_releases_warm_up_imagenet_rises_then_falls_in_a_line_to_zero() -> None:
    rate = rate_of("imagenet-steered")
    assert rate.at(0) == pytest.approx(0.1)
    assert rate.at(2.5) == pytest.approx(0.3)  # (0.1 + 0.5) / 2
    assert rate.at(5) == pytest.approx(0.5)
    assert rate.at(5 + 235 / 2) == pytest.approx(0.25)
    assert rate.at(240) == 0.0


@pytest.mark.parametrize("schedule", ["cosine", "cosine-restarts", "linear"])
def test_never_above_the_rate_nor_below_the_least(schedule: str) -> None:
    rate = LearningRate(RetrainConfig(schedule=schedule, lr=0.3, min_lr=0.02, epochs=40))
    rates = [rate.at(t / 3) for t in range(120)]
    assert min(rates) >= 0.02
    assert max(rates) <= 0.3


@pytest.mark.parametrize(
    ("epochs", "waves"),
    [(630, [10, 20, 40, 80, 160, 320]), (25, [25 / 3, 50 / 3]), (5, [5]), (10, [10]), (80, [80 / 7])],
)
def test_a_wave_ends_with_the_training(epochs: float, waves: list[float]) -> None:
    assert fit_first_period(epochs, 10, 2) == pytest.approx(waves[0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"warmup_epochs": 3, "epochs": 3}, "warmup_epochs"), ({"lr": 0.01, "min_lr": 0.1}, "min_lr")],
)
def test_schedules_that_make_no_sense_are_refused(changes: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        LearningRate(RetrainConfig(**{"schedule": "cosine", **changes}))
