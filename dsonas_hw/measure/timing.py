"""How networks are timed for tables: for the quiet value of many, or of one small thing.

`measure_together`: several networks in turns

    round 1: [reference] network 1 [reference] network 2 [reference] …   round 2: … again

On a shared machine the mean and the median move by half while the low end stays within 1 %. Where the work is
done by the calling thread, its CPU time is sampled too: a sample in which another program had the core does
not count for the quiet value. And because the machine itself is faster in one minute than in the next,
reference workloads (`measure.reference`) can be timed around every turn: `latency_at` tells the quiet value
at a given speed of the machine.

`measure_latency`: one small thing, alone, until the last windows of samples agree.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dsonas_hw.measure.measurement import LOW_QUANTILE, LatencyMeasurement, Turn, quantile
from dsonas_hw.measure.reference import References, Speed

WARMUP_SECONDS, TURN_SECONDS = 0.003, 0.01
"""Before samples, of a network or of a reference workload, and of those of a turn."""
MIN_SAMPLES, MAX_RECORDED = 4, 20
"""Of one turn."""
REFERENCE_SECONDS = 0.002
"""Of each reference workload before and after every turn, once it is warm."""


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
    clocks = Clocks(clock_s, None, synchronize)
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
                wall_ms, _, end_s = clocks.time_ms(run)
                samples_ms.append(wall_ms)
                if end_s > deadline_s and len(samples_ms) - start >= 3:
                    break
            lows_ms.append(quantile(samples_ms[start:], LOW_QUANTILE))
            last = lows_ms[-3:]
            converged = len(lows_ms) >= min_windows and _agree(last, agreement)
            if clock_s() > deadline_s:
                break
    return LatencyMeasurement(samples_ms=tuple(samples_ms), converged=converged)


def measure_together(
    networks: Sequence[Sequence[Callable[[], object]]],
    synchronize: Callable[[], None],
    *,
    num_rounds: int = 7,
    turn_seconds: float = TURN_SECONDS,
    references: References | None = None,
    clock_s: Callable[[], float] = time.perf_counter,
    cpu_clock_s: Callable[[], float] | None = None,
) -> list[list[LatencyMeasurement]]:
    """Time several networks in turns, so that a slow minute of the machine hits all of them alike.

    Every round times every network for `turn_seconds`, and `MIN_SAMPLES` times at least, after running it for
    `WARMUP_SECONDS`: what ran before leaves its mark on the first milliseconds. A machine that is shared
    changes its speed within milliseconds, too, so that a few runs of a short network say little. How many
    rounds there are does not depend on what they say. A result is converged when its two best rounds agree
    within 3 %.

    networks: the ways to run each, e.g. plain and under a profiler. Those of one network follow each other in
        one turn; the first of them warms up for all. Profilers keep a record of every run, so the others run
        at most `MAX_RECORDED` times.
    references: run around every turn (see the module's text).
    cpu_clock_s: `time.thread_time` where a run does its work in this thread (see `LatencyMeasurement`).

    Returns the measurements of each network, in the order of its ways.
    """
    clocks = Clocks(clock_s, cpu_clock_s, synchronize)
    takes = [[Take() for _ in ways] for ways in networks]
    with GarbageCollectionOff():
        before = clocks.speed(references)
        for _ in range(num_rounds):
            for ways, takes_of in zip(networks, takes, strict=True):
                for way, (run, take) in enumerate(zip(ways, takes_of, strict=True)):
                    take.begin_turn(clocks.warm_up(run, 0.0 if way else WARMUP_SECONDS).count)
                    most = MAX_RECORDED if way else math.inf
                    end_s = start_s = clock_s()
                    while take.num_taken < MIN_SAMPLES or (
                        end_s - start_s < turn_seconds and take.num_taken < most
                    ):
                        wall_ms, cpu_ms, end_s = clocks.time_ms(run)
                        take.add(wall_ms, cpu_ms if cpu_clock_s else None)
                after = clocks.speed(references)
                for take in takes_of:
                    take.end_turn(before, after)
                before = after
    return [[take.measurement() for take in takes_of] for takes_of in takes]


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

    def warm_up(self, run: Callable[[], object], seconds: float, *, min_count: int = 1) -> WarmUp:
        """Run for so long, and at least so often."""
        begin_s = self._clock_s()
        shortest_ms, count = math.inf, 0
        while count < min_count or self._clock_s() - begin_s < seconds:
            shortest_ms, count = min(shortest_ms, self.time_ms(run)[0]), count + 1
        return WarmUp(count=count, shortest_s=shortest_ms / 1e3)

    def speed(self, references: References | None) -> Speed | None:
        """The speed of the machine, by the CPU's clock if there is one; None without reference workloads."""
        if references is None:
            return None
        return Speed(
            small_ms=self._shortest_ms(references.small), large_ms=self._shortest_ms(references.large)
        )

    def _shortest_ms(self, run: Callable[[], object]) -> float:
        self.warm_up(run, WARMUP_SECONDS)
        begin_s = end_s = self._clock_s()
        shortest_ms = math.inf
        while end_s - begin_s < REFERENCE_SECONDS:
            _, cpu_ms, end_s = self.time_ms(run)
            shortest_ms = min(shortest_ms, cpu_ms)
        return shortest_ms


@dataclass(frozen=True, kw_only=True)
class WarmUp:
    """The runs before the samples of a turn."""

    count: int
    shortest_s: float


class Take:
    """What has been timed of one network so far."""

    def __init__(self) -> None:
        self.samples_ms: list[float] = []
        self.cpu_samples_ms: list[float] = []
        self.turns: list[Turn] = []
        self._first, self._num_warmup = 0, 0
        """Of the turn that was begun last."""

    def begin_turn(self, num_warmup: int) -> None:
        """What is added from now on belongs to the next turn."""
        self._first, self._num_warmup = len(self.samples_ms), num_warmup

    @property
    def num_taken(self) -> int:
        """Samples of this turn so far."""
        return len(self.samples_ms) - self._first

    def add(self, wall_ms: float, cpu_ms: float | None = None) -> None:
        """Note a sample; cpu_ms: its CPU time, where that is known."""
        self.samples_ms.append(wall_ms)
        if cpu_ms is not None:
            self.cpu_samples_ms.append(cpu_ms)

    def end_turn(self, before: Speed | None, after: Speed | None) -> None:
        """Note the turn, and the speeds of the machine around it: the quicker one counts."""
        self.turns.append(
            Turn(
                num_warmup=self._num_warmup,
                num_samples=self.num_taken,
                low_ms=min((self.cpu_samples_ms or self.samples_ms)[self._first :]),
                speed=before.quicker(after) if before and after else None,
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


def _agree(values: Sequence[float], tolerance: float) -> bool:
    return max(values) <= min(values) * (1 + tolerance)
