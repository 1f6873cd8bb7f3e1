"""Timing every kernel where it runs, with ONNX Runtime's CUDA provider.

ONNX Runtime's profiler says when the CPU was at work on each node of the optimised graph (the wheels are
built without its own records of the GPU), CUPTI's records say what was launched when, and what that took. The
two clocks are the system's; the annotation around every inference bounds what may be between them.
"""

from __future__ import annotations

from collections.abc import Sequence

from dsonas_hw.errors import ProfileError
from dsonas_hw.kernel.network import Schedule
from dsonas_hw.measure.measurement import Turn
from dsonas_hw.runtime.attribution import tensors_of_nodes, time_kernels
from dsonas_hw.runtime.base import NetworkTiming
from dsonas_hw.runtime.cupti import RUN, Recorder, Span
from dsonas_hw.runtime.launched import node_times
from dsonas_hw.runtime.ort.provider import Provider
from dsonas_hw.runtime.ort.session import open_ort_session
from dsonas_hw.runtime.ort.trace import EVENT_SUFFIX, OrtProfiler, OrtRun
from dsonas_hw.target import Target

MAX_CLOCK_ERROR_US = 100.0
"""Seen on a busy CPU: 5 µs usually, 80 µs in the first inference."""


class CudaProfiledSession:
    """A network on the CUDA provider while both profilers watch."""

    def __init__(self, data: bytes, schedule: Schedule, target: Target, provider: Provider) -> None:
        """schedule: of the network as it was before it was made half precision."""
        self._schedule = schedule
        self._profiler = OrtProfiler()
        self._session = open_ort_session(data, target, provider, configure=self._profiler.configure)
        self._begin_us = self._session.session.get_profiling_start_time_ns() / 1e3
        self._recorder = Recorder()
        self._recorder.start()

    def run(self) -> object:
        return self._recorder.run(self._session)

    def finish(self, turns: Sequence[Turn], speeds: Sequence[float] = ()) -> NetworkTiming:
        import onnx

        trace = self._recorder.stop()
        with self._profiler.ending(self._session) as runs:
            graph = onnx.load(str(self._profiler.optimised_path)).graph
            nodes = node_spans(runs, trace.spans(RUN), offset_us=self._begin_us - trace.epoch_us)
            layers = node_times(nodes, trace.gpu_work(), turns, tensors_of_nodes(graph))
            return time_kernels(layers, graph, self._schedule)


def node_spans(runs: Sequence[OrtRun], annotated: Sequence[Span], *, offset_us: float) -> list[list[Span]]:
    """When the CPU was at work on every node, inference by inference, by the clock of the annotations.

    offset_us: between the clocks, as the system's say; the annotation around an inference bounds it.

    Raises:
        ProfileError: the clocks do not agree, so that nobody knows which node launched what.
    """
    found = []
    for run, outer in zip(runs, annotated, strict=True):
        whole = _span(run.whole["name"], run.whole["ts"], run.whole["dur"])
        least_us, most_us = outer.begin_us - whole.begin_us, outer.end_us - whole.end_us
        shift_us = max(least_us, min(offset_us, most_us))
        if abs(shift_us - offset_us) > MAX_CLOCK_ERROR_US:
            raise ProfileError(
                "the clocks of ONNX Runtime's profiler and of PyTorch's are "
                f"{abs(shift_us - offset_us):.0f} µs apart, so kernels cannot be told apart; run it again"
            )
        found.append(
            [
                _span(event["name"].removesuffix(EVENT_SUFFIX), event["ts"], event["dur"]).shifted(shift_us)
                for event in run.nodes
            ]
        )
    return found


def _span(name: str, begin_us: float, duration_us: float) -> Span:
    return Span(name=name, begin_us=float(begin_us), end_us=float(begin_us) + float(duration_us))
