"""Timing one network in rounds, so that what is said of it is what a user will see.

    │ turn   turn   turn   turn   turn │ turn   turn   turn   turn   turn │ … 12 rounds
    └ round 1: a turn every 0.5 s ─────┘ └ round 2, 2.5 s later ──────────┘

    a turn: open the network, [reference], run it to warm up, time some runs, [reference], close it

Timings that follow each other resemble each other, for two reasons. A machine changes its speed for seconds
at a time (two cores of a virtual server: turns 0.5 s apart correlate by 0.4, 4 s apart by 0.1). And a session
keeps the memory that it was given: a network of 0.13 ms, opened again and again, repeats to 2 % whatever the
number of its runs. So turns are spread over time, each opens the network anew where that is cheap, some that
follow each other are a round, and the rounds are what the interval of `statistics` counts as independent. How
many rounds there are, and how many runs each holds, is fixed before the first is looked at.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from dsonas_hw.measure.measurement import LatencyMeasurement
from dsonas_hw.measure.reference import References
from dsonas_hw.measure.timing import Clocks, GarbageCollectionOff, Take

WARMUP_SECONDS = 0.5
"""Before the first turn: a GPU at rest needs about as long to reach its clocks."""
TURN_WARMUP_SECONDS = 0.02
"""Before every other turn."""
WARMUP_RUNS = 3
"""At least."""
MIN_SAMPLES, MAX_SAMPLES = 8, 100
"""Of one turn."""


@dataclass(frozen=True, kw_only=True)
class Turns:
    """What is fixed once the length of a run is known."""

    per_round: int
    num_samples: int
    """Of each turn."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a network is timed."""

    num_rounds: int = 12
    turns_per_round: int = 5
    """At most: fewer where a run takes so long that they would not be over when the next round is due."""
    turn_seconds: float = 0.03
    """What the samples of one turn take together."""
    period_seconds: float = 0.5
    """From the beginning of one turn to that of the next; a turn that takes longer is followed at once."""

    def turns(self, run_seconds: float) -> Turns:
        """The turns of a network whose run takes that long."""
        wanted = math.ceil(self.turn_seconds / run_seconds) if run_seconds > 0 else MAX_SAMPLES
        num_samples = min(max(wanted, MIN_SAMPLES), MAX_SAMPLES)
        lasts = max(self.period_seconds, self.turn_seconds, run_seconds * (WARMUP_RUNS + num_samples))
        room = self.turns_per_round * max(self.period_seconds, self.turn_seconds) / lasts
        return Turns(per_round=max(1, int(room + 1e-9)), num_samples=num_samples)


VERDICT = Plan()
"""For a verdict on a budget: half a minute."""
QUICK = Plan(num_rounds=6, turns_per_round=2, period_seconds=0.0)
"""For a table: the quiet value of many networks, one after the other."""
GPU = Plan(num_rounds=12, turns_per_round=4, period_seconds=0.0)
"""For a table of a GPU: the quiet value of many networks, each timed for about a second."""


class Timed(Protocol):
    """What is timed; every `runtime.base.Session` is."""

    def run(self) -> object:
        """Start one inference."""
        ...

    def synchronize(self) -> None:
        """Wait until the device has finished."""
        ...


def measure_rounds(
    open_network: Callable[[], AbstractContextManager[Timed]],
    *,
    plan: Plan = VERDICT,
    references: References | None = None,
    rest: Callable[[float], object] = time.sleep,
    progress: Callable[[int, int], None] = lambda done, total: None,
    clock_s: Callable[[], float] = time.perf_counter,
) -> LatencyMeasurement:
    """Time inferences by the wall, waiting for the device before and after every sample.

    open_network: called once a turn; gives the network ready to run, and may give the same one each time.
    references: run before and after every turn, and tell how fast the machine was (`Turn.speed`).
    rest: called with the seconds that are left until the next turn, and again if it came back early.
    progress: called after every turn with the turns done and those there are.
    """
    take = Take()
    turns: Turns | None = None
    done, num_turns = 0, 1
    with GarbageCollectionOff():
        while done < num_turns:
            due_s = clock_s() + plan.period_seconds
            with open_network() as network:
                clocks = Clocks(clock_s, None, network.synchronize)
                before = clocks.speed(references)
                warm_up = clocks.warm_up(
                    network.run, TURN_WARMUP_SECONDS if turns else WARMUP_SECONDS, min_count=WARMUP_RUNS
                )
                turns = turns or plan.turns(warm_up.shortest_s)
                take.begin_turn(warm_up.count)
                for _ in range(turns.num_samples):
                    take.add(clocks.time_ms(network.run)[0])
                take.end_turn(before, clocks.speed(references))
            done, num_turns = done + 1, plan.num_rounds * turns.per_round
            progress(done, num_turns)
            while done < num_turns and (left_s := due_s - clock_s()) > 0:
                rest(left_s)
    assert turns is not None, "there is a first turn"
    return take.measurement(turns_per_round=turns.per_round)
