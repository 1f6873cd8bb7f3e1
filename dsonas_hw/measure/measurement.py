"""What timings of a network say, and how networks are timed.

A *measurement* keeps its samples. Four numbers say what they are worth:

| number          | what it is                                           | what it is for        |
|-----------------|------------------------------------------------------|-----------------------|
| p50, p95, p99   | percentiles of the wall time of all samples          | budgets               |
| the quiet value | a low quantile of the samples that nothing disturbed | tables, predictions   |

`measure_rounds` (in `rounds.py`): one network, for a verdict on it.

`measure_together`: several networks in turns, for tables

    round 1: [reference] network 1 [reference] network 2 [reference] …   round 2: … again

On a shared machine the mean and the median move by half while the low end stays within 1 %. Where the work is
done by the calling thread, its CPU time is sampled too: a sample in which another program had the core does
not count for the quiet value. And because the machine itself is faster in one minute than in the next, a
reference workload, a small network that never changes, can be timed around every turn: `latency_at` tells the
quiet value at a given speed of the machine.

`measure_latency`: one small thing, for the quiet value alone, until the last windows of samples agree.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from statistics import median

from dsonas_hw.measure.statistics import SHARES, STATISTICS, Estimate, Statistic, estimate_quantile

LOW_QUANTILE = 0.05
"""Which quantile of the samples is the quiet value."""
USUAL_SPEED = 0.93
"""Of the machine against its profile; below, a verdict on latency is one on the moment too."""
NOISY_VARIATION = 0.025
"""Coefficient of variation above which clocks should be locked (as in trtexec)."""
MIN_QUIET_SAMPLES = 4
QUIET_SHARE = 0.985
"""Share of a sample's time that the thread must have had its core for."""
REFERENCE_RUNS = 3
"""Runs of the reference workload before and after every turn; the first only warms up."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """A few runs of a network after each other."""

    num_warmup: int
    num_samples: int
    low_ms: float
    """The shortest sample (by CPU time, where that is known)."""
    reference_ms: float | None = None
    """The shortest run of the reference workload around this turn."""


@dataclass(frozen=True, kw_only=True)
class LatencyMeasurement:
    """Timings of one network, in the order they were taken."""

    samples_ms: tuple[float, ...]
    converged: bool
    """Whether the quiet value was seen twice: the last windows, or the two quietest turns, agree."""
    remarks: tuple[str, ...] = ()
    """What else makes the numbers doubtful: throttling, dropped clocks."""
    cpu_samples_ms: tuple[float, ...] = ()
    """CPU time of the thread in each sample, where it does the work itself; empty: not known."""
    turns: tuple[Turn, ...] = ()
    """Those that the samples were taken in, in their order; none: they were taken all at once."""
    turns_per_round: int = 1
    """How many turns that follow each other count as one round."""
    graph_ms: float | None = None
    """Median when the launches are replayed as one CUDA graph: the GPU's own time. None: not known."""

    @property
    def quiet_ms(self) -> float:
        """A low quantile of the quiet samples: what the device needs when nothing disturbs it."""
        return quantile(self.quiet_samples_ms, LOW_QUANTILE)

    @property
    def latency_ms(self) -> float:
        """What a table holds of this network: the quiet value."""
        return self.quiet_ms

    @property
    def rounds_ms(self) -> tuple[tuple[float, ...], ...]:
        """The samples of each round."""
        if not self.turns:
            return (self.samples_ms,)
        ends = [0, *accumulate(turn.num_samples for turn in self.turns)]
        bounds = [*ends[:: self.turns_per_round], ends[-1]]
        return tuple(
            self.samples_ms[begin:end] for begin, end in pairwise(dict.fromkeys(bounds)) if end > begin
        )

    def estimate(self, statistic: Statistic) -> Estimate:
        """A percentile of the wall time of all samples, and its 99 % interval over the rounds, in ms."""
        return estimate_quantile(self.rounds_ms, SHARES[statistic])

    def percentiles_ms(self) -> dict[Statistic, float]:
        """p50, p95 and p99 of the wall time of all samples."""
        return {name: quantile(self.samples_ms, SHARES[name]) for name in STATISTICS}

    def latency_at(self, reference_ms: float) -> float:
        """The quiet value at the speed at which the reference workload takes this long.

        The median of the turns' ratios; without a reference workload it is `quiet_ms`.
        """
        ratios = [turn.low_ms / turn.reference_ms for turn in self.turns if turn.reference_ms]
        return median(ratios) * reference_ms if ratios else self.quiet_ms

    def relative_speed(self, usual_ms: float) -> float | None:
        """How fast the machine was, 1 where the reference workload took `usual_ms`; None: it was not run."""
        seen = [turn.reference_ms for turn in self.turns if turn.reference_ms]
        return usual_ms / median(seen) if seen and usual_ms else None

    @property
    def quiet_samples_ms(self) -> tuple[float, ...]:
        """The samples in which the thread had its core to itself; its CPU times if there are too few."""
        if not self.cpu_samples_ms:
            return self.samples_ms
        quiet = quiet_samples(self.samples_ms, self.cpu_samples_ms)
        return quiet if len(quiet) >= MIN_QUIET_SAMPLES else self.cpu_samples_ms

    @property
    def was_crowded(self) -> bool:
        """Whether other programs had the core in nearly every sample, so that CPU time had to count."""
        return bool(self.cpu_samples_ms) and self.quiet_samples_ms is self.cpu_samples_ms

    @property
    def median_ms(self) -> float:
        return quantile(self.samples_ms, 0.5)

    @property
    def mean_ms(self) -> float:
        return sum(self.samples_ms) / len(self.samples_ms)

    @property
    def std_ms(self) -> float:
        """Standard deviation of all samples."""
        mean = self.mean_ms
        return math.sqrt(sum((sample - mean) ** 2 for sample in self.samples_ms) / len(self.samples_ms))

    @property
    def coefficient_of_variation(self) -> float:
        """Standard deviation over mean."""
        return self.std_ms / self.mean_ms

    @property
    def warnings(self) -> tuple[str, ...]:
        """Everything that a reader of the number should know; empty when it is clean."""
        found = list(self.remarks)
        if self.was_crowded:
            found.append("other programs shared the core in nearly every sample: the quiet value is CPU time")
        if not self.converged:
            found.append("the timing had not converged when its time was up")
        if self.coefficient_of_variation > NOISY_VARIATION:
            found.append(
                f"noisy: the samples vary by {self.coefficient_of_variation:.0%} "
                f"(median {self.median_ms:.3g} ms); lock the clocks or leave the machine alone"
            )
        return tuple(found)

    def warnings_at(self, usual_ms: float) -> tuple[str, ...]:
        """The warnings, and another if the machine was slower than where the reference took `usual_ms`."""
        speed = self.relative_speed(usual_ms)
        if speed is None or speed >= USUAL_SPEED:
            return self.warnings
        slow = (
            f"slow: the machine ran at {speed:.0%} of the speed at which it was profiled; at that speed this "
            f"network would take about {self.latency_at(usual_ms):.4g} ms"
        )
        return (*self.warnings, slow)


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
    with GarbageCollectionOff():
        for _ in range(num_warmup):
            run()
        synchronize()
        samples_ms: list[float] = []
        lows_ms: list[float] = []
        deadline_s = clock_s() + max_seconds
        converged = False
        while len(lows_ms) < max_windows and not converged:
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
            converged = len(lows_ms) >= min_windows and _agree(last, agreement)
            if clock_s() > deadline_s:
                break
    return LatencyMeasurement(samples_ms=tuple(samples_ms), converged=converged)


def measure_together(
    runs: Sequence[Callable[[], object]],
    synchronize: Callable[[], None],
    *,
    num_rounds: int = 6,
    num_warmup: int = 3,
    min_samples: int = 5,
    max_samples: int = 40,
    round_seconds: float = 0.03,
    reference: Callable[[], object] | None = None,
    clock_s: Callable[[], float] = time.perf_counter,
    cpu_clock_s: Callable[[], float] | None = None,
) -> list[LatencyMeasurement]:
    """Time several networks in turns, so that a slow minute of the machine hits all of them alike.

    Every round times every network for about `round_seconds`. A shared machine changes its speed by 5 to
    10 % from second to second; the best of 4 rounds repeats to 1.7 %, of 6 rounds to 0.9 % (24 networks of
    0.1 to 5 ms), where one block of samples of the same number repeats to 5 %. How many rounds there are does
    not depend on what they say. A result is converged when its two best rounds agree within 3 %.

    reference: run around every turn (see the module's text).
    cpu_clock_s: `time.thread_time` where `run` does its work in this thread (see `LatencyMeasurement`).
    """
    clocks = Clocks(clock_s, cpu_clock_s, synchronize)
    takes = [Take() for _ in runs]
    with GarbageCollectionOff():
        for _ in range(num_rounds):
            for run, take in zip(runs, takes, strict=True):
                before_ms = clocks.shortest_ms(reference)
                for _ in range(num_warmup):
                    run()
                synchronize()
                first = len(take.samples_ms)
                end_s = start_s = clock_s()
                while len(take.samples_ms) - first < min_samples or (
                    end_s - start_s < round_seconds and len(take.samples_ms) - first < max_samples
                ):
                    wall_ms, cpu_ms, end_s = clocks.time_ms(run)
                    take.samples_ms.append(wall_ms)
                    if cpu_clock_s is not None:
                        take.cpu_samples_ms.append(cpu_ms)
                after_ms = clocks.shortest_ms(reference)
                take.end_turn(first, num_warmup, min(before_ms, after_ms) if reference else None)
    return [take.measurement() for take in takes]


class Clocks:
    """Times single runs by the wall, and by the CPU if it can."""

    def __init__(
        self,
        clock_s: Callable[[], float],
        cpu_clock_s: Callable[[], float] | None,
        synchronize: Callable[[], None],
    ) -> None:
        self._clock_s = clock_s
        self._cpu_clock_s = cpu_clock_s
        self._synchronize = synchronize

    def time_ms(self, run: Callable[[], object]) -> tuple[float, float, float]:
        """(wall ms, CPU ms, time of the wall clock at the end in s); the CPU's is the wall's if unknown."""
        cpu_s = self._cpu_clock_s() if self._cpu_clock_s else 0.0
        begin_s = self._clock_s()
        run()
        self._synchronize()
        end_s = self._clock_s()
        wall_ms = 1e3 * (end_s - begin_s)
        return wall_ms, 1e3 * (self._cpu_clock_s() - cpu_s) if self._cpu_clock_s else wall_ms, end_s

    def shortest_ms(self, reference: Callable[[], object] | None) -> float:
        """The reference workload, by the CPU's clock if there is one; infinite where there is none."""
        if reference is None:
            return math.inf
        reference()
        return min(self.time_ms(reference)[1] for _ in range(REFERENCE_RUNS - 1))


class Take:
    """What has been timed of one network so far."""

    def __init__(self) -> None:
        self.samples_ms: list[float] = []
        self.cpu_samples_ms: list[float] = []
        self.turns: list[Turn] = []

    def end_turn(self, first: int, num_warmup: int, reference_ms: float | None) -> None:
        """Note the turn that began with sample `first`."""
        samples = self.samples_ms[first:]
        self.turns.append(
            Turn(
                num_warmup=num_warmup,
                num_samples=len(samples),
                low_ms=min(self.cpu_samples_ms[first:] or samples),
                reference_ms=reference_ms,
            )
        )

    @property
    def converged(self) -> bool:
        return len(self.turns) > 1 and _agree(sorted(turn.low_ms for turn in self.turns)[:2], 0.03)

    def measurement(self, *, turns_per_round: int = 1) -> LatencyMeasurement:
        return LatencyMeasurement(
            samples_ms=tuple(self.samples_ms),
            converged=self.converged,
            cpu_samples_ms=tuple(self.cpu_samples_ms),
            turns=tuple(self.turns),
            turns_per_round=turns_per_round,
        )


class GarbageCollectionOff:
    """Collections would land in single samples."""

    def __enter__(self) -> None:
        self._was_enabled = gc.isenabled()
        gc.disable()

    def __exit__(self, *error: object) -> None:
        if self._was_enabled:
            gc.enable()


def quiet_samples(samples_ms: Sequence[float], cpu_samples_ms: Sequence[float]) -> tuple[float, ...]:
    """The samples in which the thread had its core nearly all the time."""
    pairs = zip(samples_ms, cpu_samples_ms, strict=True)
    return tuple(sample for sample, cpu in pairs if cpu >= QUIET_SHARE * sample)


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
