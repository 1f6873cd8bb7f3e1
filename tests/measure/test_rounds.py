"""Rounds against clocks that the tests hold in their hands."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
from simulated_machine import KINDS, SimulatedMachine

from dsonas_hw.measure.rounds import GPU, MAX_SAMPLES, MIN_SAMPLES, VERDICT, Plan, measure_rounds
from dsonas_hw.measure.statistics import STATISTICS


@pytest.mark.parametrize("kind", KINDS)
def test_how_much_is_timed_does_not_depend_on_what_is_seen(kind: str) -> None:
    found = [SimulatedMachine(kind, seed=seed).measure() for seed in range(3)]
    for timing in found:
        assert len(timing.turns) == 60
        assert len(timing.rounds_ms) == VERDICT.num_rounds == 12
        assert {len(samples) for samples in timing.rounds_ms} == {len(timing.samples_ms) // 12}
        assert sum(map(len, timing.rounds_ms)) == len(timing.samples_ms)


def test_rounds_are_spread_over_half_a_minute_and_every_turn_opens_the_network() -> None:
    machine = SimulatedMachine("quiet")
    machine.measure()
    # A minute of rest before, then 59 periods of 0.5 s and the last turn; the first, with its 0.5 s of
    # warming up, is longer than its period by less than 0.1 s.
    assert 60 + 29.5 < machine.now_s < 60 + 30.0
    assert machine.num_opened == 60


def test_every_run_counts_for_the_percentiles_and_the_quiet_ones_for_the_quiet_value() -> None:
    timing = SimulatedMachine("noisy").measure(2.0)
    assert timing.quiet_ms == pytest.approx(2.0, rel=0.01)
    percentiles = {name: timing.percentile_ms(name) for name in STATISTICS}
    assert timing.quiet_ms < percentiles["p50"] < percentiles["p95"] < percentiles["p99"]
    assert percentiles["p95"] > 1.25 * 2.0  # bursts of 30 % in a quarter of the time
    for name in STATISTICS:
        estimate = timing.estimate(name)
        assert estimate.value == pytest.approx(percentiles[name])
        assert estimate.low <= estimate.value <= estimate.high


def test_a_slow_network_has_fewer_turns_but_all_rounds() -> None:
    # 0.2 s: a turn of 3 + 8 runs takes 2.2 s, so that one fits into a round of 5 × 0.5 s.
    timing = SimulatedMachine("quiet").measure(200.0)
    assert len(timing.rounds_ms) == len(timing.turns) == 12
    assert {turn.num_samples for turn in timing.turns} == {MIN_SAMPLES}


@pytest.mark.parametrize(
    ("run_seconds", "num_samples", "per_round"),
    [
        (1e-6, MAX_SAMPLES, 5),
        (1e-3, 30, 5),  # 30 ms / 1 ms
        (0.035, MIN_SAMPLES, 5),  # 11 runs take 0.385 s of 0.5 s
        (0.08, MIN_SAMPLES, 2),  # 11 runs take 0.88 s of the round's 2.5 s
        (2.0, MIN_SAMPLES, 1),
    ],
)
def test_turns_follow_from_the_length_of_a_run(run_seconds: float, num_samples: int, per_round: int) -> None:
    turns = VERDICT.turns(run_seconds)
    assert (turns.num_samples, turns.per_round) == (num_samples, per_round)


def test_a_device_is_kept_busy_between_turns_and_waited_for() -> None:
    """Like a GPU: a call returns at once, the work is done by the time of `synchronize`."""

    class Gpu:
        now_s = pending_s = 0.0
        num_runs = 0

        def run(self) -> None:
            self.pending_s += 3e-3
            self.num_runs += 1

        def synchronize(self) -> None:
            self.now_s += self.pending_s
            self.pending_s = 0.0

    gpu = Gpu()

    def keep_busy(seconds: float) -> None:
        assert seconds > 0
        gpu.run()
        gpu.synchronize()

    timing = measure_rounds(
        lambda: nullcontext(gpu), plan=Plan(num_rounds=3), rest=keep_busy, clock_s=lambda: gpu.now_s
    )
    assert (min(timing.samples_ms), max(timing.samples_ms)) == pytest.approx((3.0, 3.0))
    assert gpu.now_s == pytest.approx(3e-3 * gpu.num_runs)  # never idle
    assert gpu.now_s > 14 * 0.5
    assert timing.converged


def test_a_gpu_is_warm_before_the_first_round() -> None:
    """Half as fast for the first 0.4 s: none of that is among the samples."""
    machine = SimulatedMachine("quiet")

    class Cold:
        def run(self) -> None:
            machine.run(4.0 if machine.now_s < 0.4 else 2.0)

        def synchronize(self) -> None:
            pass

    cold = Cold()
    timing = measure_rounds(lambda: nullcontext(cold), plan=GPU, rest=machine.rest, clock_s=machine.clock_s)
    assert max(timing.samples_ms) < 2.2


def test_progress_ends_with_the_last_turn() -> None:
    machine = SimulatedMachine("quiet")
    told: list[tuple[int, int]] = []
    measure_rounds(
        machine.network(1.0),  # type: ignore[arg-type]
        plan=Plan(num_rounds=2, turns_per_round=2),
        rest=machine.rest,
        progress=lambda done, total: told.append((done, total)),
        clock_s=machine.clock_s,
    )
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
