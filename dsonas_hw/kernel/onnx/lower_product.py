"""Convolutions, matrix products, recurrent layers."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from dsonas_hw.kernel.onnx.graph import Node
from dsonas_hw.kernel.onnx.lower import Lowering, LowerNode, UnknownOperationError, image, window
from dsonas_hw.kernel.spec import RECURRENT_GATES, Shape


def lower_conv(w: int = 1, bias: int = 2) -> LowerNode:
    """Return what lowers a convolution whose operands are at these positions."""

    def lower(lowering: Lowering, node: Node) -> None:
        shape, output = (
            node.channels_first(lowering.shape(name)) for name in (node.inputs[0], node.outputs[0])
        )
        source, weight = image(shape), lowering.shape(node.inputs[w])
        rank = len(weight)
        if rank not in (3, 4, 5) or rank != len(shape):
            raise UnknownOperationError
        transposed = node.op == "ConvTranspose"
        groups = int(node.attributes.get("group", 1))
        channels = weight[0] if transposed else weight[1] * groups
        if channels != source[1] or weight[0] % groups:
            raise ValueError(f"weight {weight} with {groups} groups does not fit {source[1]} channels")
        constant = not lowering.graph.is_activation(node.inputs[w])
        reads, shapes = [node.inputs[0]], [source]
        if not constant:
            reads, shapes = [*reads, node.inputs[w]], [*shapes, image(weight)]
        if node.op.endswith("FusedConv") and node.input(3):  # ONNX Runtime adds it in the same kernel
            residual = node.channels_first(lowering.shape(node.inputs[3]))
            reads, shapes = [*reads, node.inputs[3]], [*shapes, image(residual)]
        lowering.emit(
            "conv_transpose" if transposed else "conv",
            reads,
            node.outputs[0],
            inputs=tuple(shapes),
            output=image(output),
            kernel_size=window(weight[2:], rank),
            stride=window(node.attributes.get("strides"), rank),
            dilation=window(node.attributes.get("dilations"), rank),
            groups=groups,
            weights={node.inputs[w]: prod(weight)} if constant else {},
            biases=sizes_of(lowering, node.input(bias)),
            function=name_of_own(node) if node.op == "DeformConv" else "",
            epilogue=contrib_activation(node),
        )

    return lower


def sizes_of(lowering: Lowering, *names: str) -> dict[str, int]:
    """Return the elements of the tensors that are given."""
    return {name: prod(lowering.shape(name)) for name in names if name}


def contrib_activation(node: Node) -> tuple[str, ...]:
    """Return the activation that ONNX Runtime's own fused operations carry."""
    name = str(node.attributes.get("activation", "")).lower()
    return (name,) if name and node.domain else ()


def lower_gemm(b: int = 1, c: int = 2) -> LowerNode:
    """Return what lowers Gemm; the second matrix and the bias are at these positions."""

    def lower(lowering: Lowering, node: Node) -> None:
        left, right = lowering.shape(node.inputs[0]), lowering.shape(node.inputs[b])
        if node.attributes.get("transA", 0):
            left = left[::-1]
        if node.attributes.get("transB", 0):
            right = right[::-1]
        lower_product(lowering, node, (node.inputs[0], left), (node.inputs[b], right), node.input(c))

    return lower


def lower_matmul(b: int = 1, bias: int | None = None) -> LowerNode:
    """Return what lowers a matrix product; the second one and the bias are at these positions."""

    def lower(lowering: Lowering, node: Node) -> None:
        left, right = lowering.shape(node.inputs[0]), lowering.shape(node.inputs[b])
        # `patterns` gives a plain MatMul the bias that was added behind it.
        added = 2 if bias is None and node.op == "MatMul" else bias
        name = "" if added is None else node.input(added)
        lower_product(lowering, node, (node.inputs[0], left), (node.inputs[b], right), name)

    return lower


def lower_product(
    lowering: Lowering, node: Node, left: tuple[str, Shape], right: tuple[str, Shape], bias: str
) -> None:
    """A matrix product (…, M, K) · (…, K, N), of activations or with a constant on either side."""
    (a, a_shape), (b, b_shape) = left, right
    output = lowering.graph.shape(node.outputs[0])
    if len(a_shape) == 1:
        a_shape, output = (1, *a_shape), (*output[:-1], 1, *output[-1:])
    if len(b_shape) == 1:
        b_shape, output = (*b_shape, 1), (*output, 1)
    if lowering.graph.is_activation(a) and lowering.graph.is_activation(b):
        reads, shapes = [a, b], [a_shape, b_shape]
        if bias and lowering.graph.is_activation(bias):
            reads, shapes = [*reads, bias], [*shapes, lowering.shape(bias)]
        lowering.emit(
            "matmul",
            reads,
            node.outputs[0],
            inputs=tuple(shapes),
            output=output,
            biases=lowering.constants([bias]),
        )
        return
    if lowering.graph.is_activation(a):
        source, weight, activation = (a, b, a_shape)
    else:  # constant · activation = (activationᵀ · constantᵀ)ᵀ
        source, weight, activation = b, a, (*b_shape[:-2], *b_shape[:-3:-1])
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
        weights=sizes_of(lowering, weight),
        biases=sizes_of(lowering, bias) if len(reads) == 1 else {},
        epilogue=contrib_activation(node),
    )


def _einsum(lowering: Lowering, node: Node) -> None:
    """A product of two operands, as in attention; anything else is unknown."""
    ranks = [len(lowering.shape(name)) for name in node.inputs]
    left, right, result = _einsum_terms(str(node.attributes["equation"]).replace(" ", ""), ranks)
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
            function=name_of_own(node),
            weights=sizes_of(lowering, node.inputs[weight]),
        )
        return
    lowering.emit(
        "matmul",
        node.inputs,
        node.outputs[0],
        inputs=((*lead, prod(m), k), (*lead, k, prod(n))),
        output=(*lead, prod(m), prod(n)),
        function=name_of_own(node),
    )


def _einsum_terms(equation: str, ranks: Sequence[int]) -> tuple[str, str, str]:
    """Return what letters the axes of both operands and of the result have; digits stand for "..."."""
    written, arrow, result = equation.partition("->")
    terms = written.split(",")
    if len(terms) != 2 or len(ranks) != 2:
        raise UnknownOperationError
    num_dots = max(rank - len(term.replace("...", "")) for term, rank in zip(terms, ranks, strict=True))
    left, right, result = (t.replace("...", "0123456789"[: max(num_dots, 0)]) for t in (*terms, result))
    both = left + right
    implied = "".join(sorted(c for c in set(both) if c.isdigit() or both.count(c) == 1))
    return left, right, result if arrow else implied


def _attention(lowering: Lowering, node: Node) -> None:
    """The standard Attention operation, without a cache of the past."""
    if len([name for name in node.outputs if name]) != 1:
        raise UnknownOperationError
    query, key, value = node.inputs[:3]
    q, k, v = (lowering.shape(name) for name in (query, key, value))
    if len(q) == 3:
        q_heads, kv_heads = node.attributes["q_num_heads"], node.attributes["kv_num_heads"]
        q, k, v = split_heads(q, q_heads), split_heads(k, kv_heads), split_heads(v, kv_heads)
    lower_attention(lowering, node, (query, q), (key, k), (value, v), mask=node.input(3))


def split_heads(shape: Shape, heads: int) -> Shape:
    """(batch, tokens, features) as (batch, heads, tokens, size); what has four axes stays as it is."""
    return shape if len(shape) == 4 else (shape[0], heads, shape[1], shape[2] // heads)


def name_of_own(node: Node) -> str:
    """Return the mark of kernels that a runtime runs as one, where each costs not what it does alone."""
    return "ms-attention" if node.op == "Attention" and node.domain else node.op.lower()


def lower_attention(
    lowering: Lowering,
    node: Node,
    query: tuple[str, Shape],
    key: tuple[str, Shape],
    value: tuple[str, Shape],
    *,
    mask: str = "",
) -> None:
    """Scores, softmax, weighted sum, of (batch, heads, tokens, size) each."""
    (query_name, q), (key_name, k), (value_name, v) = query, key, value
    output, own = node.outputs[0], name_of_own(node)
    scores = (*q[:3], k[2])
    weights = f"{output}/weights"
    lowering.emit(
        "matmul",
        [query_name, key_name],
        f"{output}/scores",
        inputs=(q, (*k[:2], k[3], k[2])),
        output=scores,
        function=own,
    )
    reads, shapes = [f"{output}/scores"], [scores]
    if mask and lowering.graph.is_activation(mask):  # it is added on the way
        reads, shapes = [*reads, mask], [*shapes, lowering.shape(mask)]
    lowering.emit("softmax", reads, weights, inputs=tuple(shapes), output=scores, function=own)
    lowering.emit(
        "matmul",
        [weights, value_name],
        output,
        inputs=(scores, v),
        output=(*q[:3], v[3]),
        function=own,
    )


def lower_recurrent(lowering: Lowering, node: Node) -> None:
    """LSTM, GRU and RNN: one kernel for all steps and directions."""
    function = {"DynamicQuantizeLSTM": "lstm"}.get(node.op, node.op.lower())
    directions = 2 if node.attributes.get("direction") == "bidirectional" else 1
    hidden = int(node.attributes["hidden_size"])
    source = lowering.shape(node.inputs[0])
    if node.attributes.get("layout", 0):
        source = (source[1], source[0], source[2])
    steps, batch, features = source
    gates = RECURRENT_GATES[function]
    # (directions, gates · hidden, features), or the last two turned round where they are quantised
    for name, width in ((node.inputs[1], features), (node.inputs[2], hidden)):
        if prod(lowering.shape(name)) != directions * gates * hidden * width:
            raise ValueError(f"weight {name!r} does not fit {features} features and {hidden} hidden ones")
    constants = [name for name in node.inputs[1:3] if not lowering.graph.is_activation(name)]
    others = [name for name in node.inputs[1:3] if lowering.graph.is_activation(name)]
    states = [name for name in node.inputs[5:7] if lowering.graph.is_activation(name)]
    reads = [node.inputs[0], *others, *states]
    outputs = [name for name in node.outputs if name]
    lowering.emit(
        "rnn",
        reads,
        outputs[0],
        inputs=(source, *(lowering.shape(name) for name in reads[1:])),
        output=(steps, batch, directions * hidden),
        groups=directions,
        function=function,
        weights=sizes_of(lowering, *constants),
        biases=lowering.constants([node.input(3), node.input(7) if function == "lstm" else ""]),
    )
    for name in outputs[1:]:
        lowering.view(name, outputs[0])


PRODUCT_LOWERINGS: dict[str, LowerNode] = {
    "Conv": lower_conv(),
    "ConvTranspose": lower_conv(),
    "ConvInteger": lower_conv(bias=9),
    "DeformConv": lower_conv(bias=3),
    "QLinearConv": lower_conv(w=3, bias=8),
    "Gemm": lower_gemm(),
    "MatMul": lower_matmul(),
    "MatMulInteger": lower_matmul(),
    "QLinearMatMul": lower_matmul(b=3),
    "Einsum": _einsum,
    "Attention": _attention,
    "LSTM": lower_recurrent,
    "GRU": lower_recurrent,
    "RNN": lower_recurrent,
}
