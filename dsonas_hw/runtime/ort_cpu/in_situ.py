"""Timing every kernel where it runs: inside whole networks, with ONNX Runtime's own profiler.

A kernel timed alone carries the session's overhead and a cache state that it never has in a network. Here a
network is run as it will be deployed; the profiler says how long each node of the *optimised* graph took.
A node is described by a `Kernel` again (`nodes`), its `function` marking what ONNX Runtime's optimiser
did to it. Law: these are the kernels that `layout` derives (tested there; see its docstring).
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from dsonas_hw.kernel.onnx.unknown import work_of
from dsonas_hw.kernel.spec import Kernel
from dsonas_hw.measure.measurement import Turn
from dsonas_hw.runtime.base import NetworkTiming, NodeTiming
from dsonas_hw.runtime.model import name_nodes
from dsonas_hw.runtime.ort.trace import EVENT_SUFFIX, Event, OrtProfiler
from dsonas_hw.runtime.ort_cpu.nodes import describe_node, read_optimised
from dsonas_hw.runtime.ort_cpu.session import open_cpu_session
from dsonas_hw.target import Target


class OrtProfiledSession:
    """A network running on ONNX Runtime's CPU provider under its profiler.

    Run it as often as you like, in turns with others; `finish` then tells how long each node took.
    """

    def __init__(self, model: bytes, target: Target, *, with_blocks: bool = True) -> None:
        """Load the network.

        with_blocks: False leaves every tensor as NCHW, as on a processor without a blocked layout.

        Raises:
            ModelFileError: the runtime does not take the model.
        """
        self._profiler = OrtProfiler()

        def configure(options: Any) -> None:
            self._profiler.configure(options)
            if not with_blocks:
                options.add_session_config_entry(
                    "optimization.disable_specified_optimizers", "NchwcTransformer"
                )

        self._block_size = native_block_size() if with_blocks else 0
        self._session = open_cpu_session(name_nodes(model), target, configure=configure)

    def run(self) -> object:
        return self._session.run()

    def finish(self, turns: Sequence[Turn], speeds: Sequence[float] = ()) -> NetworkTiming:
        """Close the session and read the profiler's output.

        turns: the runs there were, as `measure_together` counted them.
        speeds: what to multiply the timings of each turn by; none: they stay as they are.

        Raises:
            ProfileError: the profiler's output is not understood (another version of ONNX Runtime).
        """
        with self._profiler.ending(self._session) as runs:
            graph = read_optimised(self._profiler.optimised_path)
            kernels = [
                describe_node(
                    event["name"].removesuffix(EVENT_SUFFIX), event["args"], graph, self._block_size
                )
                for event in runs[0].nodes
            ]
            return _summarise([run.nodes for run in runs], kernels, turns, speeds)


@cache
def native_block_size() -> int:
    """Channels of one block of ONNX Runtime's layout on this machine; 0 where it has none.

    Asked of the runtime: how it pads the four filters of a convolution.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weight = numpy_helper.from_array(np.ones((4, 3, 1, 1), np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"])],
        "probe",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 4, 4])],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "optimised.onnx")
        with open_cpu_session(
            model.SerializeToString(),
            Target(runtime="ort-cpu"),
            configure=lambda options: setattr(options, "optimized_model_filepath", path),
        ):
            optimised = onnx.load(path).graph
    if not any(node.domain == "com.microsoft.nchwc" for node in optimised.node):
        return 0
    return max(int(tensor.dims[0]) for tensor in optimised.initializer if len(tensor.dims) == 4)


def _summarise(
    runs: Sequence[Sequence[Event]],
    kernels: Sequence[tuple[Kernel, ...]],
    turns: Sequence[Turn],
    speeds: Sequence[float],
) -> NetworkTiming:
    """Of every node: in each turn the mean of its runs, of the turns the middle.

    The profiler counts whole microseconds, so a mean says more than a median or a minimum. Runs in which the
    node took far longer than usual are left out, node by node: a long network is never undisturbed as a whole
    on a machine that others use, while each of its nodes mostly is.
    """
    durations_us = np.array([[event["dur"] for event in run] for run in runs], dtype=np.float64)
    rounds = []
    position = 0
    for turn, speed in zip(turns, speeds or (1.0,) * len(turns), strict=True):
        position += turn.num_warmup
        taken = durations_us[position : position + turn.num_samples]
        position += turn.num_samples
        limit = 1.25 * np.median(taken, axis=0) + 1
        rounds.append(np.nanmean(np.where(taken <= limit, taken, np.nan), axis=0) * speed)
    if position != len(runs):
        raise ValueError(f"{len(runs)} runs in the profile, {position} were made")
    timings: list[NodeTiming] = []
    for described, duration_us in zip(kernels, np.median(rounds, axis=0), strict=True):
        work = [work_of(kernel) for kernel in described]
        timings.extend(
            NodeTiming(kernel=kernel, latency_ms=float(duration_us) / 1e3 * part / sum(work))
            for kernel, part in zip(described, work, strict=True)
        )
    return NetworkTiming(nodes=tuple(timings))
