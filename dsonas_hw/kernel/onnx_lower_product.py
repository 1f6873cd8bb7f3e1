"""Convolutions and matrix products."""

from __future__ import annotations

from math import prod

from dsonas_hw.kernel.onnx_graph import Node
from dsonas_hw.kernel.onnx_lower import Lowering, LowerNode, UnknownOperationError, image, pair
from dsonas_hw.kernel.spec import Shape


def _conv(x: int = 0, w: int = 1, bias: int = 2) -> LowerNode:
    """A convolution whose operands are at these positions (quantised ones carry scales in between)."""

    def lower(lowering: Lowering, node: Node) -> None:
        source, weight = image(lowering.shape(node.inputs[x])), lowering.shape(node.inputs[w])
        if len(weight) not in (3, 4) or len(weight) != len(lowering.shape(node.inputs[x])):
            raise UnknownOperationError
        transposed = node.op == "ConvTranspose"
        groups = int(node.attributes.get("group", 1))
        channels = weight[0] if transposed else weight[1] * groups
        if channels != source[1] or weight[0] % groups:
            raise ValueError(f"weight {weight} with {groups} groups does not fit {source[1]} channels")
        constant = not lowering.graph.is_activation(node.inputs[w])
        reads, shapes = [node.inputs[x]], [source]
        if not constant:
            reads, shapes = [*reads, node.inputs[w]], [*shapes, image(weight)]
        if node.op == "FusedConv" and node.input(3):  # ONNX Runtime adds this residual in the same kernel
            reads, shapes = [*reads, node.inputs[3]], [*shapes, image(lowering.shape(node.inputs[3]))]
        lowering.emit(
            "conv_transpose" if transposed else "conv",
            reads,
            node.outputs[0],
            inputs=tuple(shapes),
            output=image(lowering.shape(node.outputs[0])),
            kernel_size=pair(weight[2:]),
            stride=pair(node.attributes.get("strides")),
            dilation=pair(node.attributes.get("dilations")),
            groups=groups,
            num_weights=prod(weight) if constant else 0,
            num_bias=prod(lowering.shape(node.input(bias))) if node.input(bias) else 0,
            epilogue=_contrib_activation(node),
        )

    return lower


def _contrib_activation(node: Node) -> tuple[str, ...]:
    """The activation that ONNX Runtime's own fused operations carry."""
    name = str(node.attributes.get("activation", "")).lower()
    return (name,) if name and node.domain else ()


def _gemm(lowering: Lowering, node: Node) -> None:
    a, b = node.inputs[0], node.inputs[1]
    left = lowering.shape(a)
    if node.attributes.get("transA", 0):
        left = left[::-1]
    right = lowering.shape(b)
    if node.attributes.get("transB", 0):
        right = right[::-1]
    _product(lowering, node, (a, left), (b, right), node.input(2))


def _matmul(a: int = 0, b: int = 1) -> LowerNode:
    def lower(lowering: Lowering, node: Node) -> None:
        left, right = lowering.shape(node.inputs[a]), lowering.shape(node.inputs[b])
        bias = node.input(2) if (a, b) == (0, 1) and node.op == "MatMul" else ""
        _product(lowering, node, (node.inputs[a], left), (node.inputs[b], right), bias)

    return lower


def _product(
    lowering: Lowering, node: Node, left: tuple[str, Shape], right: tuple[str, Shape], bias: str
) -> None:
    """A matrix product (…, M, K) · (…, K, N), of activations or with a constant on either side."""
    (a, a_shape), (b, b_shape) = left, right
    output = lowering.shape(node.outputs[0])
    if lowering.graph.is_activation(a) and lowering.graph.is_activation(b):
        reads, shapes = [a, b], [a_shape, b_shape]
        if bias and lowering.graph.is_activation(bias):
            reads, shapes = [*reads, bias], [*shapes, lowering.shape(bias)]
        lowering.emit(
            "matmul", reads, node.outputs[0], inputs=tuple(shapes), num_bias=lowering.num_stored([bias])
        )
        return
    if lowering.graph.is_activation(a):
        source, weight, activation = a, b_shape, a_shape
    else:  # constant · activation = (activationᵀ · constantᵀ)ᵀ
        source, weight, activation = b, a_shape, (*b_shape[:-2], *b_shape[:-3:-1])
        output = (*output[:-2], *output[:-3:-1])
    reads, inputs = [source], [activation]
    if bias and lowering.graph.is_activation(bias):
        reads, inputs = [source, bias], [activation, lowering.shape(bias)]
    lowering.emit(
        "gemm",
        reads,
        node.outputs[0],
        inputs=tuple(inputs),
        output=output,
        num_weights=prod(weight),
        num_bias=prod(lowering.shape(bias)) if bias and len(reads) == 1 else 0,
        epilogue=_contrib_activation(node),
    )


def _einsum(lowering: Lowering, node: Node) -> None:
    """A product of two operands, as in attention; anything else is unknown."""
    equation = str(node.attributes["equation"]).replace(" ", "")
    terms, arrow, result = equation.partition("->")
    names = terms.split(",")
    if not arrow or "." in equation or len(names) != 2 or len(node.inputs) != 2:
        raise UnknownOperationError
    left, right = names
    if any(len(set(term)) != len(term) for term in (left, right, result)):
        raise UnknownOperationError
    sizes = dict(zip(left, lowering.shape(node.inputs[0]), strict=True))
    sizes |= dict(zip(right, lowering.shape(node.inputs[1]), strict=True))
    batch = [c for c in left if c in right and c in result]
    summed = [c for c in left if c in right and c not in result]
    rows = [c for c in left if c not in right]
    columns = [c for c in right if c not in left]
    if not summed or set(rows + columns) - set(result):
        raise UnknownOperationError
    k = prod(sizes[c] for c in summed)
    lead, m, n = (tuple(sizes[c] for c in letters) for letters in (batch, rows, columns))
    weight_right = not lowering.graph.is_activation(node.inputs[1])
    if weight_right or not lowering.graph.is_activation(node.inputs[0]):
        source, rest, weight, width = (0, m, 1, prod(n)) if weight_right else (1, n, 0, prod(m))
        lowering.emit(
            "gemm",
            [node.inputs[source]],
            node.outputs[0],
            inputs=((*lead, *rest, k),),
            output=(*lead, *rest, width),
            num_weights=prod(lowering.shape(node.inputs[weight])),
        )
        return
    lowering.emit(
        "matmul",
        node.inputs,
        node.outputs[0],
        inputs=((*lead, prod(m), k), (*lead, k, prod(n))),
        output=(*lead, prod(m), prod(n)),
    )


def _attention(lowering: Lowering, node: Node) -> None:
    """The standard Attention operation: scores, softmax, weighted sum."""
    if node.domain or len([name for name in node.outputs if name]) != 1:
        raise UnknownOperationError
    query, key, value = node.inputs[:3]
    q, k, v = (lowering.shape(name) for name in (query, key, value))
    if len(q) == 3:
        q_heads, kv_heads = node.attributes["q_num_heads"], node.attributes["kv_num_heads"]
        q, k, v = (
            (shape[0], heads, shape[1], shape[2] // heads)
            for shape, heads in ((q, q_heads), (k, kv_heads), (v, kv_heads))
        )
    scores = (*q[:3], k[2])
    name = node.outputs[0]
    lowering.emit("matmul", [query, key], f"{name}/scores", inputs=(q, (*k[:2], k[3], k[2])), output=scores)
    reads, shapes = [f"{name}/scores"], [scores]
    if node.input(3) and lowering.graph.is_activation(node.inputs[3]):  # the mask is added on the way
        reads, shapes = [*reads, node.inputs[3]], [*shapes, lowering.shape(node.inputs[3])]
    lowering.emit("softmax", reads, f"{name}/weights", inputs=tuple(shapes), output=scores)
    lowering.emit("matmul", [f"{name}/weights", value], name, inputs=(scores, v), output=(*q[:3], v[3]))


PRODUCT_LOWERINGS: dict[str, LowerNode] = {
    "Conv": _conv(),
    "ConvTranspose": _conv(),
    "FusedConv": _conv(),
    "ConvInteger": _conv(bias=9),
    "QLinearConv": _conv(w=3, bias=8),
    "Gemm": _gemm,
    "FusedGemm": _gemm,
    "MatMul": _matmul(),
    "MatMulInteger": _matmul(),
    "QLinearMatMul": _matmul(b=3),
    "Einsum": _einsum,
    "Attention": _attention,
}
