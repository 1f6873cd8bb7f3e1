"""From spans of nodes on the CPU, and what was launched in them, to the GPU's time of every node."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import median

from dsonas_hw.errors import ProfileError
from dsonas_hw.measure.measurement import Turn
from dsonas_hw.runtime.attribution import LayerTime
from dsonas_hw.runtime.cupti import GpuWork, Span

MAX_DISTANCE_US = 20.0
"""Between a launch and the span of its node: their clocks may be apart by a few microseconds."""


def node_times(
    runs: Sequence[Sequence[Span]],
    work: Sequence[GpuWork],
    turns: Sequence[Turn],
    tensors: Mapping[str, tuple[str, ...]],
) -> list[LayerTime]:
    """Return the time of every node: the median of the runs that count.

    runs: of every inference the spans of its nodes, in their order, by the clock of `work`.
    turns: which inferences warmed up and which count.
    tensors: name of a node → what it writes.

    Raises:
        ProfileError: inferences are missing, or hold different nodes.
    """
    counted = _counted(runs, turns)
    names = [span.name for span in counted[0]]
    if not names or any([span.name for span in run] != names for run in counted):
        raise ProfileError("the trace is not complete: its inferences do not run the same nodes")
    times_ms: list[list[float]] = []
    elsewhere_ms: dict[str, float] = defaultdict(float)
    for run in counted:
        first = bisect_right(work, run[0].begin_us - MAX_DISTANCE_US, key=lambda item: item.launched_us)
        last = bisect_right(work, run[-1].end_us + MAX_DISTANCE_US, key=lambda item: item.launched_us)
        run_ms, elsewhere = work_of_spans(work[first:last], run)
        times_ms.append(run_ms)
        for item in elsewhere:
            elsewhere_ms[item.name] += item.latency_ms / len(counted)
    layers = [
        LayerTime(name=name, tensors=tensors.get(name, ()), latency_ms=median(column))
        for name, column in zip(names, zip(*times_ms, strict=True), strict=True)
        if any(column)
    ]
    return layers + [
        LayerTime(name=name, tensors=(), latency_ms=latency_ms) for name, latency_ms in elsewhere_ms.items()
    ]


def work_of_spans(work: Sequence[GpuWork], of: Sequence[Span]) -> tuple[list[float], list[GpuWork]]:
    """The GPU's time of what was launched in each span, in ms; and what was launched near none.

    of: spans in their order, which do not overlap.
    """
    begins = [span.begin_us for span in of]
    times_ms = [0.0] * len(of)
    elsewhere = []
    for item in work:
        after = bisect_right(begins, item.launched_us)
        near = [index for index in (after - 1, after) if 0 <= index < len(of)]
        index = min(near, key=lambda index: _distance_us(of[index], item.launched_us))
        if _distance_us(of[index], item.launched_us) <= MAX_DISTANCE_US:
            times_ms[index] += item.latency_ms
        else:
            elsewhere.append(item)
    return times_ms, elsewhere


def _distance_us(span: Span, moment_us: float) -> float:
    return max(span.begin_us - moment_us, moment_us - span.end_us, 0.0)


def _counted(runs: Sequence[Sequence[Span]], turns: Sequence[Turn]) -> list[Sequence[Span]]:
    """The runs that are samples."""
    counted: list[Sequence[Span]] = []
    position = 0
    for turn in turns:
        position += turn.num_warmup
        counted += runs[position : position + turn.num_samples]
        position += turn.num_samples
    if position != len(runs) or not counted:
        raise ProfileError(f"the trace is not complete: it holds {len(runs)} of {position} inferences")
    return counted
