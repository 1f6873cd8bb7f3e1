"""From the operations of an ONNX graph to kernels, one to one: nothing is fused here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from dsonas_hw.kernel.network import Schedule, ScheduledKernel
from dsonas_hw.kernel.onnx_graph import CONTRIB_DOMAIN, MALFORMED, Graph, Node, UnknownShapeError, malformed
from dsonas_hw.kernel.spec import Kernel, Shape


class UnknownOperationError(Exception):
    """No kernel stands for this operation: it is listed as unknown."""


class Lowering:
    """What lowering a graph has produced so far; a `LowerNode` adds to it."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.kernels: list[ScheduledKernel] = []
        self.unknown: list[str] = []
        self._buffers: dict[str, str] = {}

    def buffer(self, name: str) -> str:
        """The buffer that a tensor lies in."""
        return self._buffers.get(name, name)

    def view(self, output: str, source: str) -> None:
        """`output` is `source` under another shape: nothing runs."""
        self._buffers[output] = self.buffer(source)

    def shape(self, name: str) -> Shape:
        return self.graph.shape(name) or (1,)

    def activations(self, node: Node) -> list[str]:
        return [name for name in node.inputs if self.graph.is_activation(name)]

    def num_stored(self, names: Sequence[str]) -> int:
        """Elements stored for the constants among `names`; a single number is part of the code."""
        constants = [self.graph.constants[name] for name in names if name in self.graph.constants]
        return sum(constant.num_stored for constant in constants if constant.num_stored > 1)

    def emit(
        self,
        op: str,
        reads: Sequence[str],
        writes: str,
        *,
        channel_axes: frozenset[int] = frozenset(),
        written_as: str = "",
        **fields: Any,
    ) -> None:
        """Add a kernel; shapes are those of the tensors unless `inputs` or `output` say otherwise."""
        if "inputs" not in fields:
            fields["inputs"] = tuple(self.shape(name) for name in reads)
        if "output" not in fields:
            fields["output"] = self.shape(writes)
        kernel = Kernel(op=op, **fields)
        shapes = self.graph.shapes
        seen = tuple(
            shapes.get(name, shape) for name, shape in zip(reads, kernel.inputs[: len(reads)], strict=True)
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
            )
        )


def image(shape: Shape) -> Shape:
    """(N, C, H, W); a sequence (N, C, L) is an image of height 1."""
    if len(shape) == 3:
        return (*shape[:2], 1, shape[2])
    if len(shape) == 4:
        return shape
    raise UnknownOperationError


def pair(values: Sequence[int] | None) -> tuple[int, int]:
    """(rows, columns) of an attribute with one or two entries; one entry belongs to the columns."""
    entries = [1, 1] if values is None else [int(value) for value in values]
    if len(entries) == 1:
        return (1, entries[0])
    if len(entries) == 2:
        return (entries[0], entries[1])
    raise UnknownOperationError


LowerNode = Callable[[Lowering, Node], None]


def lower_graph(graph: Graph) -> tuple[Schedule, tuple[str, ...]]:
    """Lower every operation; those without a kernel are returned as ``OpType (node name)``.

    Raises:
        ModelFileError: an operation whose attributes and shapes make no sense.
    """
    from dsonas_hw.kernel.onnx_lower_elementwise import ELEMENTWISE_LOWERINGS
    from dsonas_hw.kernel.onnx_lower_move import MOVE_LOWERINGS
    from dsonas_hw.kernel.onnx_lower_product import PRODUCT_LOWERINGS
    from dsonas_hw.kernel.onnx_lower_reduce import REDUCE_LOWERINGS

    table = {**PRODUCT_LOWERINGS, **REDUCE_LOWERINGS, **ELEMENTWISE_LOWERINGS, **MOVE_LOWERINGS}
    lowering = Lowering(graph)
    for node in graph.nodes:
        lower = table.get(node.op) if node.domain in ("", CONTRIB_DOMAIN) else None
        try:
            if lower is None:
                raise UnknownOperationError
            lower(lowering, node)
        except (UnknownOperationError, UnknownShapeError):
            lowering.unknown.append(node.label)
        except MALFORMED as error:
            raise malformed(node.label, error) from error
    outputs = {name: lowering.buffer(name) for name in graph.outputs if graph.is_activation(name)}
    schedule = Schedule(
        kernels=tuple(lowering.kernels),
        inputs=graph.inputs,
        outputs=frozenset(outputs.values()),
        output_shapes={
            buffer: graph.shapes[name]
            for name, buffer in outputs.items()
            if name != buffer and name in graph.shapes
        },
    )
    return schedule, tuple(dict.fromkeys(lowering.unknown))
