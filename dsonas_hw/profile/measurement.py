"""Timing one thing rightly.

    warm-up → window → window → window → …   until the last three windows agree, or time is up
              └ samples: synchronize, clock, run, synchronize, clock

On a shared machine the mean and the median move by half while the low end stays within 1 %: `latency_ms`
is a low quantile, and the raw samples are kept for anyone who wants another.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

LOW_QUANTILE = 0.05
"""Which quantile of the samples is called the latency."""
NOISY_VARIATION = 0.025
"""Coefficient of variation above which clocks should be locked (as in trtexec)."""


@dataclass(frozen=True, kw_only=True)
class LatencyMeasurement:
    """Timings of one network, in the order they were taken."""

    samples_ms: tuple[float, ...]
    settled: bool
    """Whether the last windows agreed before the time was up."""
    remarks: tuple[str, ...] = ()
    """What else makes the numbers doubtful: throttling, dropped clocks."""

    @property
    def latency_ms(self) -> float:
        """A low quantile of the samples: what the device needs when nothing disturbs it."""
        return quantile(self.samples_ms, LOW_QUANTILE)

    @property
    def minimum_ms(self) -> float:
        return min(self.samples_ms)

    @property
    def median_ms(self) -> float:
        return quantile(self.samples_ms, 0.5)

    @property
    def mean_ms(self) -> float:
        return sum(self.samples_ms) / len(self.samples_ms)

    @property
    def coefficient_of_variation(self) -> float:
        """Standard deviation over mean."""
        mean = self.mean_ms
        variance = sum((sample - mean) ** 2 for sample in self.samples_ms) / len(self.samples_ms)
        return math.sqrt(variance) / mean

    @property
    def warnings(self) -> tuple[str, ...]:
        """Everything that a reader of the number should know; empty when it is clean."""
        found = list(self.remarks)
        if not self.settled:
            found.append("the timing had not settled when its time was up")
        if self.coefficient_of_variation > NOISY_VARIATION:
            found.append(
                f"noisy: the samples vary by {self.coefficient_of_variation:.0%} "
                f"(median {self.median_ms:.3g} ms); lock the clocks or leave the machine alone"
            )
        return tuple(found)


def measure_latency(
    run: Callable[[], object],
    synchronize: Callable[[], None],
    *,
    num_warmup: int = 10,
    window: int = 20,
    agreement: float = 0.02,
    min_windows: int = 3,
    max_windows: int = 50,
    max_seconds: float = 5.0,
    clock_s: Callable[[], float] = time.perf_counter,
) -> LatencyMeasurement:
    """Time `run`, waiting for the device before and after every sample.

    window: samples of one window; windows agree when the low quantiles of the last three lie within
    `agreement` of each other. Garbage collection is off meanwhile.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        for _ in range(num_warmup):
            run()
        synchronize()
        samples_ms: list[float] = []
        lows_ms: list[float] = []
        deadline_s = clock_s() + max_seconds
        settled = False
        while len(lows_ms) < max_windows and not settled:
            start = len(samples_ms)
            for _ in range(window):
                synchronize()
                begin_s = clock_s()
                run()
                synchronize()
                end_s = clock_s()
                samples_ms.append(1e3 * (end_s - begin_s))
                if end_s > deadline_s and len(samples_ms) - start >= 3:
                    break
            lows_ms.append(quantile(samples_ms[start:], LOW_QUANTILE))
            last = lows_ms[-3:]
            settled = len(lows_ms) >= min_windows and _agree(last, agreement)
            if clock_s() > deadline_s:
                break
    finally:
        if was_enabled:
            gc.enable()
    return LatencyMeasurement(samples_ms=tuple(samples_ms), settled=settled)


def measure_together(
    runs: Sequence[Callable[[], object]],
    synchronize: Callable[[], None],
    *,
    num_rounds: int = 6,
    num_warmup: int = 3,
    min_samples: int = 5,
    max_samples: int = 40,
    round_seconds: float = 0.03,
    clock_s: Callable[[], float] = time.perf_counter,
) -> list[LatencyMeasurement]:
    """Time several networks in turns, so that a slow minute of the machine hits all of them alike.

    Every round times every network for about `round_seconds`. A shared machine changes its speed by 5 to
    10 % from second to second; the best of 4 rounds repeats to 1.7 %, of 6 rounds to 0.9 % (24 networks of
    0.1 to 5 ms), where one block of samples of the same number repeats to 5 %. A result is settled when its
    two best rounds agree within 3 %.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    samples_ms: list[list[float]] = [[] for _ in runs]
    lows_ms: list[list[float]] = [[] for _ in runs]
    try:
        for _ in range(num_rounds):
            for index, run in enumerate(runs):
                for _ in range(num_warmup):
                    run()
                synchronize()
                taken: list[float] = []
                end_s = start_s = clock_s()
                while len(taken) < min_samples or (
                    end_s - start_s < round_seconds and len(taken) < max_samples
                ):
                    begin_s = clock_s()
                    run()
                    synchronize()
                    end_s = clock_s()
                    taken.append(1e3 * (end_s - begin_s))
                samples_ms[index].extend(taken)
                lows_ms[index].append(quantile(taken, LOW_QUANTILE))
    finally:
        if was_enabled:
            gc.enable()
    return [
        LatencyMeasurement(samples_ms=tuple(samples), settled=_agree(sorted(lows)[:2], 0.03))
        for samples, lows in zip(samples_ms, lows_ms, strict=True)
    ]


def _agree(values: Sequence[float], tolerance: float) -> bool:
    return max(values) <= min(values) * (1 + tolerance)


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which this share of the values lies, interpolated between neighbours."""
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    position = share * (len(ordered) - 1)
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (position - below) * (ordered[above] - ordered[below])
