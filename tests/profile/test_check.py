"""What a check says about a table: errors, ranks, intervals, baselines."""

from __future__ import annotations

import random

import pytest
from scipy import stats

from dsonas_hw.cost.model import Prediction
from dsonas_hw.errors import ProfileError
from dsonas_hw.profile.check import (
    CheckedNetwork,
    fit_flops_line,
    kendall_tau,
    summarise_check,
    summarise_errors,
)
from dsonas_hw.table.rows import NetworkRow


def checked(
    measured_ms: float, predicted_ms: float, *, speed: float = 1.0, **baselines: float
) -> CheckedNetwork:
    return CheckedNetwork(
        name="network",
        flops=1000,
        measured_ms=measured_ms,
        raw_ms=measured_ms / speed,
        relative_speed=speed,
        converged=True,
        prediction=Prediction(
            value=predicted_ms, low=0.95 * predicted_ms, high=1.05 * predicted_ms, source="measured"
        ),
        baselines_ms=baselines,
    )


def timed(flops: int, latency_ms: float) -> NetworkRow:
    return NetworkRow(name=f"n{flops}", latency_ms=latency_ms, flops=flops, kernels={})


def test_errors_are_relative_to_what_was_measured() -> None:
    summary = summarise_errors([1.1, 1.8, 4.0], [1.0, 2.0, 4.0])
    assert summary.mape == pytest.approx((0.1 + 0.1 + 0.0) / 3)
    assert summary.share_within_10 == pytest.approx(2 / 3)  # 1.1 / 1.0 − 1 is a little over 0.1 in floats
    assert summary.kendall_tau == 1.0


@pytest.mark.parametrize("seed", range(20))
def test_rank_correlation_is_scipys_ties_included(seed: int) -> None:
    rng = random.Random(seed)
    first = [rng.randint(0, 6) for _ in range(12)]
    second = [value + rng.randint(0, 4) for value in first]
    assert kendall_tau(first, second) == pytest.approx(stats.kendalltau(first, second).statistic)


def test_rank_correlation_of_nothing_to_rank_is_none() -> None:
    assert kendall_tau([1.0], [1.0]) is None
    assert kendall_tau([1.0, 1.0], [1.0, 2.0]) is None


def test_the_line_in_flops_is_found_and_its_relative_errors_are_least() -> None:
    line = fit_flops_line([timed(flops, 0.5 + 2e-3 * flops) for flops in (100, 1000, 5000)])
    assert line is not None
    assert line(3000) == pytest.approx(6.5)
    assert fit_flops_line([timed(100, 1.0)]) is None
    falling = fit_flops_line([timed(100, 2.0), timed(1000, 1.0)])
    assert falling is not None
    assert falling(10**6) > 0


def test_a_check_counts_what_its_intervals_hold_and_sets_the_baselines_beside() -> None:
    networks = [
        checked(1.0, 1.02, speed=0.5, line=2.0, alone=3.0),
        checked(2.0, 2.5, speed=0.8, line=2.0, alone=3.0),
        checked(3.0, 3.03, speed=0.9, line=3.0),
    ]
    row = summarise_check("digits", networks)
    assert row.num_networks == 3
    assert row.interval_coverage == pytest.approx(2 / 3)
    assert set(row.baselines) == {"line"}, "a baseline that one network lacks would be of other networks"
    assert row.baselines["line"].mape == pytest.approx(1 / 3)
    assert row.relative_speed == 0.8
    assert row.raw_error is not None
    assert row.raw_error.mape == pytest.approx(
        (abs(1.02 / 2 - 1) + abs(2.5 / 2.5 - 1) + abs(3.03 * 0.9 / 3 - 1)) / 3
    )
    with pytest.raises(ProfileError, match="at least one network"):
        summarise_check("digits", [])
