"""Measurement decides: whatever the predictions are worth, what comes out was measured to hold."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from math import inf

import pytest

from dsonas_hw.architecture.architecture import Architecture, complete_architecture
from dsonas_hw.budget import Budget, parse_budgets
from dsonas_hw.config import DeviceConfig
from dsonas_hw.deploy.fit_measured import MeasuredFit, Trial, fit_until_measured, measure_architecture
from dsonas_hw.errors import BudgetError
from dsonas_hw.measure.statistics import Estimate
from dsonas_hw.space.space import SearchSpace

LATENCY = parse_budgets(["latency=10ms"])
COMPLETE = complete_architecture(SearchSpace(levels=1, stages=(1,), channels=4, input_shape=(1, 8, 8)))


def predicted_ms(width: int) -> float:
    return width**2 / 100.0


def fit_to(limit: float, *, step: int, widest: int = 4000) -> Callable[[float], Architecture]:
    """The widest network whose predicted latency holds limit × scale."""

    def fit(scale: float) -> Architecture:
        widths = [w for w in range(step, widest + 1, step) if predicted_ms(w) <= limit * scale]
        if not widths:
            raise BudgetError("no width is narrow enough")
        return COMPLETE.with_width(widths[-1])

    return fit


class Device:
    """Takes `error` × the predicted latency; the interval reaches `half` of that to both sides."""

    def __init__(self, error: Callable[[int], float], half: float = 0.01) -> None:
        self.error = error
        self.half = half
        self.measured_widths: list[int] = []

    def __call__(self, architecture: Architecture) -> Mapping[str, Estimate | None]:
        self.measured_widths.append(architecture.width)
        taken_ms = self.error(architecture.width) * predicted_ms(architecture.width)
        return {"latency_ms": Estimate.exact(taken_ms).widened(self.half)}


def run(error: float, step: int = 1, *, half: float = 0.01, **options: int) -> tuple[MeasuredFit, Device]:
    device = Device(lambda width: error, half)
    return fit_until_measured(fit_to(10.0, step=step, **options), LATENCY, device), device


@pytest.mark.parametrize("error", [0.2, 0.5, 0.9, 0.97, 1.0, 1.03, 1.3, 2.0, 8.0, 100.0])
def test_the_budget_is_held_and_used(error: float) -> None:
    fitted, device = run(error)
    assert fitted.trial is not None
    latency = fitted.trial.measured["latency_ms"]
    assert latency is not None
    assert latency.value == error * predicted_ms(fitted.architecture.width)
    assert fitted.trial.need == pytest.approx(1.015 * fitted.trial.ratio)  # (1 + 1.5 · 1 %) × value / limit
    assert fitted.trial.need <= 1
    wider = 1.015 * error * predicted_ms(fitted.architecture.width + 2) / 10.0  # or the next would not hold
    assert fitted.trial.need >= 0.95 or wider > 1
    assert len(fitted.trials) == len(device.measured_widths) <= 8


@pytest.mark.parametrize("half", [0.005, 0.02, 0.08])
@pytest.mark.parametrize("median_of_quiet", [1.0, 1.07, 1.5])
def test_it_aims_below_the_limit_by_what_the_machine_adds(median_of_quiet: float, half: float) -> None:
    """Predictions (of quiet values) are exact: what is fitted takes limit × quiet / median × (1 − margin)."""
    fitted, _ = run(median_of_quiet, half=half)
    assert fitted.trial is not None
    aim_ms, width = 10.0 / median_of_quiet / (1 + 1.5 * half), fitted.architecture.width
    assert predicted_ms(width) <= aim_ms
    assert predicted_ms(width) >= 0.95 * aim_ms or predicted_ms(width + 1) > aim_ms
    assert fitted.trial.bound <= (1 + half) / (1 + 1.5 * half)


@pytest.mark.parametrize("error", [0.3, 0.97, 1.2, 3.0, 1e6])
def test_no_network_is_measured_twice(error: float) -> None:
    device = Device(lambda width: error)
    with contextlib.suppress(BudgetError):
        fit_until_measured(fit_to(10.0, step=8), LATENCY, device)
    assert len(device.measured_widths) == len(set(device.measured_widths))


def test_what_was_refused_is_neither_measured_nor_taken() -> None:
    device = Device(lambda width: 0.97)
    refused = [COMPLETE.with_width(width) for width in (31, 30)]
    fitted = fit_until_measured(fit_to(10.0, step=1), LATENCY, device, refused=refused)
    assert fitted.architecture.width < 30
    assert not {30, 31} & set(device.measured_widths)


def test_when_all_were_refused_that_is_said() -> None:
    only = COMPLETE.with_width(4)
    with pytest.raises(BudgetError, match="has been measured and does not hold it"):
        fit_until_measured(lambda scale: only, LATENCY, Device(lambda width: 1.0), refused=[only])


def test_a_percentile_without_a_bound_is_refused() -> None:
    def measure(architecture: Architecture) -> Mapping[str, Estimate | None]:
        return {"latency_ms": Estimate(value=1.0, low=0.9, high=inf)}

    with pytest.raises(BudgetError, match=r"take a lower one, e\.g\. --statistic p50"):
        fit_until_measured(fit_to(10.0, step=1), LATENCY, measure)


@pytest.mark.parametrize("error", [0.5, 0.97, 1.03, 1.3, 2.0])
@pytest.mark.parametrize("step", [4, 8, 16])
def test_coarse_widths_end_at_the_widest_that_holds(error: float, step: int) -> None:
    holding = [w for w in range(step, 400, step) if 1.015 * error * predicted_ms(w) <= 10]
    if not holding:
        with pytest.raises(BudgetError, match=r"when it is measured: .*latency .*s \(up to .*s\) of 10ms"):
            run(error, step)
        return
    fitted, _ = run(error, step)
    used = 1.015 * error * predicted_ms(fitted.architecture.width) / 10
    assert fitted.architecture.width == holding[-1] or used >= 0.95


def test_an_exact_prediction_is_measured_once() -> None:
    _, device = run(0.98)  # 0.98 · 31² / 100 · 1.015 = 9.56 ms
    assert len(device.measured_widths) == 1


def test_another_limit_that_binds_ends_the_search_at_once() -> None:
    fitted, device = run(0.1, widest=20)  # e.g. a mac budget
    assert fitted.architecture.width == 20
    assert device.measured_widths == [20]


def test_what_is_to_spare_gives_way_before_the_limit() -> None:
    device = Device(lambda width: {20: 0.985, 40: 3.0}[width] * 10 / predicted_ms(width))  # 0.985 · 1.01 < 1

    def fit(scale: float) -> Architecture:
        if scale < 0.5:
            raise BudgetError("no")
        return COMPLETE.with_width(20 if scale < 1.0 else 40)

    assert fit_until_measured(fit, LATENCY, device).architecture.width == 20


def test_networks_that_never_hold_are_reported_with_the_nearest() -> None:
    with pytest.raises(BudgetError, match=r"the nearest of \d takes latency .*s \(up to .*s\) of 10ms"):
        run(1e6)


def test_a_budget_that_nothing_fits_says_so_itself() -> None:
    with pytest.raises(BudgetError, match="no width is narrow enough"):
        fit_until_measured(fit_to(0.0, step=1), LATENCY, Device(lambda width: 1.0))


def test_a_wider_network_that_is_faster_wins() -> None:
    # Measured on a CPU: 48 channels take 0.69 of the limit where 44 take 0.86 (blocks of 16 channels).
    taken = {44: 0.86, 48: 0.69, 52: 1.1}

    def fit(scale: float) -> Architecture:
        return COMPLETE.with_width(44 if scale <= 1.0 else 48 if scale < 1.3 else 52)

    device = Device(lambda width: taken[width] * 10 / predicted_ms(width))
    fitted = fit_until_measured(fit, LATENCY, device)
    assert fitted.architecture.width == 48
    assert [trial.architecture.width for trial in fitted.trials] == [44, 48, 52]


def test_every_trial_is_told() -> None:
    told: list[Trial] = []
    device = Device(lambda width: 1.5)
    fitted = fit_until_measured(fit_to(10.0, step=1), LATENCY, device, on_trial=told.append)
    assert tuple(told) == fitted.trials
    assert told[0].ratio > 1 > told[-1].ratio


def test_counted_budgets_need_no_measurement() -> None:
    device = Device(lambda width: 1.0)
    fitted = fit_until_measured(fit_to(10.0, step=1), parse_budgets(["mac=1M"]), device)
    assert fitted.trial is None
    assert device.measured_widths == []


def test_an_absent_target_leaves_the_prediction(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dsonas_hw.deploy.measure.find_target", lambda target: None)  # one may be here
    target = DeviceConfig(device="h100")
    measure = measure_architecture(target)
    fitted = fit_until_measured(fit_to(10.0, step=1), LATENCY, measure)
    assert fitted.trial is None
    assert fitted.architecture.width == 31  # 31² / 100 ≤ 10


def test_an_unmeasured_budget_does_not_stop_the_others() -> None:
    budgets = (*LATENCY, Budget(name="energy", limit=1.0))
    fitted = fit_until_measured(fit_to(10.0, step=1), budgets, Device(lambda width: 2.0))
    assert fitted.trial is not None


def test_a_real_network_is_measured_here() -> None:
    measured = measure_architecture(DeviceConfig())(COMPLETE)
    latency = measured["latency_ms"]
    assert latency is not None
    assert 0 < latency.low < latency.value < latency.high
    assert measured["energy_mj"] is None
