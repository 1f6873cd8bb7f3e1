"""ONNX Runtime's own operations: what its optimiser and its quantiser write.

Shapes come from `infer_contrib`. What is listed nowhere, the packed and decoding variants of attention
say, is unknown.
"""

from __future__ import annotations

from math import prod

from dsonas_hw.kernel.onnx.graph import Node
from dsonas_hw.kernel.onnx.infer_contrib import attention_sizes, matmul_operands
from dsonas_hw.kernel.onnx.lower import (
    ALL,
    Lowering,
    LowerNode,
    UnknownOperationError,
    lower_as,
    window,
)
from dsonas_hw.kernel.onnx.lower_product import (
    contrib_activation,
    lower_attention,
    lower_conv,
    lower_gemm,
    lower_matmul,
    lower_product,
    lower_recurrent,
    name_of_own,
    sizes_of,
    split_heads,
)
from dsonas_hw.kernel.onnx.lower_reduce import lower_global_pool, lower_norm, lower_pool
from dsonas_hw.kernel.spec import Shape


def _fused_matmul(lowering: Lowering, node: Node) -> None:
    """A · B, either of them transposed, batches in front or (`transBatch`) between."""
    a, b = node.inputs[:2]
    a_shape, b_shape = matmul_operands(node, [lowering.shape(a), lowering.shape(b)])
    lower_product(lowering, node, (a, a_shape), (b, b_shape), "")


def _matmul_nbits(lowering: Lowering, node: Node) -> None:
    """A product with a weight of K × N whose elements are packed, several in a byte."""
    k, n = int(node.attributes["K"]), int(node.attributes["N"])
    source = lowering.shape(node.inputs[0])
    if source[-1] != k:
        raise ValueError(f"weight of {k} rows does not fit {source}")
    lowering.emit(
        "gemm",
        [node.inputs[0]],
        node.outputs[0],
        output=(*source[:-1], n),
        function=name_of_own(node),
        weights={node.inputs[1]: k * n},
        biases=lowering.constants([node.input(5)]),
    )


def _attention(lowering: Lowering, node: Node) -> None:
    """Attention and QAttention: one product makes query, key and value of the input."""
    x, weight = node.inputs[0], node.inputs[1]
    sizes = attention_sizes(node, lowering.shape(x), lowering.shape(weight), lowering.shape(node.input(2)))
    batch, tokens, features = lowering.shape(x)
    name = node.outputs[0]
    past = 4 if node.op == "Attention" else 8
    if node.input(past):
        raise UnknownOperationError
    lowering.emit(
        "gemm",
        [x],
        f"{name}/qkv",
        inputs=((batch, tokens, features),),
        output=(batch, tokens, sum(sizes)),
        function=name_of_own(node),
        weights=sizes_of(lowering, weight),
        biases=sizes_of(lowering, node.input(2)),
    )
    heads = int(node.attributes["num_heads"])
    q, k, v = ((f"{name}/qkv", (batch, heads, tokens, size // heads)) for size in sizes)
    lower_attention(lowering, node, q, k, v)


def _multi_head_attention(lowering: Lowering, node: Node) -> None:
    """MultiHeadAttention: query, key and value are made already; a bias may be added."""
    heads = int(node.attributes["num_heads"])
    if node.input(6) or node.input(7):  # a cache of the past
        raise UnknownOperationError
    query = lowering.shape(node.inputs[0])
    q: Shape
    k: Shape
    v: Shape
    if len(query) == 5:  # (batch, tokens, heads, 3, size)
        q = (query[0], query[2], query[1], query[4])
        names, k, v = [node.inputs[0]] * 3, q, q
    else:
        q = (query[0], heads, query[1], query[2] // heads)
        key = lowering.shape(node.input(1))
        if len(key) == 5:  # (batch, tokens, heads, 2, size)
            k = v = (key[0], key[2], key[1], key[4])
            names = [node.inputs[0], node.inputs[1], node.inputs[1]]
        else:
            k, v = (split_heads(lowering.shape(node.input(i)), heads) for i in (1, 2))
            names = list(node.inputs[:3])
    output = node.outputs[0]
    lower_attention(lowering, node, (names[0], q), (names[1], k), (names[2], v))
    biases = lowering.constants([node.input(3)])
    if biases:
        lowering.emit("sum", [output], f"{output}/bias", inputs=(q,), output=q, weights=biases)


def _group_query_attention(lowering: Lowering, node: Node) -> None:
    """GroupQueryAttention: several query heads share one of key and value; the past is read as well."""
    heads, kv_heads = (int(node.attributes[name]) for name in ("num_heads", "kv_num_heads"))
    batch, tokens, width = lowering.shape(node.inputs[0])
    size = width // heads if node.input(1) else width // (heads + 2 * kv_heads)
    past = lowering.shape(node.input(3))[2] if node.input(3) else 0
    q = (batch, heads, tokens, size)
    k = (batch, heads, past + tokens, size)
    names = [node.inputs[0], node.input(1) or node.inputs[0], node.input(2) or node.inputs[0]]
    lower_attention(lowering, node, (names[0], q), (names[1], k), (names[2], k))


def _embed(lowering: Lowering, node: Node) -> None:
    """Rows of up to three tables are added and normalised."""
    output = node.outputs[0]
    tables = lowering.constants(node.inputs[2:5])
    shape = lowering.shape(output)
    lowering.emit(
        "copy",
        [node.inputs[0]],
        f"{output}/rows",
        inputs=(shape, lowering.shape(node.inputs[0])),
        output=shape,
        function="gather",
        biases=tables,
    )
    norms = lowering.constants(node.inputs[5:7])
    lowering.emit("layernorm", [f"{output}/rows"], output, inputs=(shape,), biases=norms)


def _with_bias(op: str, function: str = "") -> LowerNode:
    """An elementwise operation behind the addition of a stored bias."""
    return lower_as(op, function, operands=slice(2), stored=slice(1, None))


def _skip_norm(function: str = "") -> LowerNode:
    """Adds a residual, then normalises; the sum may be an output of its own."""
    return lower_as("layernorm", function, operands=ALL, stored=slice(1, None))


def _blocked_conv(lowering: Lowering, node: Node) -> None:
    """A convolution over blocks of channels; the weight is padded to whole blocks, and so is the work."""
    source, weight = lowering.shape(node.inputs[0]), lowering.shape(node.inputs[1])
    groups = int(node.attributes.get("group", 1))
    if groups > 1 and weight[1] == 1:
        groups = weight[0]  # one filter a channel, the padded ones too
    shape = (source[0], weight[1] * groups, *source[2:])
    reads, shapes = [node.inputs[0]], [shape]
    if node.input(3):
        reads, shapes = [*reads, node.inputs[3]], [*shapes, lowering.shape(node.inputs[3])]
    lowering.emit(
        "conv",
        reads,
        node.outputs[0],
        inputs=tuple(shapes),
        kernel_size=window(weight[2:], len(weight)),
        stride=window(node.attributes.get("strides"), len(weight)),
        dilation=window(node.attributes.get("dilations"), len(weight)),
        groups=groups,
        weights={node.inputs[1]: prod(weight)},
        biases=sizes_of(lowering, node.input(2)),
        epilogue=contrib_activation(node),
    )


CONTRIB_LOWERINGS: dict[str, LowerNode] = {
    "FusedConv": lower_conv(),
    "NhwcConv": lower_conv(),
    "NhwcFusedConv": lower_conv(),
    "FusedGemm": lower_gemm(),
    "GemmFastGelu": lower_matmul(bias=2),
    "QGemm": lower_gemm(b=3, c=6),
    "FusedMatMul": _fused_matmul,
    "FusedMatMulActivation": _fused_matmul,
    "TransposeMatMul": _fused_matmul,
    "MatMulIntegerToFloat": lower_matmul(bias=6),
    "DynamicQuantizeMatMul": lower_matmul(bias=4),
    "MatMulNBits": _matmul_nbits,
    "MatMulBnb4": _matmul_nbits,
    "MatMulFpQ4": lower_matmul(),
    "DynamicQuantizeLSTM": lower_recurrent,
    "Attention": _attention,
    "QAttention": _attention,
    "MultiHeadAttention": _multi_head_attention,
    "GroupQueryAttention": _group_query_attention,
    "EmbedLayerNormalization": _embed,
    "SkipLayerNormalization": _skip_norm(),
    "SkipSimplifiedLayerNormalization": _skip_norm("rms"),
    "SimplifiedLayerNormalization": lower_norm("layernorm", "rms"),
    "GroupNorm": lower_norm("groupnorm"),
    "SkipGroupNorm": lower_norm("groupnorm"),
    "BiasGelu": _with_bias("unary", "gelu"),
    "FastGelu": _with_bias("unary", "gelu"),
    "BiasAdd": _with_bias("sum"),
    "BiasDropout": _with_bias("sum"),
    "BiasSoftmax": _with_bias("softmax"),
    "BiasSplitGelu": _with_bias("unary", "splitgelu"),
    "RotaryEmbedding": lower_norm("unary", "rotary"),
    "QLinearAdd": lower_as("sum", operands=(0, 3)),
    "QLinearMul": lower_as("mul", operands=(0, 3)),
    "QLinearSigmoid": lower_as("unary", "sigmoid"),
    "QLinearLeakyRelu": lower_as("unary", "leakyrelu"),
    "QLinearSoftmax": lower_as("softmax"),
    "QLinearReduceMean": lower_as("reduce", "mean"),
    "QLinearWhere": lower_as("binary", "where", operands=(0, 1, 4)),
    "QLinearConcat": lower_as("concat", operands=slice(2, None, 3)),
    "QLinearAveragePool": lower_pool("avgpool"),
    "QLinearGlobalAveragePool": lower_global_pool("global_avgpool"),
    "NhwcMaxPool": lower_pool("maxpool"),
}

NCHWC_LOWERINGS: dict[str, LowerNode] = {
    "Conv": _blocked_conv,
    "ReorderInput": lower_as("copy", "to_blocked"),
    "ReorderOutput": lower_as("copy", "from_blocked"),
}
