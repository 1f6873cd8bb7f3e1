"""A file that was exported at one batch size, read at another.

Exporters write the batch into the target shapes of a network ("reshape to 1 × 2 × 58 × 28 × 28") and into its
constants. With a walk at the file's own batch at hand, the place where the batch lies can be found, and
scaled.

The *place* of the batch in a tensor is (axis, offset): the batch is that axis, or, where a reshape merged
axes, the part of it behind `offset` outer elements. (tokens, batch, features) has the place (1, 1), and
merged to (tokens · batch, features) it has (0, tokens). A reshape keeps the number of elements in front of
the batch.
"""

from __future__ import annotations

from math import prod
from typing import NamedTuple

from dsonas_hw.errors import ModelFileError
from dsonas_hw.kernel.onnx.graph import Graph, Node
from dsonas_hw.kernel.onnx.tensors import Tensors
from dsonas_hw.kernel.spec import Shape


class Place(NamedTuple):
    """Where the batch lies in a tensor."""

    axis: int
    offset: int


class BatchChange:
    """From the graph at the file's batch (`before`) to what a second walk finds (`tensors`)."""

    def __init__(self, before: Graph, old_batch: int, tensors: Tensors) -> None:
        self._before = before
        self._old_batch = old_batch
        self._tensors = tensors
        self._offsets: dict[str, int] = {}

    def copy(self, tensors: Tensors) -> BatchChange:
        """Return the same over other tensors."""
        other = BatchChange(self._before, self._old_batch, tensors)
        other._offsets = dict(self._offsets)
        return other

    def is_literal(self, name: str) -> bool:
        """Return whether a constant is the same at both batch sizes: what it says of the batch is old."""
        old, new = self._before.constants.get(name), self._tensors.constants.get(name)
        if old is None or new is None or old.values is None or new.values is None:
            return False
        return bool(old.values.tolist() == new.values.tolist())

    def reshaped(self, source: str, result: str, target: list[int]) -> Shape | None:
        """Return the shape of a Reshape whose target is a literal; None if it is unclear."""
        old, old_result = self._before.shapes.get(source), self._before.shapes.get(result)
        if old is None or old_result is None or len(old) != len(self._tensors.shapes[source]):
            return None
        changed = self._changed_axes(old, self._tensors.shapes[source])
        if not changed:
            return old_result
        if len(changed) > 1:
            return None
        place = Place(changed[0], self._offsets.get(source, 1))
        new_place = self._moved(place, old, old_result, target)
        if new_place is None:
            return None
        if new_place.offset > 1:
            self._offsets[result] = new_place.offset
        new = self._tensors.shapes[source][place.axis]
        dims = list(old_result)
        dims[new_place.axis] = dims[new_place.axis] * new // old[place.axis]
        return tuple(dims)

    def _moved(self, place: Place, old: Shape, result: Shape, target: list[int]) -> Place | None:
        """Where the batch lies after a reshape from `old` to `result` (both at the file's batch)."""
        in_front = prod(old[: place.axis]) * place.offset
        places = []
        for axis, size in enumerate(result):
            outer = prod(result[:axis])
            offset = in_front // outer if outer and in_front % outer == 0 else 0
            if offset and size and size % (offset * self._old_batch) == 0:
                places.append(Place(axis, offset))
        exact = [p for p in places if p.offset == 1 and result[p.axis] == self._old_batch]
        if exact:
            return next((p for p in exact if p.axis == place.axis), exact[0])
        free = [p for p in places if p.axis < len(target) and target[p.axis] == -1]
        # A batch of one leaves no trace. Unless what followed it was split (into heads, say, which the batch
        # then leads), it was merged into the axis before.
        num_following = len(old) - place.axis - 1
        merged = [p for p in places if p.offset > 1 and 0 < len(result) - p.axis - 1 <= num_following]
        leading = [p for p in places if p.offset == 1]
        return next(iter([*free, *merged, *leading, *places]), None)

    def carry(self, node: Node) -> None:
        """Note that the batch lies in an operation's output as it does in its input."""
        for name in node.inputs:
            offset = self._offsets.get(name)
            if offset is None:
                continue
            size = self._batch_axis_size(name)
            for output in node.outputs:
                if size is not None and self._batch_axis_size(output) == size:
                    self._offsets.setdefault(output, offset)

    def _batch_axis_size(self, name: str) -> int | None:
        old, new = self._before.shapes.get(name), self._tensors.shapes.get(name)
        if old is None or new is None or len(old) != len(new):
            return None
        changed = self._changed_axes(old, new)
        return old[changed[0]] if len(changed) == 1 else None

    @staticmethod
    def _changed_axes(old: Shape, new: Shape) -> list[int]:
        return [axis for axis, (before, after) in enumerate(zip(old, new, strict=True)) if before != after]

    def resized(self, source: str, shape: Shape) -> Shape:
        """Return the output of a Resize with literal sizes: axes that the batch changed follow the source."""
        old, new = self._before.shapes.get(source), self._tensors.shapes[source]
        if old is None or len(old) != len(shape):
            return shape
        return tuple(n if n != o else s for o, n, s in zip(old, new, shape, strict=True))

    def widened(self, names: tuple[str, ...]) -> dict[str, Shape]:
        """Return the shapes of what is concatenated, constants repeated for the batch as activations are."""
        shapes = {name: self._tensors.shapes[name] for name in names if name}
        constants = [name for name in shapes if name in self._tensors.constants]
        for name, new in list(shapes.items()):
            old = self._before.shapes.get(name)
            if name in constants or old is None or old == new or len(old) != len(new):
                continue
            for constant in constants:
                if len(shapes[constant]) == len(old):
                    dims = zip(shapes[constant], old, new, strict=True)
                    shapes[constant] = tuple(n if s == o and n != o else s for s, o, n in dims)
        return shapes


def check_scaling(old: Graph, new: Graph, *, old_batch: int, new_batch: int) -> None:
    """Whatever an operation makes of something that grew with the batch must have grown as well.

    Raises:
        ModelFileError: it has not, so that the file is good for its own batch only.
    """
    for node in new.nodes:
        if all(old.shapes.get(name) == new.shapes.get(name) for name in node.inputs):
            continue
        # What a file exported for training notes beside its output are statistics over the batch.
        outputs = node.outputs[:1] if node.op == "BatchNormalization" else node.outputs
        for name in outputs:
            before, after = old.shapes.get(name), new.shapes.get(name)
            if before is None or after is None or prod(after) * old_batch == prod(before) * new_batch:
                continue
            raise ModelFileError(
                f"the ONNX model cannot run at batch size {new_batch}: {node.label} would make {after} of "
                f"what was {before} at batch size {old_batch}; export it again at that batch size"
            )
