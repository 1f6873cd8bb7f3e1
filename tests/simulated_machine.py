"""Machines whose clock the tests hold in their hands: quiet, noisy (bursts, heavy tails), drifting."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dsonas_hw.measure.measurement import LatencyMeasurement
from dsonas_hw.measure.reference import References, Speed
from dsonas_hw.measure.rounds import VERDICT, Plan, measure_rounds

KINDS = ("quiet", "noisy", "drifting")


class SimulatedMachine:
    """Its clock advances when something runs, and when it rests.

    quiet: every run takes up to a few per mille more than it needs.
    noisy: about a quarter of the time something else takes 30 % of the machine, for 2 s in the mean; of all
        runs one in fifty is interrupted, for times of which no mean exists.
    drifting: the speed wanders by 2 % (standard deviation), with a memory of half a minute.
    """

    def __init__(self, kind: str, *, seed: int = 0) -> None:
        self.kind = kind
        self.now_s = 0.0
        self._random = random.Random(f"{kind}/{seed}")
        self._step_s, self._drift, self._burst_until_s, self._next_burst_s = 0.0, 0.0, 0.0, 3.0
        self.num_opened = 0

    def clock_s(self) -> float:
        return self.now_s

    def rest(self, seconds: float) -> None:
        self.now_s += seconds

    def run(self, milliseconds: float) -> None:
        """Let something run that needs so long."""
        draw = self._random
        slower = 1 + 0.003 * draw.expovariate(1.0)
        if self.kind == "noisy":
            slower *= 1.3 if self._is_in_burst() else 1.0
            slower += draw.paretovariate(1.0) if draw.random() < 0.02 else 0.0
        if self.kind == "drifting":
            slower *= math.exp(self._wander())
        self.now_s += milliseconds / 1e3 * slower

    def _is_in_burst(self) -> bool:
        while self.now_s > self._next_burst_s:
            self._burst_until_s = self._next_burst_s + self._random.expovariate(1 / 2.0)
            self._next_burst_s = self._burst_until_s + self._random.expovariate(1 / 6.0)
        return self.now_s < self._burst_until_s

    def _wander(self, deviation: float = 0.02, memory_s: float = 30.0) -> float:
        """An Ornstein-Uhlenbeck process, moved on every 50 ms."""
        while self._step_s <= self.now_s:
            keep = math.exp(-0.05 / memory_s)
            self._drift = keep * self._drift + deviation * math.sqrt(1 - keep**2) * self._random.gauss(0, 1)
            self._step_s += 0.05
        return self._drift

    def network(self, milliseconds: float) -> Callable[[], object]:
        """Something to be timed."""

        class Network:
            @staticmethod
            def run() -> None:
                self.run(milliseconds)

            @staticmethod
            def synchronize() -> None:
                pass

        @contextmanager
        def opened() -> Iterator[Network]:
            self.num_opened += 1
            self.now_s += 0.01
            yield Network()

        return opened

    def measure(self, milliseconds: float = 2.0, plan: Plan = VERDICT) -> LatencyMeasurement:
        """What is found of a network, a minute after whatever was before."""
        self.rest(60.0)
        return measure_rounds(
            self.network(milliseconds),  # type: ignore[arg-type]
            plan=plan,
            references=References(small=lambda: self.run(0.05), large=lambda: self.run(0.5)),
            rest=self.rest,
            clock_s=self.clock_s,
        )

    def usual_speed(self, num: int = 40, seconds: float = 5.0) -> Speed:
        """The median of what the reference workloads take, again and again, while the machine is profiled."""
        found = []
        for _ in range(num):
            self.rest(seconds)
            begin_s = self.now_s
            self.run(0.5)
            found.append(Speed(small_ms=1e2 * (self.now_s - begin_s), large_ms=1e3 * (self.now_s - begin_s)))
        usual = Speed.usual(found)
        assert usual is not None
        return usual
