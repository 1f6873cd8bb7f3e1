"""What a node of ONNX Runtime's optimised graph is, as a `Kernel`: the same words that `layout` uses.

The profiler tells the shapes of a node, the optimised model its attributes and which of its inputs are
weights. What became of a node in the optimiser is in the kernel's `function`; see `layout`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

from dsonas_hw.kernel.onnx.graph import Graph
from dsonas_hw.kernel.onnx.load import load_model
from dsonas_hw.kernel.onnx.lower import window
from dsonas_hw.kernel.onnx.lower_elementwise import BINARY
from dsonas_hw.kernel.onnx.lower_graph import lower_graph
from dsonas_hw.kernel.onnx.shapes import read_graph
from dsonas_hw.kernel.spec import Kernel, Shape
from dsonas_hw.runtime.ort_cpu.layout import BLOCKED, FROM_BLOCKED, FROM_PLAIN, TO_BLOCKED, VIEW

#: ONNX operation → op of the kernel; for those with a `function`, see `_describe_one`.
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
FUNCTIONS = {"QuickGelu": "silu", "Clip": "relu"}
VIEWS = ("Flatten", "Reshape", "Squeeze", "Unsqueeze", "Identity", "Dropout")
READ_AS_IN_FILES = (
    "Attention",
    "QAttention",
    "MultiHeadAttention",
    "GroupQueryAttention",
    "MatMulNBits",
    "Einsum",
    "DeformConv",
    "LSTM",
    "GRU",
    "RNN",
    "Gather",
    "GatherElements",
    "GatherND",
)
"""Nodes that the optimiser leaves as they are: their kernels are those that the reader of files sees."""
STATISTICS_OF_INPUT = ("layernorm", "instancenorm", "groupnorm")


@dataclass(frozen=True, kw_only=True)
class OptimisedGraph:
    """What the optimised model says about its nodes."""

    model: Any
    nodes: Mapping[str, Any]
    """Name → ONNX node."""
    constants: Mapping[str, Shape]
    """Name → shape of each initialiser."""

    @cached_property
    def _graph(self) -> Graph:
        return read_graph(*load_model(self.model), None, {})[0]

    def kernels_of(self, name: str) -> tuple[Kernel, ...]:
        """Return the kernels that the reader of files sees in a node; none if it does not know it."""
        nodes = [node for node in self._graph.nodes if node.name == name]
        lowered = lower_graph(replace(self._graph, nodes=nodes, outputs=()))
        return tuple(step.kernel for step in lowered.schedule.kernels)


def read_optimised(path: Path) -> OptimisedGraph:
    """The graph that ONNX Runtime wrote after optimising a model."""
    import onnx

    model = onnx.load(str(path))
    graph = model.graph
    return OptimisedGraph(
        model=model,
        nodes={node.name: node for node in graph.node if node.name},
        constants={tensor.name: tuple(tensor.dims) for tensor in graph.initializer},
    )


def describe_node(
    name: str, args: Mapping[str, Any], graph: OptimisedGraph, block_size: int
) -> tuple[Kernel, ...]:
    """The kernels that one profiler event stands for: a split is one slice per output, attention several.

    name: of the node; args: of the event; block_size: channels of one block of the NCHWc layout here.
    """
    op_type: str = args["op_name"]
    if op_type in READ_AS_IN_FILES and (kernels := graph.kernels_of(name)):
        return kernels
    if op_type in ("Split", "Slice"):
        outputs = [_shape(entry) for entry in args["output_type_shape"]]
        return tuple(Kernel(op="copy", function="slice", inputs=(shape,), output=shape) for shape in outputs)
    return (_describe_one(op_type, args, graph.nodes.get(name), graph.constants, block_size),)


def _describe_one(
    op_type: str, args: Mapping[str, Any], node: Any | None, constants: Mapping[str, Shape], block_size: int
) -> Kernel:
    shapes = [_shape(entry) for entry in args["input_type_shape"]]
    output = _shape(args["output_type_shape"][0])
    attributes = _attributes(node) if node is not None else {}
    names = list(node.input) if node is not None else []
    blocked = node is not None and node.domain == "com.microsoft.nchwc"
    activation = attributes.get("activation")
    epilogue = (ACTIVATIONS.get(activation, activation.lower()),) if activation else ()
    function = BLOCKED if blocked else ""
    if op_type in ("ReorderInput", "ReorderOutput"):
        function = TO_BLOCKED if op_type == "ReorderInput" else FROM_BLOCKED
        return Kernel(op="copy", function=function, inputs=(shapes[0],), output=output)
    if op_type == "Transpose":
        function = "transpose" if _moves_elements(shapes[0], attributes) else VIEW
        return Kernel(op="copy", function=function, inputs=(shapes[0],), output=output)
    if op_type in VIEWS:
        return Kernel(op="copy", function=VIEW, inputs=(shapes[0],), output=output)
    op = OPS.get(op_type)
    if op in ("conv", "conv_transpose"):
        # Inputs are image, weight, bias and a residual that is added in the same kernel. The runtime packs
        # some weights, which then are no inputs that its profile lists.
        weight = constants[names[1]] if len(names) > 1 and names[1] in constants else shapes[1]
        if blocked and attributes.get("group", 1) == 1 and shapes[0][1] < block_size:
            function = FROM_PLAIN
        added = (output,) if len(names) > 3 and names[3] else ()
        return Kernel(
            op=op,
            function=function,
            inputs=(shapes[0], *added),
            output=output,
            kernel_size=window(weight[2:], len(output)),
            stride=window(attributes.get("strides"), len(output)),
            dilation=window(attributes.get("dilations"), len(output)),
            groups=attributes.get("group", 1),
            num_weights=prod(weight),
            num_bias=output[1] if len(names) > 2 and names[2] else 0,
            epilogue=(("add",) if added else ()) + epilogue,
        )
    if op in ("maxpool", "avgpool"):
        return Kernel(
            op=op,
            function=function,
            inputs=(shapes[0],),
            output=output,
            kernel_size=window(attributes.get("kernel_shape"), len(output)),
            stride=window(attributes.get("strides"), len(output)),
            dilation=window(attributes.get("dilations"), len(output)),
        )
    if op == "gemm" or (op == "matmul" and len(names) > 1 and names[1] in constants):
        # The weight is not counted from `shapes`: once it is packed in advance, they leave it out.
        return Kernel(
            op="gemm",
            inputs=(shapes[0],),
            output=output,
            num_weights=shapes[0][-1] * output[-1],
            num_bias=output[-1] if len(names) > 2 and names[2] else 0,
            epilogue=epilogue,
        )
    if op in ("sum", "mul", "sub", "div", "concat") or op_type in BINARY:
        return _elementwise(op or "binary", "" if op else op_type.lower(), shapes, names, constants, output)
    if op == "matmul":
        return Kernel(op=op, inputs=tuple(shapes), output=output)
    if op is not None:
        num_bias = sum(prod(shape) for shape in shapes[1:]) if op in STATISTICS_OF_INPUT else 0
        return Kernel(
            op=op, function=function, inputs=(shapes[0],), output=output, num_bias=num_bias, epilogue=epilogue
        )
    if op_type.startswith("Reduce"):
        return Kernel(
            op="reduce", function=op_type.removeprefix("Reduce").lower(), inputs=(shapes[0],), output=output
        )
    return Kernel(
        op="unary", function=FUNCTIONS.get(op_type, op_type.lower()), inputs=(shapes[0],), output=output
    )


def _elementwise(
    op: str,
    function: str,
    shapes: Sequence[Shape],
    names: Sequence[str],
    constants: Mapping[str, Shape],
    output: Shape,
) -> Kernel:
    """Arithmetic on any number of operands; constant ones are weights, a single number is code."""
    is_constant = [name in constants for name in names] or [False] * len(shapes)
    inputs = tuple(shape for shape, stored in zip(shapes, is_constant, strict=True) if not stored)
    sizes = [prod(shape) for shape, stored in zip(shapes, is_constant, strict=True) if stored]
    num_weights = sum(size for size in sizes if size > 1)
    if op == "binary" and len(inputs) == 1 and not num_weights:
        op = "unary"
    return Kernel(op=op, function=function, inputs=inputs, output=output, num_weights=num_weights)


def _moves_elements(shape: Shape, attributes: Mapping[str, Any]) -> bool:
    """Whether a transpose does more than to reorder axes of length one."""
    axes = [axis for axis in attributes.get("perm", range(len(shape))[::-1]) if shape[axis] != 1]
    return axes != sorted(axes)


def _shape(entry: Mapping[str, Sequence[int]]) -> Shape:
    """`{"float": [1, 48, 32, 32]}` → the sizes; a scalar counts as one element."""
    (sizes,) = entry.values()
    return tuple(max(1, int(size)) for size in sizes) or (1,)


def _attributes(node: Any) -> dict[str, Any]:
    import onnx

    found: dict[str, Any] = {}
    for attribute in node.attribute:
        value = onnx.helper.get_attribute_value(attribute)
        found[attribute.name] = value.decode() if isinstance(value, bytes) else value
    return found
