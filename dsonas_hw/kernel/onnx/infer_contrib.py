"""Shapes of what ONNX Runtime's own operations make, and of standard ones that onnx infers none of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from dsonas_hw.errors import ModelFileError
from dsonas_hw.kernel.onnx.graph import NCHWC_DOMAIN, Node
from dsonas_hw.kernel.spec import Shape


class Standard(Protocol):
    """Asks onnx for the shape of the first output if the operation were a standard one on these operands."""

    def __call__(
        self, op: str, names: list[str], shapes: Mapping[str, Shape], **attributes: int
    ) -> Shape | None: ...


Infer = Callable[[Node, Mapping[str, Shape], Standard], list[Shape | None]]

SAME_SHAPE = frozenset([
    "FastGelu", "Gelu", "QuickGelu", "BiasGelu", "BiasAdd", "BiasDropout", "BiasSoftmax",
    "SimplifiedLayerNormalization", "LayerNormalization", "GroupNorm", "QLinearSigmoid",
    "QLinearLeakyRelu", "QLinearSoftmax", "RotaryEmbedding", "Trilu", "QuantizeLinear",
    "DequantizeLinear", "Inverse", "Relu", "Sigmoid", "Tanh", "GroupNormalization",
    "MeanVarianceNormalization",
])  # fmt: skip


def infer_contrib(node: Node, shapes: Mapping[str, Shape], standard: Standard) -> list[Shape | None]:
    """Return the shapes of the outputs, as far as they are known; fewer than there are if the rest is not.

    standard: asks onnx what a standard operation would make.

    Raises:
        ModelFileError: operands that do not fit.
    """
    if node.op in SAME_SHAPE:
        return [shapes[node.inputs[0]]]
    table = NCHWC if node.domain == NCHWC_DOMAIN else CONTRIB
    infer = table.get(node.op)
    return infer(node, shapes, standard) if infer else []


def attention_sizes(node: Node, x: Shape, weight: Shape, bias: Shape) -> tuple[int, int, int]:
    """Return the features of query, key and value that Attention makes."""
    given = node.attributes.get("qkv_hidden_sizes")
    if given:
        q, k, v = (int(size) for size in given)
        return q, k, v
    size = weight[-1] // 3
    return size, size, size


def _as(op: str, *positions: int) -> Infer:
    """As a standard operation on the inputs at these positions (all, if none are named)."""

    def infer(node: Node, shapes: Mapping[str, Shape], standard: Standard) -> list[Shape | None]:
        names = [node.input(position) for position in positions] if positions else list(node.inputs)
        made = standard(op, names, {**shapes, names[0]: node.channels_first(shapes[names[0]])})
        if made is None or not node.is_channels_last:
            return [made]
        return [(made[0], *made[2:], made[1])]

    return infer


def matmul_operands(node: Node, shapes: Sequence[Shape]) -> list[Shape]:
    """Return the shapes of the two operands of FusedMatMul, transposed as it says, batches in front."""
    turned = []
    for shape, letter in zip(shapes, "AB", strict=True):
        if node.attributes.get(f"transBatch{letter}", 0):
            shape = (*shape[1:-1], shape[0], shape[-1])
        if node.attributes.get(f"trans{letter}", 0) and len(shape) > 1:
            shape = (*shape[:-2], shape[-1], shape[-2])
        turned.append(shape)
    return turned


def _fused_matmul(node: Node, shapes: Mapping[str, Shape], standard: Standard) -> list[Shape | None]:
    a, b = matmul_operands(node, [shapes[name] for name in node.inputs[:2]])
    return [standard("MatMul", ["A", "B"], {"A": a, "B": b})]


def _matmul_nbits(node: Node, shapes: Mapping[str, Shape], standard: Standard) -> list[Shape | None]:
    return [(*shapes[node.inputs[0]][:-1], int(node.attributes["N"]))]


def _attention(node: Node, shapes: Mapping[str, Shape], standard: Standard) -> list[Shape | None]:
    x = shapes[node.inputs[0]]
    _, k, v = attention_sizes(node, x, shapes[node.inputs[1]], shapes.get(node.input(2), ()))
    heads = int(node.attributes["num_heads"])
    return [(*x[:2], v), (2, x[0], heads, x[1], k // heads)]


def _multi_head_attention(node: Node, shapes: Mapping[str, Shape], standard: Standard) -> list[Shape | None]:
    query, heads = shapes[node.inputs[0]], int(node.attributes["num_heads"])
    if len(query) == 5:
        return [(query[0], query[1], query[2] * query[4])]
    if not node.input(2):
        return [query]
    value = shapes[node.input(2)]
    return [(*query[:2], value[2] if len(value) == 3 else heads * value[3])]


def _group_query_attention(node: Node, shapes: Mapping[str, Shape], standard: Standard) -> list[Shape | None]:
    heads, kv_heads = (int(node.attributes[name]) for name in ("num_heads", "kv_num_heads"))
    batch, tokens, width = shapes[node.inputs[0]]
    size = width // heads if node.input(1) else width // (heads + 2 * kv_heads)
    past = shapes[node.input(3)][2] if node.input(3) else 0
    cache = (batch, kv_heads, past + tokens, size)
    return [(batch, tokens, heads * size), cache, cache]


def _skip_norm(node: Node, shapes: Mapping[str, Shape], standard: Standard) -> list[Shape | None]:
    x = shapes[node.inputs[0]]
    return [x, None, None, x]


def _two_same(node: Node, shapes: Mapping[str, Shape], standard: Standard) -> list[Shape | None]:
    x = shapes[node.inputs[0]]
    return [x, x]


def _embed(node: Node, shapes: Mapping[str, Shape], standard: Standard) -> list[Shape | None]:
    batch, tokens = shapes[node.inputs[0]]
    rows = (batch, tokens, shapes[node.inputs[2]][-1])
    return [rows, (batch,), rows]


def _halved(node: Node, shapes: Mapping[str, Shape], standard: Standard) -> list[Shape | None]:
    x = shapes[node.inputs[0]]
    return [(*x[:-1], x[-1] // 2)]


def _quantised_lstm(node: Node, shapes: Mapping[str, Shape], standard: Standard) -> list[Shape | None]:
    steps, batch, _ = shapes[node.inputs[0]]
    directions = 2 if node.attributes.get("direction") == "bidirectional" else 1
    hidden = int(node.attributes["hidden_size"])
    state = (directions, batch, hidden)
    return [(steps, directions, batch, hidden), state, state]


def _quantised_concat(node: Node, shapes: Mapping[str, Shape], standard: Standard) -> list[Shape | None]:
    return [standard("Concat", list(node.inputs[2::3]), shapes)]


def _quantised_global_pool(node: Node, shapes: Mapping[str, Shape], standard: Standard) -> list[Shape | None]:
    x = shapes[node.inputs[0]]
    ones = (1,) * (len(x) - 2)
    return [(x[0], *ones, x[-1]) if node.is_channels_last else (*x[:2], *ones)]


def _reorder_input(node: Node, shapes: Mapping[str, Shape], standard: Standard) -> list[Shape | None]:
    # Blocks are 8 or 16 channels; the weight that reads them says which, and its own count is what matters.
    return [node.channels_first(shapes[node.inputs[0]])]


def _reorder_output(node: Node, shapes: Mapping[str, Shape], standard: Standard) -> list[Shape | None]:
    x = shapes[node.inputs[0]]
    channels = int(node.attributes["channels"])
    return [(x[0], *x[2:], channels) if node.is_channels_last else (x[0], channels, *x[2:])]


def _blocked_conv(node: Node, shapes: Mapping[str, Shape], standard: Standard) -> list[Shape | None]:
    x, weight = shapes[node.inputs[0]], shapes[node.inputs[1]]
    groups = int(node.attributes.get("group", 1))
    if groups > 1 and weight[1] == 1:
        groups = weight[0]
    if groups < 1 or weight[0] % groups:
        raise ModelFileError(f"{node.label} of the ONNX model has a weight that does not fit {groups} groups")
    # The standard operation on one group, whose channels are those of the weight.
    one = {"X": (x[0], weight[1], *x[2:]), "W": weight}
    return [standard("Conv", ["X", "W"], one, group=1)]


def _blocked_upsample(node: Node, shapes: Mapping[str, Shape], standard: Standard) -> list[Shape | None]:
    x, scales = shapes[node.inputs[0]], node.attributes["scales"]
    return [tuple(int(size * scale) for size, scale in zip(x, scales, strict=True))]


CONTRIB: dict[str, Infer] = {
    "FusedConv": _as("Conv", 0, 1),
    "NhwcConv": _as("Conv", 0, 1),
    "NhwcFusedConv": _as("Conv", 0, 1),
    "QLinearConv": _as("Conv", 0, 3),
    "FusedGemm": _as("Gemm", 0, 1),
    "GemmFastGelu": _as("MatMul", 0, 1),
    "QGemm": _as("Gemm", 0, 3),
    "FusedMatMul": _fused_matmul,
    "FusedMatMulActivation": _fused_matmul,
    "TransposeMatMul": _fused_matmul,
    "MatMulIntegerToFloat": _as("MatMul", 0, 1),
    "DynamicQuantizeMatMul": _as("MatMul", 0, 1),
    "MatMulNBits": _matmul_nbits,
    "MatMulBnb4": _matmul_nbits,
    "DynamicQuantizeLSTM": _quantised_lstm,
    "Attention": _attention,
    "QAttention": _attention,
    "MultiHeadAttention": _multi_head_attention,
    "GroupQueryAttention": _group_query_attention,
    "EmbedLayerNormalization": _embed,
    "SkipLayerNormalization": _skip_norm,
    "SkipSimplifiedLayerNormalization": _skip_norm,
    "SkipGroupNorm": _two_same,
    "BiasSplitGelu": _halved,
    "QLinearAdd": _as("Add", 0, 3),
    "QLinearMul": _as("Mul", 0, 3),
    "QLinearWhere": _as("Where", 0, 1, 4),
    "QLinearReduceMean": _as("ReduceMean", 0),
    "QLinearConcat": _quantised_concat,
    "QLinearAveragePool": _as("AveragePool", 0),
    "QLinearGlobalAveragePool": _quantised_global_pool,
    "NhwcMaxPool": _as("MaxPool", 0),
    "Pad": _as("Pad"),
    "GridSample": _as("GridSample"),
}

NCHWC: dict[str, Infer] = {
    "ReorderInput": _reorder_input,
    "ReorderOutput": _reorder_output,
    "Conv": _blocked_conv,
    "MaxPool": _as("MaxPool", 0),
    "AveragePool": _as("AveragePool", 0),
    "GlobalAveragePool": _as("GlobalAveragePool", 0),
    "GlobalMaxPool": _as("GlobalMaxPool", 0),
    "Upsample": _blocked_upsample,
}
