"""Operations that work element by element."""

from __future__ import annotations

from dsonas_hw.kernel.onnx.graph import Constant, Node
from dsonas_hw.kernel.onnx.lower import Lowering, LowerNode, lower_as
from dsonas_hw.kernel.spec import Shape


def _activation(lowering: Lowering, node: Node) -> None:
    """What `patterns` recognised."""
    lower_as("unary", node.attributes["function"])(lowering, node)


def _clip(lowering: Lowering, node: Node) -> None:
    low, high = (_bound(lowering, node, key, index) for key, index in (("min", 1), ("max", 2)))
    function = "clip"
    if low == 0:
        function = {None: "relu", 6.0: "relu6"}.get(high, "clip")
    lower_as("unary", function)(lowering, node)


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
    biases = lowering.constants([slope])
    lowering.emit("unary", [node.inputs[0]], node.outputs[0], function="prelu", biases=biases)


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
        weights = lowering.constants(node.inputs)
        if op == "binary" and len(reads) == 1 and not weights:
            lowering.emit("unary", reads, node.outputs[0], function=function)
            return
        lowering.emit(
            op,
            reads,
            node.outputs[0],
            function=function,
            weights=weights,
            channel_axes=axes,
            written_as=node.op if node.op == "Add" else "",
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
    """Return the axes of `shape` along which a broadcast constant varies, if it may vary by channel only."""
    dims = (1,) * (len(shape) - len(constant.shape)) + constant.shape
    varying = [axis for axis, dim in enumerate(dims) if dim != 1]
    if not varying:
        return frozenset(range(len(shape)))
    return frozenset(varying) if len(varying) == 1 else frozenset()


# fmt: off
LOWER_CASE = [
    "Relu", "LeakyRelu", "ThresholdedRelu", "Elu", "Selu", "Celu", "Gelu", "Mish", "HardSwish", "Sigmoid",
    "HardSigmoid", "Tanh", "Softplus", "Softsign", "Shrink", "Exp", "Log", "Sqrt", "Abs", "Neg", "Erf",
    "Reciprocal", "Floor", "Ceil", "Round", "Sign", "Sin", "Cos", "Tan", "Asin", "Acos", "Atan", "Sinh",
    "Cosh", "Asinh", "Acosh", "Atanh", "Not", "IsNaN", "IsInf", "BitwiseNot", "Cast", "CastLike",
]
BINARY = [
    "Pow", "Min", "Max", "Mod", "And", "Or", "Xor", "Equal", "Less", "LessOrEqual", "Greater",
    "GreaterOrEqual", "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Where",
]
# fmt: on

ELEMENTWISE_LOWERINGS: dict[str, LowerNode] = {
    **{op: lower_as("unary", op.lower()) for op in LOWER_CASE},
    "Swish": lower_as("unary", "silu"),
    "FastGelu": lower_as("unary", "gelu"),
    "QuickGelu": lower_as("unary", "quickgelu"),
    "QuantizeLinear": lower_as("unary", "quantize"),
    "DequantizeLinear": lower_as("unary", "dequantize"),
    "DynamicQuantizeLinear": lower_as("unary", "dynamicquantize"),
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
}
