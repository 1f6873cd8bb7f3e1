"""Lowering the operations of an ONNX graph: what has been found so far, and the simplest case."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

from dsonas_hw.kernel.network import ScheduledKernel
from dsonas_hw.kernel.onnx.graph import Constant, Graph, Node
from dsonas_hw.kernel.onnx.precision import operand_precision
from dsonas_hw.kernel.onnx.unknown import possible_work
from dsonas_hw.kernel.spec import Kernel, Shape


class UnknownOperationError(Exception):
    """No kernel stands for this operation: it is listed as unknown."""


class StoredTensors:
    """Which elements of the tensors that a file stores have been counted as params."""

    def __init__(self, stored: Mapping[str, int]) -> None:
        self._left = dict(stored)

    def count(self, name: str, constant: Constant, num_elements: int) -> int:
        """Return how many of these elements have been counted before."""
        sources = constant.sources or {name}
        left = {source: self._left.setdefault(source, num_elements) for source in sources}
        repeated = num_elements
        for source in sorted(left, key=lambda source: (-left[source], source)):
            taken = min(repeated, left[source])
            self._left[source] -= taken
            repeated -= taken
        return repeated


class Lowering:
    """What lowering a graph has produced so far; a `LowerNode` adds to it."""

    def __init__(self, graph: Graph, stored: StoredTensors) -> None:
        self.graph = graph
        self.stored = stored
        self.kernels: list[ScheduledKernel] = []
        self.unknown: dict[str, float] = {}
        """Operations without a kernel: how they are called, and the work that they may hold."""
        self.num_unused_params = 0
        """Stored for operations that have no kernel: unknown ones, and those that would write no element."""
        self.flops_in: Counter[str] = Counter()
        """Flops by the precision in which they are computed."""
        self.makers = {name: node for node in graph.nodes for name in node.outputs}
        self._buffers: dict[str, str] = {}
        self._precision = ""

    def buffer(self, name: str) -> str:
        """Return the buffer that a tensor lies in."""
        return self._buffers.get(name, name)

    def view(self, output: str, source: str) -> None:
        """`output` is `source` under another shape: nothing runs."""
        self._buffers[output] = self.buffer(source)

    def shape(self, name: str) -> Shape:
        return self.graph.shape(name) or (1,)

    def activations(self, node: Node) -> list[str]:
        return [name for name in node.inputs if self.graph.is_activation(name)]

    def constants(self, names: Sequence[str]) -> dict[str, int]:
        """Return the elements stored for the constants among `names`; a single number is part of the code."""
        constants = {name: self.graph.constants[name] for name in names if name in self.graph.constants}
        return {name: c.num_stored for name, c in constants.items() if c.num_stored > 1}

    def lower(self, node: Node, lower: LowerNode) -> None:
        """Add the kernels of an operation."""
        self._precision = operand_precision(self.graph, self.makers, node)
        lower(self, node)

    def add_unknown(self, node: Node) -> None:
        """Note an operation without a kernel: what it may cost, and what it stores."""
        self.unknown[node.label] = self.unknown.get(node.label, 0.0) + possible_work(self.graph, node)
        for name, size in self.constants(node.inputs).items():
            self.num_unused_params += size - self.stored.count(name, self.graph.constants[name], size)

    def emit(
        self,
        op: str,
        reads: Sequence[str],
        writes: str,
        *,
        channel_axes: frozenset[int] = frozenset(),
        written_as: str = "",
        weights: Mapping[str, int] | None = None,
        biases: Mapping[str, int] | None = None,
        **fields: Any,
    ) -> None:
        """Add a kernel; shapes are those of the tensors unless `inputs` or `output` say otherwise.

        weights, biases: elements stored for constants, by name. An activation without elements is not read,
        and a kernel that would write none does not run.
        """
        if "inputs" not in fields:
            fields["inputs"] = tuple(self.shape(name) for name in reads)
        if "output" not in fields:
            fields["output"] = self.shape(writes)
        weights, biases = weights or {}, biases or {}
        if prod(fields["output"]) == 0:
            for name, size in {**weights, **biases}.items():
                if name in self.graph.constants:
                    self.num_unused_params += size - self.stored.count(name, self.graph.constants[name], size)
            return
        full = [index for index, shape in enumerate(fields["inputs"]) if prod(shape)]
        if len(full) < len(fields["inputs"]):
            if len(reads) == len(fields["inputs"]):
                reads = [reads[index] for index in full]
            fields["inputs"] = tuple(fields["inputs"][index] for index in full)
        kernel = Kernel(op=op, num_weights=sum(weights.values()), num_bias=sum(biases.values()), **fields)
        if kernel.flops:
            self.flops_in[self._precision] += kernel.flops
        shapes = self.graph.shapes
        seen = tuple(
            shapes.get(name, shape) for name, shape in zip(reads, kernel.inputs[: len(reads)], strict=False)
        )
        written = shapes.get(writes, kernel.output)
        self.kernels.append(
            ScheduledKernel(
                kernel=kernel,
                reads=tuple(self.buffer(name) for name in reads),
                writes=writes,
                channel_axes=channel_axes,
                reads_as=seen if seen != kernel.inputs[: len(reads)] else (),
                writes_as=written if written != kernel.output else (),
                written_as=written_as,
                num_repeated_weights=self._num_repeated(weights),
                num_repeated_bias=self._num_repeated(biases),
            )
        )

    def _num_repeated(self, elements: Mapping[str, int]) -> int:
        constants = self.graph.constants
        return sum(
            self.stored.count(name, constants[name], size)
            for name, size in elements.items()
            if name in constants
        )


def image(shape: Shape) -> Shape:
    """(N, C, H, W) or (N, C, D, H, W); a sequence (N, C, L) is an image of height 1."""
    if len(shape) == 3:
        return (*shape[:2], 1, shape[2])
    if len(shape) in (4, 5):
        return shape
    raise UnknownOperationError


def window(values: Sequence[int] | None, rank: int) -> tuple[int, ...]:
    """(rows, columns), or (depth, rows, columns), of an attribute; one entry belongs to the columns.

    rank: of the tensor, with the batch and the channels.
    """
    entries = [1] * (rank - 2) if values is None else [int(value) for value in values]
    if len(entries) != rank - 2 or not 1 <= len(entries) <= 3:
        raise UnknownOperationError
    return (1, entries[0]) if len(entries) == 1 else tuple(entries)


LowerNode = Callable[[Lowering, Node], None]
"""Adds the kernels of one operation to a lowering."""
ALL = slice(None)
NONE = slice(0)


def lower_as(
    op: str, function: str = "", *, operands: slice | tuple[int, ...] = (0,), stored: slice = NONE
) -> LowerNode:
    """Return what lowers an operation to a single kernel, whose outputs lie in one buffer.

    operands: positions of the inputs that are read; constants among them count as weights.
    stored: positions of constants that count as biases: scales and shifts of a norm, say.
    """

    def lower(lowering: Lowering, node: Node) -> None:
        names = node.inputs[operands] if isinstance(operands, slice) else [node.inputs[i] for i in operands]
        biases = lowering.constants(node.inputs[stored])
        lowering.emit(
            op,
            [name for name in names if lowering.graph.is_activation(name)],
            node.outputs[0],
            function=function,
            weights=lowering.constants([name for name in names if name not in biases]),
            biases=biases,
        )
        for name in filter(None, node.outputs[1:]):
            lowering.view(name, node.outputs[0])

    return lower
