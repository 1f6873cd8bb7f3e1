"""Learning rates against torch's own schedulers, and the paper's numbers."""

from __future__ import annotations

import pytest
import torch
from torch.optim import lr_scheduler

from dsonas_hw.train.schedule import Schedule, cosine, cosine_restarts, linear, step_decay


def torch_rates(make_scheduler, lr: float, steps: int) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)
    scheduler = make_scheduler(optimizer)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


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


def test_step_is_torchs():
    expected = torch_rates(lambda o: lr_scheduler.MultiStepLR(o, milestones=[5, 12], gamma=0.1), 0.1, 20)
    actual = [step_decay(t, milestones=(5, 12), factor=0.1, lr=0.1) for t in range(20)]
    assert actual == pytest.approx(expected)


CIFAR = Schedule(kind="restarts", lr=0.05, min_lr=0.001, epochs=630)


@pytest.mark.parametrize("start", [0, 10, 30, 70, 150, 310])  # 10 · (1 + 2 + 4 + …)
def test_the_papers_cifar_schedule_restarts(start: int):
    assert CIFAR.at(start) == pytest.approx(0.05)
    if start:
        assert CIFAR.at(start - 1e-6) == pytest.approx(0.001, abs=1e-6)


def test_the_papers_cifar_schedule_ends_at_the_bottom_of_a_wave():
    assert CIFAR.at(630 - 1e-6) == pytest.approx(0.001, abs=1e-6)  # 10+20+40+80+160+320 = 630
    assert CIFAR.at(20) == pytest.approx((0.05 + 0.001) / 2)  # half of the wave from 10 to 30


@pytest.mark.parametrize("epochs", [7.0, 30.0, 100.0])
@pytest.mark.parametrize(
    "schedule",
    [CIFAR, Schedule(kind="step", lr=1, epochs=90, warmup_epochs=3, milestones=(30, 60))],
    ids=["restarts", "step"],
)
def test_scaling_keeps_the_curve(schedule: Schedule, epochs: float):
    scaled = schedule.scaled_to(epochs)
    for part in (0.0, 0.013, 0.2, 0.51, 0.75, 0.999):
        assert scaled.at(part * epochs) == pytest.approx(schedule.at(part * schedule.epochs))


def test_warm_up_rises_to_the_rate_and_the_rest_follows():
    schedule = Schedule(kind="linear", lr=0.5, epochs=240, warmup_epochs=5)
    assert [schedule.at(t) for t in (0, 1, 2.5, 5)] == pytest.approx([0, 0.1, 0.25, 0.5])
    assert schedule.at(5 + 235 / 2) == pytest.approx(0.25)
    assert schedule.at(240) == schedule.at(300) == 0


def test_constant():
    schedule = Schedule(kind="constant", lr=0.1, epochs=20)
    assert {schedule.at(t / 7) for t in range(200)} == {0.1}


def test_never_above_the_rate_nor_below_the_least():
    for kind in ("cosine", "restarts", "linear"):
        schedule = Schedule(kind=kind, lr=0.3, min_lr=0.02, epochs=40)
        rates = [schedule.at(t / 3) for t in range(120)]
        assert min(rates) >= 0.02
        assert max(rates) <= 0.3


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "exponential"},
        {"min_lr": 0.2},
        {"min_lr": -0.1},
        {"warmup_epochs": 10},
        {"epochs": 0},
        {"first_period": 0},
        {"period_factor": 0},
    ],
)
def test_senseless_settings_are_refused(fields: dict[str, object]):
    good: dict[str, object] = {"kind": "cosine", "lr": 0.1, "epochs": 10}
    with pytest.raises(ValueError, match=r"unknown schedule|need "):
        Schedule(**(good | fields))  # type: ignore[arg-type]
