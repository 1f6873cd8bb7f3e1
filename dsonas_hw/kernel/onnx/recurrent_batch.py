"""The batch of an input that a recurrent layer reads: the standard says where it stands.

LSTM, GRU and RNN take (time, batch, features), or (batch, time, features) with `layout=1`; their states are
(directions, batch, hidden), or (batch, directions, hidden).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

RECURRENT = ("LSTM", "GRU", "RNN")
STATES = (5, 6)
"""Positions of the states among the inputs of a recurrent layer."""
KEEP_AXES = frozenset(
    [
        *("Identity", "Cast", "Dropout", "Relu", "Tanh", "Sigmoid", "Add", "Sub", "Mul", "Div", "MatMul"),
        *("LayerNormalization", "QuantizeLinear", "DequantizeLinear"),
    ]
)
"""Operations that leave the first two of three axes where they are in their first input."""


def recurrent_batch_axes(graph: onnx.GraphProto) -> dict[str, int]:
    """Input → its axis that is the batch, for inputs with three axes that a recurrent layer reads."""
    #: Tensor → the input that it comes from, and for each of its axes, the axis of that input.
    origins: dict[str, tuple[str, Sequence[int]]] = {}
    for value in graph.input:
        if len(value.type.tensor_type.shape.dim) == 3:
            origins[value.name] = (value.name, (0, 1, 2))
    found: dict[str, int] = {}
    for node in graph.node:
        if node.op_type in RECURRENT:
            layout = next((a.i for a in node.attribute if a.name == "layout"), 0)
            for position in (0, *STATES):
                if position < len(node.input) and node.input[position] in origins:
                    source, axes = origins[node.input[position]]
                    found.setdefault(source, axes[0 if layout else 1])
        elif node.input and node.input[0] in origins:
            source, axes = origins[node.input[0]]
            if node.op_type in KEEP_AXES:
                origins[node.output[0]] = (source, axes)
            elif node.op_type == "Transpose":
                order = next((list(a.ints) for a in node.attribute if a.name == "perm"), [2, 1, 0])
                if sorted(order) == [0, 1, 2]:
                    origins[node.output[0]] = (source, [axes[axis] for axis in order])
    return found
