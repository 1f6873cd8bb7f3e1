"""A quantile of timings that were taken in rounds, and the interval it is known to lie in.

    rounds   n lists of samples; those of one follow each other and resemble each other, rounds are apart in
             time: so a round is what counts as independent
    F_r(x)   share of round r's samples that are at most x;   F(x) its mean over the rounds
    se(x)    standard deviation of F_r(x) over the rounds / √n, at least that at the quantile itself, and at
             least √(q(1−q)/N) for N samples
    t        99.5 % point of Student's t with n − 1 degrees of freedom

    the interval: from just below the first to just above the last x with |F(x) − q| < t·se(x); from the
    smallest to the largest sample at most; without a bound where N is too small, t·√(q(1−q)/N) > q or 1 − q

That is Woodruff's interval of a quantile (1952, JASA 47:635) with the rounds as clusters: a test of "the
quantile is x", turned around. Nothing is assumed of how samples are distributed, and p50 and p99 are alike.
It is an interval of 99 %: the medians of two measurements differ by no more in about 19 cases of 20 (1.96·√2
= 2.8 standard deviations, against 2.6), and a limit that lies just below one is not held by the next.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

Statistic = Literal["p50", "p95", "p99"]
STATISTICS: tuple[Statistic, ...] = get_args(Statistic)
SHARES: dict[Statistic, float] = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
"""Share of the samples that lie at or below each."""

REPEATABILITY = 0.01
"""Relative. No machine is believed to repeat a percentile more closely than that."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A value and the interval that it lies in, in the value's unit."""

    value: float
    low: float
    high: float
    """Infinite: there are too few samples for a bound."""

    @classmethod
    def exact(cls, value: float) -> Estimate:
        """A value without an interval, e.g. one that was counted."""
        return cls(value=value, low=value, high=value)

    @property
    def relative_width(self) -> float:
        """How far above the value the interval reaches, as a fraction of the value."""
        return self.high / self.value - 1

    def holding(self, value: float) -> Estimate:
        """The same value with an interval that holds another value, too."""
        return Estimate(value=self.value, low=min(self.low, value), high=max(self.high, value))

    def widened(self, relative: float) -> Estimate:
        """The same value with an interval that reaches at least this fraction of it to both sides."""
        return Estimate(
            value=self.value,
            low=min(self.low, self.value * (1 - relative)),
            high=max(self.high, self.value * (1 + relative)),
        )


def estimate_quantile(rounds: Sequence[Sequence[float]], share: float) -> Estimate:
    """The quantile of all samples, and its 99 % interval over the rounds (see the module's text).

    rounds: each the samples of one round, none empty. One round alone bounds nothing.
    share: of the samples that lie at or below the quantile, above 0 and below 1.
    """
    samples = np.sort(np.concatenate([np.asarray(samples, dtype=float) for samples in rounds]))
    value = float(np.quantile(samples, share))
    if len(rounds) < 2:
        return Estimate(value=value, low=0.0, high=math.inf)
    below = np.array([_shares_below(np.asarray(of_round, dtype=float), samples) for of_round in rounds])
    floor = math.sqrt(share * (1 - share) / len(samples))
    error = np.maximum(below.std(axis=0, ddof=1) / math.sqrt(len(rounds)), floor)
    at_value = error[np.searchsorted(samples, value)]
    t = student_t(len(rounds) - 1)
    reach = t * np.maximum(error, at_value)
    mean = below.mean(axis=0)
    first = int(np.argmax(mean + reach > share))  # the largest sample is always among these
    last = int(np.flatnonzero(mean - reach < share).max(initial=-1))
    low, high = float(samples[max(first - 1, 0)]), float(samples[min(last + 1, len(samples) - 1)])
    if t * floor > share:
        low = 0.0
    if t * floor > 1 - share:
        high = math.inf
    return Estimate(value=value, low=min(low, value), high=max(high, value))


def _shares_below(samples: npt.NDArray[np.float64], at: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Share of the samples that are at most each value of `at`."""
    shares: npt.NDArray[np.float64] = np.searchsorted(np.sort(samples), at, side="right") / len(samples)
    return shares


def student_t(degrees: int) -> float:
    """The 99.5 % point of Student's t distribution (Abramowitz and Stegun 26.7.5; within 1 % from 5 on)."""
    z = 2.575829
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return math.fsum(term / float(degrees) ** power for power, term in enumerate(terms))
