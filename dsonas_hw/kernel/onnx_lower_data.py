"""Operations that work element by element, that move data, or that only look at it differently."""

from __future__ import annotations

from dsonas_hw.kernel.onnx_graph import Constant, Node
from dsonas_hw.kernel.onnx_lower import Lowering, LowerNode
from dsonas_hw.kernel.spec import Shape


def _view(lowering: Lowering, node: Node) -> None:
    lowering.view(node.outputs[0], node.inputs[0])


def _unary(function: str) -> LowerNode:
    def lower(lowering: Lowering, node: Node) -> None:
        lowering.emit("unary", [node.inputs[0]], node.outputs[0], function=function)

    return lower


def _activation(lowering: Lowering, node: Node) -> None:
    """What `onnx_patterns` recognised."""
    _unary(node.attributes["function"])(lowering, node)


def _clip(lowering: Lowering, node: Node) -> None:
    low, high = (_bound(lowering, node, key, index) for key, index in (("min", 1), ("max", 2)))
    function = "clip"
    if low == 0:
        function = {None: "relu", 6.0: "relu6"}.get(high, "clip")
    _unary(function)(lowering, node)


def _bound(lowering: Lowering, node: Node, key: str, index: int) -> float | None:
    """A bound of Clip: an attribute in old opsets, an input in new ones; None if open."""
    if key in node.attributes:
        value = float(node.attributes[key])
        return value if abs(value) < 3e38 else None
    if not node.input(index):
        return None
    constant = lowering.graph.constants.get(node.input(index))
    scalar = constant.scalar if constant else None
    return float("nan") if scalar is None else scalar


def _prelu(lowering: Lowering, node: Node) -> None:
    slope = node.inputs[1]
    if lowering.graph.is_activation(slope):
        lowering.emit("binary", node.inputs[:2], node.outputs[0], function="prelu")
        return
    num_bias = lowering.num_stored([slope])
    lowering.emit("unary", [node.inputs[0]], node.outputs[0], function="prelu", num_bias=num_bias)


def _elementwise(op: str, function: str = "", *, affine: bool = False) -> LowerNode:
    """Arithmetic on any number of operands; constant operands are weights."""

    def lower(lowering: Lowering, node: Node) -> None:
        reads = lowering.activations(node)
        axes: frozenset[int] = frozenset()
        if affine and len(reads) == 1 and (op != "div" or node.inputs[0] == reads[0]):
            axes = _channel_axes(lowering, node, reads[0])
        if len(reads) == len(node.inputs) == 1:
            lowering.view(node.outputs[0], reads[0])  # the sum of one operand
            return
        num_weights = lowering.num_stored(node.inputs)
        if op == "binary" and len(reads) == 1 and num_weights == 0:
            lowering.emit("unary", reads, node.outputs[0], function=function)
            return
        lowering.emit(
            op, reads, node.outputs[0], function=function, num_weights=num_weights, channel_axes=axes
        )

    return lower


def _channel_axes(lowering: Lowering, node: Node, activation: str) -> frozenset[int]:
    """Axes of the activation along which the constant operands vary, if they all agree on one."""
    shape = lowering.shape(activation)
    if lowering.shape(node.outputs[0]) != shape:
        return frozenset()
    axes = frozenset(range(len(shape)))
    for name in node.inputs:
        if name != activation:
            axes &= varying_axes(lowering.graph.constants[name], shape)
    return axes


def varying_axes(constant: Constant, shape: Shape) -> frozenset[int]:
    """Axes of `shape` that could hold the channels if a broadcast constant varies along channels only."""
    dims = (1,) * (len(shape) - len(constant.shape)) + constant.shape
    varying = [axis for axis, dim in enumerate(dims) if dim != 1]
    if not varying:
        return frozenset(range(len(shape)))
    return frozenset(varying) if len(varying) == 1 else frozenset()


def _copy(function: str, *, reads_region: bool = False) -> LowerNode:
    """Elements go to another place; with `reads_region` only those are read that arrive."""

    def lower(lowering: Lowering, node: Node) -> None:
        source, output = node.inputs[0], node.outputs[0]
        if lowering.shape(source) == lowering.shape(output):
            lowering.view(output, source)
            return
        inputs = (lowering.shape(output if reads_region else source),)
        lowering.emit("copy", [source], output, inputs=inputs, function=function)

    return lower


def _transpose(lowering: Lowering, node: Node) -> None:
    shape = lowering.shape(node.inputs[0])
    perm = list(node.attributes.get("perm", range(len(shape))[::-1]))
    moved = [axis for axis in perm if shape[axis] != 1]
    if moved == sorted(moved):
        lowering.view(node.outputs[0], node.inputs[0])
        return
    lowering.emit("copy", [node.inputs[0]], node.outputs[0], function="transpose")


def _pad(lowering: Lowering, node: Node) -> None:
    """Padding with zeros, which a convolution could do itself, or with something else."""
    mode = str(node.attributes.get("mode", "constant"))
    constant = lowering.graph.constants.get(node.input(2))
    value = node.attributes.get("value", 0) if not node.input(2) else constant.scalar if constant else None
    function = "pad" if mode == "constant" and value == 0 else f"pad_{mode}"
    _copy(function)(lowering, node)


def _split(lowering: Lowering, node: Node) -> None:
    """One kernel writes all parts, which lie in one buffer."""
    parts = [name for name in node.outputs if name]
    if len(parts) == 1:
        lowering.view(parts[0], node.inputs[0])
        return
    shape = lowering.shape(node.inputs[0])
    lowering.emit("copy", [node.inputs[0]], parts[0], inputs=(shape,), output=shape, function="split")
    for part in parts[1:]:
        lowering.view(part, parts[0])


def _concat(lowering: Lowering, node: Node) -> None:
    reads = lowering.activations(node)
    if len(node.inputs) == 1:
        lowering.view(node.outputs[0], reads[0])
        return
    lowering.emit("concat", reads, node.outputs[0], num_weights=lowering.num_stored(node.inputs))


def _gather(function: str) -> LowerNode:
    """Only the elements that arrive are read, so a stored table counts as params, not as mac."""

    def lower(lowering: Lowering, node: Node) -> None:
        data, indices = node.inputs[:2]
        output = lowering.shape(node.outputs[0])
        reads = [name for name in (data, indices) if lowering.graph.is_activation(name)]
        shapes = [output if name == data else lowering.shape(name) for name in reads]
        if data in lowering.graph.constants:
            shapes = [output, *shapes]
        lowering.emit(
            "copy",
            reads,
            node.outputs[0],
            inputs=tuple(shapes),
            function=function,
            num_bias=lowering.num_stored([data]),
        )

    return lower


def _resize(lowering: Lowering, node: Node) -> None:
    if lowering.shape(node.inputs[0]) == lowering.shape(node.outputs[0]):
        lowering.view(node.outputs[0], node.inputs[0])
        return
    mode = str(node.attributes.get("mode", "nearest"))
    lowering.emit("resize", [node.inputs[0]], node.outputs[0], function=mode)


UNARY = {
    **{
        name: name.lower()
        for name in ["Relu", "Sigmoid", "Tanh", "Elu", "Selu", "Celu", "Softplus", "Softsign", "Mish", "Gelu"]
    },
    **{name: name.lower() for name in ["LeakyRelu", "ThresholdedRelu", "HardSwish", "HardSigmoid"]},
    **{
        name: name.lower()
        for name in [
            "Exp",
            "Log",
            "Sqrt",
            "Abs",
            "Neg",
            "Erf",
            "Reciprocal",
            "Floor",
            "Ceil",
            "Round",
            "Sign",
        ]
    },
    **{
        name: name.lower()
        for name in ["Sin", "Cos", "Tan", "Asin", "Acos", "Atan", "Sinh", "Cosh", "Asinh", "Acosh", "Atanh"]
    },
    **{name: name.lower() for name in ["Not", "IsNaN", "IsInf", "BitwiseNot", "Cast", "CastLike", "Shrink"]},
    "Swish": "silu",
    "FastGelu": "gelu",
    "QuickGelu": "quickgelu",
    "QuantizeLinear": "quantize",
    "DequantizeLinear": "dequantize",
}
BINARY = [
    "Pow",
    "Min",
    "Max",
    "Mod",
    "And",
    "Or",
    "Xor",
    "Equal",
    "Less",
    "LessOrEqual",
    "Greater",
    "GreaterOrEqual",
    "BitShift",
    "BitwiseAnd",
    "BitwiseOr",
    "BitwiseXor",
    "Where",
]

DATA_LOWERINGS: dict[str, LowerNode] = {
    **dict.fromkeys(("Identity", "Dropout", "Reshape", "Flatten", "Squeeze", "Unsqueeze"), _view),
    **{op: _unary(function) for op, function in UNARY.items()},
    "Activation": _activation,
    "Clip": _clip,
    "PRelu": _prelu,
    "Add": _elementwise("sum", affine=True),
    "Sum": _elementwise("sum", affine=True),
    "Mean": _elementwise("sum", "mean"),
    "Mul": _elementwise("mul", affine=True),
    "Sub": _elementwise("sub", affine=True),
    "Div": _elementwise("div", affine=True),
    **{op: _elementwise("binary", op.lower()) for op in BINARY},
    "Expand": _copy("expand"),
    "Tile": _copy("tile"),
    "Slice": _copy("slice", reads_region=True),
    "DepthToSpace": _copy("depthtospace"),
    "SpaceToDepth": _copy("spacetodepth"),
    "Transpose": _transpose,
    "Pad": _pad,
    "Split": _split,
    "Concat": _concat,
    "Gather": _gather("gather"),
    "GatherElements": _gather("gather"),
    "GatherND": _gather("gather"),
    "Resize": _resize,
    "Upsample": _resize,
}
