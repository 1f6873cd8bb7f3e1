"""What timings of a network say.

A *measurement* keeps its samples. Four numbers say what they are worth:

| number          | what it is                                           | what it is for        |
|-----------------|------------------------------------------------------|-----------------------|
| p50, p95, p99   | percentiles of the wall time of all samples          | budgets               |
| the quiet value | a low quantile of the samples that nothing disturbed | tables, predictions   |

Each can be stated at the usual speed of the machine, if a reference workload ran beside the network
(`measure.reference`): as if that had taken what it usually takes. `measure.timing` and `measure.rounds` tell
how networks are timed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from statistics import median, stdev

from dsonas_hw.measure.reference import Speed
from dsonas_hw.measure.statistics import REPEATABILITY, SHARES, Estimate, Statistic, estimate_quantile

LOW_QUANTILE = 0.05
"""Which quantile of the samples is the quiet value."""
USUAL_SPEED = 0.93
"""Of the machine against its profile; below, a verdict on latency is one on the moment too."""
NOISY_VARIATION = 0.025
"""Coefficient of variation above which clocks should be locked (as in trtexec)."""
MIN_QUIET_SAMPLES, MIN_TURNS = 4, 3
QUIET_SHARE = 0.985
"""Share of a sample's time that the thread must have had its core for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """A few runs of a network after each other."""

    num_warmup: int
    num_samples: int
    low_ms: float
    """The shortest sample (by CPU time, where that is known)."""
    speed: Speed | None = None
    """By the shortest run of each reference workload around this turn."""


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

    def rounds_at(self, usual: Speed | None) -> tuple[tuple[float, ...], ...]:
        """The samples of each round at a speed of the machine; as they were seen if nothing tells of it."""
        if not usual or self.speed is None:
            return self.rounds_ms
        found, quiet_ms = [], self.quiet_ms
        for index, samples in enumerate(self.rounds_ms):
            turns = self.turns[index * self.turns_per_round : (index + 1) * self.turns_per_round]
            seen = Speed.usual(turn.speed for turn in turns if turn.speed)
            factor = usual.relative_time(seen, quiet_ms) if seen else 1.0
            found.append(tuple(factor * sample for sample in samples))
        return tuple(found)

    def estimate(self, statistic: Statistic, usual: Speed | None = None) -> Estimate:
        """A percentile of the wall time of all samples, and the interval it is known to lie in, in ms.

        usual: the usual speed of the machine, which the percentile is stated at. The interval, of 99 % over
            the rounds, is made to hold what was seen, too: what makes other networks slower need not make
            this one. None: as it was seen.
        """
        estimate = estimate_quantile(self.rounds_at(usual), SHARES[statistic])
        return estimate.holding(self.percentile_ms(statistic)).widened(REPEATABILITY)

    def percentile_ms(self, statistic: Statistic) -> float:
        """A percentile of the wall time of all samples, as it was seen."""
        return quantile(self.samples_ms, SHARES[statistic])

    def latency_at(self, usual: Speed | None) -> float:
        """The quiet value at a speed of the machine: the median over the turns of what each says.

        Without reference workloads it is `quiet_ms`.
        """
        return median(self._lows_at(usual)) if usual and self.speed else self.quiet_ms

    def relative_standard_error(self, usual: Speed | None) -> float | None:
        """Of `latency_at`, by how the turns differ (as of a median of normal values); None: too few turns."""
        if len(self.turns) < MIN_TURNS:
            return None
        deviation = stdev(map(math.log, self._lows_at(usual)))
        return math.sqrt(math.pi / 2) * deviation / math.sqrt(len(self.turns))

    def _lows_at(self, usual: Speed | None) -> list[float]:
        """The quiet value of each turn at a speed of the machine."""
        return [
            turn.low_ms * (usual.relative_time(turn.speed, turn.low_ms) if usual and turn.speed else 1.0)
            for turn in self.turns
        ]

    @property
    def speed(self) -> Speed | None:
        """How fast the machine was meanwhile, in the median; None: no reference workload ran."""
        return Speed.usual(turn.speed for turn in self.turns if turn.speed)

    def relative_speed(self, usual: Speed | None) -> float | None:
        """How fast the machine was for this network, 1 at its usual speed; None: that is not known."""
        return usual.relative_time(self.speed, self.quiet_ms) if usual and self.speed else None

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

    def warnings_at(self, usual: Speed | None) -> tuple[str, ...]:
        """The warnings, and another if the machine was slower than usual."""
        speed = self.relative_speed(usual)
        if speed is None or speed >= USUAL_SPEED:
            return self.warnings
        at_usual_ms = self.estimate("p50", usual).value
        slow = (
            f"slow: the machine ran at {speed:.0%} of the speed at which it was profiled: the median seen is "
            f"{self.median_ms:.4g} ms, at that speed it is {at_usual_ms:.4g} ms"
        )
        return (*self.warnings, slow)


def quiet_samples(samples_ms: Sequence[float], cpu_samples_ms: Sequence[float]) -> tuple[float, ...]:
    """The samples in which the thread had its core nearly all the time."""
    pairs = zip(samples_ms, cpu_samples_ms, strict=True)
    return tuple(sample for sample, cpu in pairs if cpu >= QUIET_SHARE * sample)


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which this share of the values lies, interpolated between neighbours."""
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    position = share * (len(ordered) - 1)
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (position - below) * (ordered[above] - ordered[below])
