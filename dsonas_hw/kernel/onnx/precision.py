"""In which precision a file computes: what its convolutions and matrix products take.

An operand that comes from DequantizeLinear stands for the integers behind it, as runtimes fuse the two; so a
file in "QDQ" form is int8 where both operands of its products are. Weights alone that are stored in 8 or 4
bits do not change the precision of the product.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from dsonas_hw.kernel.onnx.graph import Graph, Node

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Operation → positions of the two operands of the product; the first two inputs for all others.
OPERANDS: dict[str, Sequence[int]] = {
    "QLinearConv": (0, 3),
    "QLinearMatMul": (0, 3),
    "QGemm": (0, 3),
}
#: Operations of ONNX Runtime that quantise their first input themselves.
DYNAMIC_INT8 = frozenset(["DynamicQuantizeMatMul", "DynamicQuantizeLSTM"])
SAME_VALUES = frozenset([
    "Identity", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Slice", "MaxPool", "Pad",
    "Concat",
])  # fmt: skip
"""What may stand between the quantised tensor and the product."""


def _names() -> dict[int, str]:
    from onnx import TensorProto

    names = {
        "FLOAT": "fp32", "FLOAT16": "fp16", "BFLOAT16": "bf16", "DOUBLE": "fp64", "INT8": "int8",
        "UINT8": "int8", "INT16": "int16", "UINT16": "int16", "INT4": "int4", "UINT4": "int4",
        "FLOAT8E4M3FN": "fp8", "FLOAT8E4M3FNUZ": "fp8", "FLOAT8E5M2": "fp8", "FLOAT8E5M2FNUZ": "fp8",
        "FLOAT4E2M1": "fp4",
    }  # fmt: skip
    return {getattr(TensorProto, key): name for key, name in names.items() if hasattr(TensorProto, key)}


def operand_precision(graph: Graph, makers: Mapping[str, Node], node: Node) -> str:
    """Return the precision of an operation's operands; "" if their types are not known."""
    if node.op in DYNAMIC_INT8:
        return "int8"
    positions = OPERANDS.get(node.op, (0, 1))
    operands = [node.input(position) for position in positions if node.input(position)]
    stored = [_stored_type(graph, makers, name) for name in operands]
    computed = [graph.elem_types.get(name) for name in operands]
    names = _names()
    if len(operands) == 2 and all(names.get(t or 0, "") in ("int8", "fp8") for t in stored):
        return names[stored[0] or 0]
    return next((names[t] for t in computed if t in names), "")


def _stored_type(graph: Graph, makers: Mapping[str, Node], name: str) -> int | None:
    """The type of a tensor before it was dequantised; its own if it was not."""
    for _ in range(8):
        constant = graph.constants.get(name)
        if constant is not None:
            return constant.quantised_type or graph.elem_types.get(name)
        node = makers.get(name)
        if node is None:
            break
        if node.op == "DequantizeLinear":
            return graph.elem_types.get(node.inputs[0])
        if node.op not in SAME_VALUES:
            break
        name = node.inputs[0]
    return graph.elem_types.get(name)


def file_precision(graph: Graph, flops_in: Mapping[str, int]) -> str:
    """Return the precision of most flops; of a network without any, that of the largest tensor that it makes.

    "" if no type is known.
    """
    known = {name: flops for name, flops in flops_in.items() if name}
    if known:
        return max(known, key=lambda name: known[name])
    from math import prod

    names = _names()
    floats = [
        (prod(graph.shapes.get(name, ())), names[graph.elem_types[name]])
        for node in graph.nodes
        for name in node.outputs
        if names.get(graph.elem_types.get(name, 0), "").startswith(("fp", "bf"))
    ]
    return max(floats)[1] if floats else ""
