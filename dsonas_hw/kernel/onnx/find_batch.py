"""Which dimension of a network's inputs is the batch.

The batch is, in this order: the open dimension that is named so (`batch`, `bs`, …), wherever that name
stands; one named `N` or `B` that every input has, for `n` beside an image of batch 1 is a number of boxes;
the first dimension, where it is open in every input, or fixed at one size in every input; of an input that a
recurrent layer reads, the dimension that the layer takes for the batch stands for the first. In any other
file no dimension is known to be the batch, and the file's own sizes stay.

LSTM, GRU and RNN take (time, batch, features), or (batch, time, features) with `layout=1`; their states are
(directions, batch, hidden), or (batch, directions, hidden).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dsonas_hw.kernel.onnx.declared import NetworkInput

if TYPE_CHECKING:
    import onnx

BATCH_NAMES = re.compile(r"bs|bsz|.*batch.*", re.IGNORECASE)
BATCH_LETTERS = re.compile(r"[nb]", re.IGNORECASE)
OTHER_NAMES = re.compile(
    r".*(seq|len|time|step|frame|token|height|width|channel|sample|num|point|past|size|feature|dim).*|[chtlwsk]",
    re.IGNORECASE,
)
"""Names of dimensions that say that they are not the batch; what is neither, `unk__12` say, says nothing."""
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


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Where the batch stands in the inputs."""

    axes: Mapping[str, tuple[int, ...]]
    """Input → its dimensions that are the batch."""
    own_size: int
    """The size that the file states; 1 if it leaves the batch open."""
    can_change: bool = True
    """False where the outputs contradict that the first dimension, which is fixed, is the batch."""


def find_batch(
    inputs: Sequence[NetworkInput],
    outputs: Iterable[tuple[int | str, ...]],
    recurrent: Mapping[str, int] | None = None,
) -> Batch | None:
    """Return where the batch stands; None if that cannot be told.

    outputs: declared shapes of the network's outputs, as far as there are any.
    recurrent: input → the dimension that a recurrent layer takes for the batch; the first for all others.
    """
    axis_of = recurrent or {}
    shapes = {value.name: value.dims for value in inputs if value.dims}
    names = {dim for dims in shapes.values() for dim in dims if isinstance(dim, str) and dim}
    # A single number is a parameter, not a batch of one.
    batched = {name: dims for name, dims in shapes.items() if dims != (1,)} or shapes
    named = {name for name in names if BATCH_NAMES.fullmatch(name)} or {
        name
        for name in names
        if BATCH_LETTERS.fullmatch(name) and all(name in dims for dims in batched.values())
    }
    if named:
        return Batch(axes=_axes_of(shapes, named, axis_of), own_size=1)
    leads = {name: dims[axis_of.get(name, 0)] for name, dims in shapes.items()}
    if all(isinstance(lead, str) and not OTHER_NAMES.fullmatch(lead) for lead in leads.values()) and leads:
        return Batch(axes=_axes_of(shapes, set(map(str, leads.values())) - {""}, axis_of), own_size=1)
    fixed = {name: leads[name] for name in batched}
    sizes = set(fixed.values())
    size = next(iter(sizes), None)
    if len(sizes) != 1 or not isinstance(size, int) or size < 1:
        return None
    if any(lead != size for name, lead in leads.items() if name not in fixed):
        return None
    if size > 1 and any(_is_time_first(shapes[name]) for name in fixed.keys() - axis_of.keys()):
        return None
    # Behind a recurrent layer that takes the batch second, it stands second or third.
    is_second = any(axis_of.values())
    agree = all(
        size in dims if is_second else dims[0] == size
        for dims in outputs
        if dims and all(isinstance(dim, int) for dim in (dims if is_second else dims[:1]))
    )
    if not agree and size > 1:
        return None
    return Batch(axes={name: (axis_of.get(name, 0),) for name in fixed}, own_size=size, can_change=agree)


def _is_time_first(dims: tuple[int | str, ...]) -> bool:
    """(time, 1, features), as recurrent layers take it."""
    return len(dims) == 3 and dims[1] == 1


def _axes_of(
    shapes: Mapping[str, tuple[int | str, ...]], names: set[str], axis_of: Mapping[str, int]
) -> dict[str, tuple[int, ...]]:
    """Where dimensions of these names stand; and open ones without a name where the batch is expected."""
    axes = {}
    for name, dims in shapes.items():
        expected = axis_of.get(name, 0)
        found = tuple(i for i, dim in enumerate(dims) if dim in names or (i == expected and dim == ""))
        if found:
            axes[name] = found
    return axes


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
