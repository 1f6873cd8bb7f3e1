"""Timing every kernel where it runs: inside whole networks, with ONNX Runtime's own profiler.

A kernel timed alone carries the session's overhead and a cache state that it never has in a network. Here a
network is run as it will be deployed; the profiler says how long each node of the *optimised* graph took.
A node is described by a `Kernel` again, its `function` marking what ONNX Runtime's optimiser did to it:
`blocked` for the NCHWc layout (channels padded to the block size), `to_blocked` and `from_blocked` for the
reorders between the layouts, `view` for a reshape.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from dsonas_hw.errors import ProfileError
from dsonas_hw.kernel.spec import Kernel, Shape
from dsonas_hw.profile.measurement import GarbageCollectionOff, Turn
from dsonas_hw.profile.ort import open_ort_session
from dsonas_hw.profile.ort_layout import BLOCKED, FROM_BLOCKED, FROM_PLAIN, TO_BLOCKED, VIEW

#: ONNX operation → op of the kernel; for those with a `function`, see `_describe`.
OPS: dict[str, str] = {
    "Conv": "conv",
    "FusedConv": "conv",
    "NhwcFusedConv": "conv",
    "ConvTranspose": "conv_transpose",
    "Gemm": "gemm",
    "FusedGemm": "gemm",
    "MatMul": "matmul",
    "FusedMatMul": "matmul",
    "MaxPool": "maxpool",
    "AveragePool": "avgpool",
    "GlobalAveragePool": "global_avgpool",
    "GlobalMaxPool": "global_maxpool",
    "BatchNormalization": "batchnorm",
    "LayerNormalization": "layernorm",
    "InstanceNormalization": "instancenorm",
    "GroupNorm": "groupnorm",
    "LRN": "lrn",
    "Softmax": "softmax",
    "Sum": "sum",
    "Add": "sum",
    "Mul": "mul",
    "Sub": "sub",
    "Div": "div",
    "Concat": "concat",
    "Resize": "resize",
    "Upsample": "resize",
}
ACTIVATIONS = {"Clip": "relu"}  # `relu6` and `relu` are one comparison more or less
FUNCTIONS = {"QuickGelu": "silu"}
VIEWS = ("Flatten", "Reshape", "Squeeze", "Unsqueeze", "Identity", "Dropout")


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeTiming:
    """One node of the optimised graph: what it is, and how long it took."""

    kernel: Kernel
    latency_ms: float


@dataclass(frozen=True, kw_only=True)
class NetworkTiming:
    """All nodes of one network in the order they ran."""

    nodes: tuple[NodeTiming, ...]


class ProfiledSession:
    """A network running on ONNX Runtime's CPU provider under its profiler.

    Run it as often as you like, in turns with others; `finish` then tells how long each node took.
    """

    def __init__(self, model: bytes, *, threads: int = 1, batch_size: int = 1) -> None:
        """Load the network.

        Raises:
            ModelFileError: the runtime does not take the model.
        """
        self._folder = tempfile.TemporaryDirectory()
        self._optimised = Path(self._folder.name) / "optimised.onnx"

        def configure(options: Any) -> None:
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(self._folder.name) / "profile")
            options.optimized_model_filepath = str(self._optimised)

        named = _name_nodes(model)
        self._session = open_ort_session(named, threads=threads, batch_size=batch_size, configure=configure)

    def run(self) -> object:
        return self._session.run()

    def finish(self, turns: Sequence[Turn], yardstick_ms: float | None = None) -> NetworkTiming:
        """Close the session and read the profiler's output.

        turns: the runs there were, as `measure_together` counted them.
        yardstick_ms: state the timings at the speed at which the yardstick takes this long.

        Raises:
            ProfileError: the profiler's output is not understood (another version of ONNX Runtime).
        """
        try:
            trace = Path(self._session.session.end_profiling())
            self._session.close()
            with GarbageCollectionOff():  # it would look through every event again and again
                events = json.loads(trace.read_text())
                return _summarise(events, _read_nodes(self._optimised), turns, yardstick_ms)
        except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
            raise ProfileError(
                f"ONNX Runtime's profiler wrote something that is not understood ({error!r}); "
                "please report the version of onnxruntime"
            ) from error
        finally:
            self._folder.cleanup()


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
        with open_ort_session(
            model.SerializeToString(),
            configure=lambda options: setattr(options, "optimized_model_filepath", path),
        ):
            optimised = onnx.load(path).graph
    if not any(node.domain == "com.microsoft.nchwc" for node in optimised.node):
        return 0
    return max(int(tensor.dims[0]) for tensor in optimised.initializer if len(tensor.dims) == 4)


def _summarise(
    events: Sequence[Mapping[str, Any]],
    nodes: Mapping[str, Any],
    turns: Sequence[Turn],
    yardstick_ms: float | None,
) -> NetworkTiming:
    """Of every node: in each turn the mean of its runs, of the turns the middle.

    The profiler counts whole microseconds, so a mean says more than a median or a minimum. Runs in which the
    node took far longer than usual are left out, node by node: a long network is never undisturbed as a whole
    on a machine that others use, while each of its nodes mostly is.
    """
    runs: list[list[Mapping[str, Any]]] = []
    current: list[Mapping[str, Any]] = []
    for event in events:
        name = event["name"]
        if event["cat"] == "Node" and name.endswith("_kernel_time"):
            current.append(event)
        elif name == "model_run":
            runs.append(sorted(current, key=lambda e: e["ts"]))
            current = []
    durations_us = np.array([[event["dur"] for event in run] for run in runs], dtype=np.float64)
    rounds = []
    position = 0
    for turn in turns:
        position += turn.num_warmup
        taken = durations_us[position : position + turn.num_samples]
        position += turn.num_samples
        speed = yardstick_ms / turn.yardstick_ms if yardstick_ms and turn.yardstick_ms else 1.0
        limit = 1.25 * np.median(taken, axis=0) + 1
        rounds.append(np.nanmean(np.where(taken <= limit, taken, np.nan), axis=0) * speed)
    if position != len(runs):
        raise ValueError(f"{len(runs)} runs in the profile, {position} were made")
    timings: list[NodeTiming] = []
    for event, duration_us in zip(runs[0], np.median(rounds, axis=0), strict=True):
        kernels = _describe(event["args"], nodes.get(event["name"].removesuffix("_kernel_time")))
        share_ms = float(duration_us) / len(kernels) / 1e3
        timings.extend(NodeTiming(kernel=kernel, latency_ms=share_ms) for kernel in kernels)
    return NetworkTiming(nodes=tuple(timings))


def _name_nodes(model: bytes) -> bytes:
    """The model with a name for every node: the profiler's events know nodes by their names only."""
    import onnx

    proto = onnx.load_model_from_string(model)
    taken = {node.name for node in proto.graph.node}
    if "" not in taken:
        return model
    for index, node in enumerate(proto.graph.node):
        if not node.name:
            node.name = next(name for name in (f"n{index}", f"n{index}.{len(taken)}") if name not in taken)
    return bytes(proto.SerializeToString())


def _read_nodes(path: Path) -> dict[str, Any]:
    """Name → node of the optimised graph."""
    import onnx

    return {node.name: node for node in onnx.load(str(path)).graph.node if node.name}


def _describe(args: Mapping[str, Any], node: Any | None) -> tuple[Kernel, ...]:
    """The kernels that a profiler event and its node stand for; a split is one slice per output."""
    op_type: str = args["op_name"]
    if op_type in ("Split", "Slice"):
        outputs = [_shape(entry) for entry in args["output_type_shape"]]
        return tuple(Kernel(op="copy", function="slice", inputs=(shape,), output=shape) for shape in outputs)
    return (_describe_one(op_type, args, node),)


def _describe_one(op_type: str, args: Mapping[str, Any], node: Any | None) -> Kernel:
    shapes = [_shape(entry) for entry in args["input_type_shape"]]
    output = _shape(args["output_type_shape"][0])
    attributes = _attributes(node) if node is not None else {}
    blocked = node is not None and node.domain == "com.microsoft.nchwc"
    activation = attributes.get("activation")
    epilogue = (ACTIVATIONS.get(activation, activation.lower()),) if activation else ()
    function = BLOCKED if blocked else ""
    if op_type in ("ReorderInput", "ReorderOutput"):
        function = TO_BLOCKED if op_type == "ReorderInput" else FROM_BLOCKED
        return Kernel(op="copy", function=function, inputs=(shapes[0],), output=output)
    if op_type == "Transpose":
        return Kernel(op="copy", function="transpose", inputs=(shapes[0],), output=output)
    if op_type in VIEWS:
        return Kernel(op="copy", function=VIEW, inputs=(shapes[0],), output=output)
    op = OPS.get(op_type)
    if op == "conv":
        weight = shapes[1]
        if blocked and attributes.get("group", 1) == 1 and shapes[0][1] < native_block_size():
            function = FROM_PLAIN
        added = shapes[3:4]  # a residual that ONNX Runtime adds in the same kernel
        return Kernel(
            op="conv",
            function=function,
            inputs=(shapes[0], *added),
            output=output,
            kernel_size=_pair(weight[2:]),
            stride=_pair(attributes.get("strides", (1, 1))),
            dilation=_pair(attributes.get("dilations", (1, 1))),
            groups=attributes.get("group", 1),
            num_weights=prod(weight),
            num_bias=output[1] if len(shapes) > 2 else 0,
            epilogue=(("add",) if added else ()) + epilogue,
        )
    if op in ("maxpool", "avgpool"):
        return Kernel(
            op=op,
            function=function,
            inputs=(shapes[0],),
            output=output,
            kernel_size=_pair(attributes.get("kernel_shape", (1, 1))),
            stride=_pair(attributes.get("strides", (1, 1))),
        )
    if op == "gemm" or (op == "matmul" and len(shapes) == 1):
        # The weight is not counted from `shapes`: once it is packed in advance, they leave it out.
        has_bias = node is not None and len(node.input) > 2
        return Kernel(
            op="gemm",
            inputs=(shapes[0],),
            output=output,
            num_weights=shapes[0][-1] * output[-1],
            num_bias=output[-1] if has_bias else 0,
            epilogue=epilogue,
        )
    if op in ("sum", "mul", "sub", "div", "concat", "matmul"):
        return Kernel(op=op, function=function, inputs=tuple(shapes), output=output)
    if op is not None:
        return Kernel(op=op, function=function, inputs=(shapes[0],), output=output, epilogue=epilogue)
    return Kernel(
        op="unary", function=FUNCTIONS.get(op_type, op_type.lower()), inputs=(shapes[0],), output=output
    )


def _shape(entry: Mapping[str, Sequence[int]]) -> Shape:
    """`{"float": [1, 48, 32, 32]}` → the sizes; a scalar counts as one element."""
    (sizes,) = entry.values()
    return tuple(max(1, int(size)) for size in sizes) or (1,)


def _pair(values: Sequence[int]) -> tuple[int, int]:
    return (int(values[0]), int(values[1])) if len(values) > 1 else (1, int(values[0]))


def _attributes(node: Any) -> dict[str, Any]:
    import onnx

    found: dict[str, Any] = {}
    for attribute in node.attribute:
        value = onnx.helper.get_attribute_value(attribute)
        found[attribute.name] = value.decode() if isinstance(value, bytes) else value
    return found
