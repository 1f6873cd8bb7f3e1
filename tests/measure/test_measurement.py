"""Timing against clocks that the tests hold in their hands."""

from __future__ import annotations

import itertools
import math
import random
from dataclasses import replace

import pytest

from dsonas_hw.measure.measurement import LatencyMeasurement, Turn, quantile, quiet_samples
from dsonas_hw.measure.reference import LARGE_NETWORK_MS, SMALL_NETWORK_MS, References, Speed
from dsonas_hw.measure.timing import measure_latency, measure_together


class Machine:
    """Its clock advances only when something runs on it; `speed` changes what running costs."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.cpu_s = 0.0
        self.speed = 1.0
        self.pending_s = 0.0

    def network(self, milliseconds: float, *, jitter: random.Random | None = None):  # type: ignore[no-untyped-def]
        def run() -> None:
            extra = 1 + abs(jitter.gauss(0, 0.3)) if jitter and jitter.random() < 0.5 else 1.0
            self.now_s += milliseconds / 1e3 / self.speed * extra
            self.cpu_s += milliseconds / 1e3 / self.speed

        return run

    def clock_s(self) -> float:
        return self.now_s

    def cpu_clock_s(self) -> float:
        return self.cpu_s

    def asynchronous(self, milliseconds: float):  # type: ignore[no-untyped-def]
        """Like a GPU: a call returns at once, the work is done by the time of `synchronize`."""

        def run() -> None:
            self.pending_s += milliseconds / 1e3

        return run

    def synchronize(self) -> None:
        self.now_s += self.pending_s
        self.pending_s = 0.0


def test_the_low_end_is_the_latency_whatever_disturbs_the_rest() -> None:
    machine = Machine()
    timing = measure_latency(
        machine.network(2.0, jitter=random.Random(0)), machine.synchronize, clock_s=machine.clock_s
    )
    assert timing.latency_ms == pytest.approx(2.0, rel=1e-6)
    assert timing.mean_ms > 2.1
    assert timing.converged
    assert any("noisy" in warning for warning in timing.warnings)


def test_a_device_that_works_on_after_the_call_is_waited_for() -> None:
    machine = Machine()
    timing = measure_latency(machine.asynchronous(3.0), machine.synchronize, clock_s=machine.clock_s)
    assert timing.latency_ms == pytest.approx(3.0)
    assert timing.warnings == ()


def test_what_never_settles_says_so() -> None:
    machine = Machine()
    growing = iter(range(1, 100_000))

    def run() -> None:
        machine.now_s += next(growing) * 1e-3

    timing = measure_latency(run, machine.synchronize, max_seconds=5.0, clock_s=machine.clock_s)
    assert not timing.converged
    assert any("not converged" in warning for warning in timing.warnings)


def test_a_long_network_stops_when_its_time_is_up() -> None:
    machine = Machine()
    timing = measure_latency(
        machine.network(4_000), machine.synchronize, max_seconds=5.0, clock_s=machine.clock_s
    )
    assert len(timing.samples_ms) == 3


@pytest.mark.parametrize(("milliseconds", "slowness"), [(0.02, 1.2), (5.0, 2.0)])
def test_reference_workloads_take_out_the_speed_of_the_machine(milliseconds: float, slowness: float) -> None:
    """What makes large work twice as slow slows small work by 1.2 only, and each network like its size."""
    machine = Machine()

    def measure(small: float, large: float, network: float) -> LatencyMeasurement:
        references = References(small=machine.network(0.05 * small), large=machine.network(0.5 * large))
        run = machine.network(milliseconds * network)
        ((timing,),) = measure_together(
            [[run]], machine.synchronize, references=references, clock_s=machine.clock_s
        )
        return timing

    quick, slow = measure(1.0, 1.0, 1.0), measure(1.2, 2.0, slowness)
    assert slow.latency_ms == pytest.approx(slowness * milliseconds)
    assert slow.latency_at(quick.speed) == pytest.approx(milliseconds)
    assert slow.relative_speed(quick.speed) == pytest.approx(1 / slowness)


def test_a_network_between_the_reference_workloads_slows_down_as_both() -> None:
    quick, slow = Speed(small_ms=0.03, large_ms=1.0), Speed(small_ms=0.03 * 1.2, large_ms=2.0)
    between_ms = math.sqrt(SMALL_NETWORK_MS * LARGE_NETWORK_MS)
    assert slow.relative_time(quick, between_ms) == pytest.approx(math.sqrt(1.2 * 2.0))
    assert Speed.from_values(slow.to_values()) == slow


def test_networks_take_turns_and_every_turn_is_counted() -> None:
    machine = Machine()
    order: list[str] = []

    def named(name: str, milliseconds: float):  # type: ignore[no-untyped-def]
        work = machine.network(milliseconds)

        def run() -> None:
            order.append(name)
            work()

        return run

    (a, a_profiled), (b,) = measure_together(
        [[named("a", 1.0), named("A", 1.5)], [named("b", 20.0)]],
        machine.synchronize,
        num_rounds=3,
        clock_s=machine.clock_s,
    )
    for name, timing in zip("aAb", (a, a_profiled, b), strict=True):
        assert order.count(name) == sum(turn.num_warmup + turn.num_samples for turn in timing.turns)
        assert len(timing.turns) == 3
    assert [name for name, _ in itertools.groupby(order)] == ["a", "A", "b"] * 3
    # 3 ms of warming up are three runs of 1 ms; what follows in the turn of its network is warm after one.
    assert {timing.turns[0].num_warmup for timing in (a_profiled, b)} == {1}
    assert a.turns[0].num_warmup == 3
    assert [timing.latency_ms for timing in (a, a_profiled, b)] == pytest.approx([1.0, 1.5, 20.0])


def test_samples_in_which_another_program_had_the_core_do_not_count() -> None:
    walls, cpus = (1.0, 1.5, 1.0, 2.0), (0.999, 1.0, 0.998, 1.0)
    assert quiet_samples(walls, cpus) == (1.0, 1.0)
    crowded = LatencyMeasurement(samples_ms=(1.5, 2.0, 3.0), cpu_samples_ms=(1.0, 1.0, 1.1), converged=True)
    assert crowded.was_crowded
    assert crowded.latency_ms == pytest.approx(1.0)
    assert any("other programs" in warning for warning in crowded.warnings)


def test_cpu_time_is_counted_where_the_thread_does_the_work() -> None:
    machine = Machine()
    ((timing,),) = measure_together(
        [[machine.network(1.0, jitter=random.Random(1))]],
        machine.synchronize,
        clock_s=machine.clock_s,
        cpu_clock_s=machine.cpu_clock_s,
    )
    assert timing.turns[0].low_ms == pytest.approx(1.0)
    assert timing.latency_ms == pytest.approx(1.0)


def test_the_standard_error_is_that_of_a_median_of_turns() -> None:
    # Logarithms −0.1, 0, 0.1 have a standard deviation of 0.1, a median of three √(π/2)/√3 times that.
    turns = tuple(Turn(num_warmup=1, num_samples=1, low_ms=math.exp(x)) for x in (-0.1, 0.0, 0.1))
    timing = LatencyMeasurement(samples_ms=(1.0,) * 3, converged=True, turns=turns)
    assert timing.relative_standard_error(None) == pytest.approx(0.1 * math.sqrt(math.pi / 6))
    assert replace(timing, turns=turns[:2]).relative_standard_error(None) is None


def test_without_reference_workloads_the_latency_is_as_measured() -> None:
    timing = LatencyMeasurement(
        samples_ms=(2.0, 2.1), converged=True, turns=(Turn(num_warmup=1, num_samples=2, low_ms=2.0),)
    )
    assert timing.latency_at(Speed(small_ms=1.0, large_ms=1.0)) == timing.latency_ms


def at(large_ms: float) -> Speed:
    return Speed(small_ms=0.03, large_ms=large_ms)


def test_a_machine_slower_than_when_it_was_profiled_is_named_with_what_the_network_would_take() -> None:
    turns = tuple(Turn(num_warmup=1, num_samples=2, low_ms=2.0, speed=at(0.5)) for _ in range(3))
    measured = LatencyMeasurement(samples_ms=(2.0,) * 6, converged=True, turns=turns)
    assert measured.relative_speed(at(0.4)) == pytest.approx(0.8)
    (warning,) = measured.warnings_at(at(0.4))
    assert "at 80% of the speed" in warning
    assert "the median seen is 2 ms, at that speed it is 1.6 ms" in warning
    assert measured.warnings_at(at(0.49)) == measured.warnings_at(at(0.6)) == ()
    assert measured.warnings_at(None) == (), "a table without reference workloads says nothing"


def test_a_percentile_is_stated_at_the_usual_speed_and_its_interval_holds_what_was_seen() -> None:
    """In every other round the machine is 20 % slower; usually it is quick."""
    turns = [Turn(num_warmup=1, num_samples=8, low_ms=1.0, speed=at(ms)) for ms in (0.5, 0.6) * 6]
    seen = LatencyMeasurement(
        samples_ms=((1.0,) * 8 + (1.2,) * 8) * 6, converged=True, turns=tuple(turns), turns_per_round=1
    )
    assert all(samples == pytest.approx((1.0,) * 8) for samples in seen.rounds_at(at(0.5)))
    estimate = seen.estimate("p50", at(0.5))
    assert estimate.value == pytest.approx(1.0)
    assert (estimate.low, estimate.high) == pytest.approx((0.99, 1.1))  # 1 %; the median seen is 1.1 ms
    assert seen.estimate("p50").value == pytest.approx(1.1)


def test_quantiles_are_interpolated() -> None:
    assert quantile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert quantile([1.0, 2.0], 0.25) == 1.25
    with pytest.raises(ValueError, match="no values"):
        quantile([], 0.5)
