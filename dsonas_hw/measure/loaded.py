"""Timing a network on a GPU, which is kept at work so that its clocks stay where they are.

    warm up 0.5 s │ turn, load, turn, load, … about a second of it │ the CPU's part │ replays of a CUDA graph
                          └ look: what the driver says about the GPU while it works

A GPU at rest lowers its clocks and needs tenths of a second to raise them: ten runs of a small network are
over before that. So it is warmed up by time, timed for about a second, and kept busy in between; a timing
that still falls or rises from the first turns to the last is not converged.

What a small network takes is mostly the time of its launches, by the CPU. Two numbers tell it apart: how long
the CPU takes to start everything, where starting returns early; and how long the network takes when all its
launches are replayed as one CUDA graph, where the runtime can do that: that is the GPU's own time.

Weights and activations that fit into the L2 cache stay there from one run to the next: the L2 is warm.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from statistics import median

from dsonas_hw.errors import UserError
from dsonas_hw.measure.measurement import LatencyMeasurement
from dsonas_hw.measure.rounds import GPU, WARMUP_SECONDS, Plan, Timed, measure_rounds

LOAD_SECONDS = 0.02
"""How long the runs take that are started before the driver is asked about a GPU at work."""
LOOK_SECONDS = 0.1
DRIFT = 0.05
"""Relative difference between the first and the last third of the turns that tells of moving clocks."""
HOST_BOUND = 0.8
"""Fraction of an inference that its start may take before the CPU is what limits (as in trtexec)."""
BOUND_BY_HOST = "bound by the host"
"""How the remark on such a network begins."""
LAUNCH_BOUND = 0.2
"""Fraction of an inference that a CUDA graph saves, above which that is worth a remark."""
NUM_EXTRA_SAMPLES = 50
"""Of the CPU's part, and of the CUDA graph."""
GRAPH_WARMUP_RUNS = 3
"""A runtime captures its graph in the first runs."""

Graph = Callable[[], AbstractContextManager[Timed]]
"""Opens a network whose runs replay a CUDA graph."""


def measure_loaded(
    network: Timed,
    *,
    plan: Plan = GPU,
    returns_early: bool = False,
    graph: Graph | None = None,
    look: Callable[[], None] = lambda: None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    clock_s: Callable[[], float] = time.perf_counter,
) -> LatencyMeasurement:
    """Time inferences by the wall, waiting for the GPU before and after every sample.

    returns_early: whether `network.run` comes back while the GPU is still at work.
    graph: the same network as a CUDA graph, where the runtime can make one.
    look: called between turns, about every tenth of a second, while the GPU works.
    progress: called after every turn with the turns done and those there are.
    """

    looked_s = -math.inf

    def after_turn(done: int, total: int) -> None:
        nonlocal looked_s
        if clock_s() - looked_s >= LOOK_SECONDS:
            keep_at_work(network, look, clock_s=clock_s)
            looked_s = clock_s()
        progress(done, total)

    def keep_busy(seconds: float) -> None:
        network.run()
        network.synchronize()

    measured = measure_rounds(
        lambda: nullcontext(network), plan=plan, rest=keep_busy, progress=after_turn, clock_s=clock_s
    )
    if returns_early:
        measured = with_host_fraction(measured, host_fraction(network, clock_s))
    if graph is not None:
        measured = with_graph(measured, graph, clock_s=clock_s)
    return judge_drift(measured)


def keep_at_work(
    network: Timed, look: Callable[[], None], *, clock_s: Callable[[], float] = time.perf_counter
) -> None:
    """Call `look` while the GPU works through runs that were started just before."""
    begin_s = clock_s()
    network.run()
    network.synchronize()
    run_s = clock_s() - begin_s
    for _ in range(math.ceil(LOAD_SECONDS / run_s) if run_s > 0 else 1):
        network.run()
    look()
    network.synchronize()


def judge_drift(measured: LatencyMeasurement) -> LatencyMeasurement:
    """Not converged, with the reason, if the last turns differ from the first."""
    lows_ms = [turn.low_ms for turn in measured.turns]
    third = len(lows_ms) // 3
    if not third:
        return measured
    change = median(lows_ms[-third:]) / median(lows_ms[:third]) - 1
    if abs(change) <= DRIFT:
        return measured
    verb = "rose" if change > 0 else "fell"
    remark = f"the timing {verb} by {abs(change):.0%} while it was taken: the GPU's clocks were moving"
    return replace(measured, converged=False, remarks=(*measured.remarks, remark))


def host_fraction(network: Timed, clock_s: Callable[[], float]) -> float:
    """The fraction of an inference that the CPU takes to start it: the median of some runs."""
    fractions = []
    for _ in range(NUM_EXTRA_SAMPLES):
        network.synchronize()
        begin_s = clock_s()
        network.run()
        started_s = clock_s()
        network.synchronize()
        total_s = clock_s() - begin_s
        fractions.append((started_s - begin_s) / total_s if total_s > 0 else 0.0)
    return median(fractions)


def with_host_fraction(measured: LatencyMeasurement, fraction: float) -> LatencyMeasurement:
    """The measurement, with a remark if the CPU is what limits."""
    if fraction <= HOST_BOUND:
        return measured
    remark = f"{BOUND_BY_HOST}: the CPU takes {fraction:.0%} of an inference to start it"
    return replace(measured, remarks=(*measured.remarks, remark))


def with_graph(
    measured: LatencyMeasurement, graph: Graph, *, clock_s: Callable[[], float] = time.perf_counter
) -> LatencyMeasurement:
    """The measurement, with what the network takes as a CUDA graph; a remark where it cannot be captured."""
    try:
        with graph() as captured:
            graph_ms = _median_ms(captured, clock_s)
    except (UserError, RuntimeError) as error:  # RuntimeError: torch's, of a capture that failed
        reason = " ".join(str(error).split())[:200]
        return replace(measured, remarks=(*measured.remarks, f"no CUDA graph could be made of it: {reason}"))
    measured = replace(measured, graph_ms=graph_ms)
    saved_ms = measured.median_ms - graph_ms
    if saved_ms <= LAUNCH_BOUND * measured.median_ms:
        return measured
    remark = (
        f"bound by launches: of {measured.median_ms:.3g} ms a CUDA graph would save {saved_ms:.3g} ms, "
        f"in which the GPU waits for the CPU"
    )
    return replace(measured, remarks=(*measured.remarks, remark))


def _median_ms(network: Timed, clock_s: Callable[[], float]) -> float:
    for _ in range(GRAPH_WARMUP_RUNS):
        network.run()
    network.synchronize()
    warm_s = clock_s() + WARMUP_SECONDS
    samples_ms: list[float] = []
    while len(samples_ms) < NUM_EXTRA_SAMPLES:
        begin_s = clock_s()
        network.run()
        network.synchronize()
        end_s = clock_s()
        if begin_s >= warm_s:
            samples_ms.append(1e3 * (end_s - begin_s))
    return median(samples_ms)
