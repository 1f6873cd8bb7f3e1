"""A quantile over rounds: goldens, and how often its interval covers the truth."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from dsonas_hw.measure.statistics import (
    SHARES,
    STATISTICS,
    Estimate,
    Statistic,
    estimate_quantile,
    student_t,
)

Samples = npt.NDArray[np.float64]
NUM_ROUNDS, NUM_TURNS, NUM_SAMPLES = 12, 5, 30
TRIALS = 200


@pytest.mark.parametrize(("degrees", "t"), [(5, 4.032), (9, 3.250), (11, 3.106), (19, 2.861), (100, 2.626)])
def test_student_s_t_is_that_of_the_tables(degrees: int, t: float) -> None:
    assert student_t(degrees) == pytest.approx(t, rel=0.01)


def test_rounds_that_differ_are_ranked() -> None:
    # Twenty rounds, each of one value 1, …, 20. At x = k: F = k/20, se² = k(20 − k)/400 · 20/19 / 20. At the
    # median, between 10 and 11, se = √(100/400/19) = 0.1147; times t = 2.861 it is 0.328. Not rejected are F
    # from 0.5 − 0.328 to 0.5 + 0.328: k = 4, …, 16. The interval reaches from 3 to 17: that of the order
    # statistics, of coverage 1 − 2·P(Binomial(20, ½) ≤ 3) = 99.7 % (or 98.8 % from 4 to 17).
    estimate = estimate_quantile([[float(k)] * 50 for k in range(1, 21)], 0.5)
    assert (estimate.low, estimate.value, estimate.high) == (3.0, 10.5, 17.0)


def test_equal_samples_have_no_width() -> None:
    assert estimate_quantile([[2.0] * 40] * 10, 0.5) == Estimate(value=2.0, low=2.0, high=2.0)


def test_rounds_that_are_alike_are_as_good_as_their_samples() -> None:
    # Ten times the samples 1, …, 100: N = 1000, √(0.25/1000) = 0.0158, times 3.250 = 0.051: F from 0.45 to
    # 0.55 are not rejected, and the samples beside these are 44 and 56.
    estimate = estimate_quantile([[float(k) for k in range(1, 101)]] * 10, 0.5)
    assert estimate.value == 50.5
    assert (estimate.low, estimate.high) == (44.0, 56.0)


def test_one_round_bounds_nothing() -> None:
    estimate = estimate_quantile([[1.0, 2.0, 3.0]], 0.5)
    assert (estimate.low, estimate.value, estimate.high) == (0.0, 2.0, math.inf)


def test_few_samples_do_not_bound_a_high_percentile() -> None:
    # Above all of 100 samples F = 1, but √(0.0099/100) · 3.25 = 0.032 > 0.01.
    estimate = estimate_quantile([[float(k) for k in range(10)]] * 10, 0.99)
    assert estimate.high == math.inf
    assert estimate_quantile([[float(k) for k in range(120)]] * 10, 0.99).high < math.inf


def independent(rng: np.random.Generator) -> Samples:
    """Each round at a speed of its own (2 %)."""
    return np.repeat(rng.normal(0, 0.02, NUM_ROUNDS), NUM_TURNS)


def still(rng: np.random.Generator) -> Samples:
    return np.zeros(NUM_ROUNDS * NUM_TURNS)


def correlated(rng: np.random.Generator) -> Samples:
    """Turns that correlate by 0.4 with the next, as was seen on a virtual server."""
    speeds = np.empty(NUM_ROUNDS * NUM_TURNS)
    speed = rng.normal(0, 0.02)
    for turn in range(len(speeds)):
        speed = 0.4 * speed + 0.02 * np.sqrt(1 - 0.4**2) * rng.normal()
        speeds[turn] = speed
    return speeds


def bursty(rng: np.random.Generator) -> Samples:
    """Every other turn or so, and never for long, something else slows the machine by 30 %."""
    return 0.3 * (rng.random(NUM_ROUNDS * NUM_TURNS) < 0.4)


def draw_rounds(rng: np.random.Generator, speeds: Callable[[np.random.Generator], Samples]) -> Samples:
    """Samples (rounds, samples of one) with a heavy tail: of the interruptions of one run in a hundred no
    variance exists."""
    shape = (NUM_ROUNDS * NUM_TURNS, NUM_SAMPLES)
    samples = np.exp(speeds(rng))[:, None] * (1 + 0.03 * rng.exponential(1, shape))
    interrupted = rng.random(shape) < 0.01
    samples = np.where(interrupted, samples * (1 + rng.pareto(2, shape)), samples)
    return samples.reshape(NUM_ROUNDS, NUM_TURNS * NUM_SAMPLES)


@pytest.mark.parametrize("statistic", STATISTICS)
@pytest.mark.parametrize(
    ("speeds", "at_least"), [(still, 0.98), (independent, 0.97), (correlated, 0.95), (bursty, 0.95)]
)
def test_the_interval_covers_the_truth(
    speeds: Callable[[np.random.Generator], Samples], at_least: float, statistic: Statistic
) -> None:
    """Nominal are 99 %, and where turns are correlated 95 % at least."""
    rng = np.random.default_rng(0)
    truth = np.quantile(
        np.concatenate([draw_rounds(rng, speeds).ravel() for _ in range(300)]), SHARES[statistic]
    )
    covered = 0
    for _ in range(TRIALS):
        estimate = estimate_quantile(list(draw_rounds(rng, speeds)), SHARES[statistic])
        assert estimate.low <= estimate.value <= estimate.high
        covered += estimate.low <= truth <= estimate.high
    assert covered / TRIALS >= at_least


def test_samples_as_if_independent_would_cover_too_little() -> None:
    """Why rounds: with samples dealt out to them at random, the interval covers less than half the time."""
    rng = np.random.default_rng(0)
    truth = np.median(np.concatenate([draw_rounds(rng, independent).ravel() for _ in range(300)]))
    covered = 0
    for _ in range(50):
        samples = draw_rounds(rng, independent)
        shuffled = rng.permutation(samples.ravel()).reshape(samples.shape)
        estimate = estimate_quantile(list(shuffled), 0.5)
        covered += estimate.low <= truth <= estimate.high
    assert covered < 25


def test_a_wider_interval_keeps_its_value() -> None:
    estimate = Estimate(value=2.0, low=1.99, high=2.1).widened(0.01)
    assert estimate == Estimate(value=2.0, low=1.98, high=2.1)
    assert estimate.relative_width == pytest.approx(0.05)
    assert estimate.holding(1.9) == Estimate(value=2.0, low=1.9, high=2.1)
