"""Timing every kernel where it runs, with PyTorch: each call is annotated, CUPTI says what it launched."""

from __future__ import annotations

from collections.abc import Sequence

from dsonas_hw.measure.measurement import Turn
from dsonas_hw.runtime.attribution import schedule_of, time_kernels
from dsonas_hw.runtime.base import NetworkTiming
from dsonas_hw.runtime.cupti import RUN, Recorder, Span
from dsonas_hw.runtime.eager.session import EagerSession
from dsonas_hw.runtime.launched import node_times
from dsonas_hw.runtime.model import onnx_graph
from dsonas_hw.target import Target

NODE = "dsonas-hw node "
"""Annotates every call, before the name of the tensor that it makes."""


class EagerProfiledSession:
    """A network on the GPU while PyTorch's profiler watches."""

    def __init__(self, model: bytes, target: Target, plain: EagerSession) -> None:
        self._graph = onnx_graph(model)
        self._schedule = schedule_of(model, target, fuse=False)
        self._recorder = Recorder()
        self._session = plain.watched(lambda tensor: self._recorder.span(f"{NODE}{tensor}"))
        self._recorder.start()

    def run(self) -> object:
        return self._recorder.run(self._session)

    def finish(self, turns: Sequence[Turn], speeds: Sequence[float] = ()) -> NetworkTiming:
        trace = self._recorder.stop()
        self._session.close()
        nodes = spans_inside(trace.spans(RUN), trace.spans(NODE))
        tensors = {name: (name,) for node in self._graph.node for name in node.output}
        return time_kernels(node_times(nodes, trace.gpu_work(), turns, tensors), self._graph, self._schedule)


def spans_inside(outer: Sequence[Span], inner: Sequence[Span]) -> list[list[Span]]:
    """Those of the inner spans that lie in each of the outer ones; both in their order."""
    return [
        [span for span in inner if whole.begin_us <= span.begin_us and span.end_us <= whole.end_us]
        for whole in outer
    ]
