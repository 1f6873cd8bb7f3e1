"""An ONNX graph as plain Python: operations in running order, shapes, and which tensors are constants."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dsonas_hw.errors import ModelFileError
from dsonas_hw.kernel.spec import Shape

if TYPE_CHECKING:
    import onnx

    from dsonas_hw.kernel.onnx.values import Array

CONTRIB_DOMAIN = "com.microsoft"
NCHWC_DOMAIN = "com.microsoft.nchwc"
MALFORMED = (LookupError, TypeError, ValueError, ArithmeticError, AttributeError)
"""What reading an operation raises whose inputs or attributes are missing or of another type."""


def malformed(label: str, error: Exception) -> ModelFileError:
    """Return what to tell the user about such an operation."""
    return ModelFileError(
        f"{label} of the ONNX model has inputs or attributes that are missing or wrong "
        f"({type(error).__name__}: {error})"
    )


def misfit(node: Node, what: str) -> ModelFileError:
    """Return what to tell the user about an operation whose bodies do not fit it."""
    return ModelFileError(
        f"{node.label} of the ONNX model and its {what} differ in their inputs or outputs; export it again"
    )


def one_line(text: str, *, max_length: int = 300) -> str:
    """Return what a file says, fit for a terminal: printable, on one line, not too long."""
    printable = "".join(char if char.isprintable() else " " for char in text[: 4 * max_length])
    line = " ".join(printable.split())
    return line if len(line) <= max_length else f"{line[: max_length - 1]}…"


def label_of(op: str, name: str, outputs: Iterable[str]) -> str:
    """Return what to call an operation: ``Conv (name)``, or by its first output if it has no name."""
    return one_line(f"{op} ({name or next(filter(None, outputs), 'unnamed')})")


@dataclass(frozen=True, kw_only=True, slots=True)
class Constant:
    """A tensor that does not depend on the network's input."""

    shape: Shape
    values: Array | None = None
    """Its elements, if they are few and known."""
    num_stored: int = 0
    """Elements that the file stores for it; a broadcast or generated constant stores fewer than it has."""
    sources: frozenset[str] = frozenset()
    """The stored tensors that it is made of, whose elements it shares with whatever else is made of them."""
    quantised_type: int | None = None
    """Element type, as ONNX numbers it, that it was dequantised from."""

    @property
    def scalar(self) -> float | None:
        """Its value, if it is a single known number."""
        if self.values is not None and self.values.size == 1 and self.values.dtype.kind in "iufb":
            return float(self.values.reshape(-1)[0])
        return None


@dataclass(kw_only=True, slots=True)
class Node:
    """One operation; names of tensors are unique over the graph, "" is an omitted input."""

    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    domain: str = ""

    @property
    def label(self) -> str:
        """How messages and the list of unknown operations call it."""
        return label_of(self.op, self.name, self.outputs)

    @property
    def place(self) -> str:
        """A name that no other operation's body has."""
        return next(filter(None, self.outputs))

    @property
    def is_channels_last(self) -> bool:
        """Whether the channels are the last axis, as in some of ONNX Runtime's own operations."""
        return bool(self.attributes.get("channels_last", 0)) or self.op.startswith("Nhwc")

    def channels_first(self, shape: Shape) -> Shape:
        """Return the shape of one of its tensors with the channels behind the batch."""
        return (shape[0], shape[-1], *shape[1:-1]) if self.is_channels_last else shape

    def input(self, index: int) -> str:
        """Return the name of an input, "" if it is omitted."""
        return self.inputs[index] if index < len(self.inputs) else ""


@dataclass(kw_only=True, slots=True)
class Graph:
    """Operations that depend on the network's input, in running order, and all that is known of tensors."""

    nodes: list[Node]
    inputs: dict[str, Shape]
    outputs: tuple[str, ...]
    shapes: dict[str, Shape]
    """Of activations and constants; a tensor that is missing here could not be inferred."""
    constants: dict[str, Constant]
    elem_types: dict[str, int] = field(default_factory=dict)
    """Element types as ONNX numbers them."""
    stored: Mapping[str, int] = field(default_factory=dict)
    """Elements of every stored tensor that constants name as their source."""
    notes: list[str] = field(default_factory=list)
    """What a reader of the numbers should know: which branch of an If was taken."""
    alternatives: list[Graph] = field(default_factory=list)
    """Branches that are stored and do not run."""

    def shape(self, name: str) -> Shape:
        """Return the shape of a tensor.

        Raises:
            UnknownShapeError: it could not be inferred.
        """
        try:
            return self.shapes[name]
        except KeyError:
            raise UnknownShapeError(name) from None

    def is_activation(self, name: str) -> bool:
        return bool(name) and name not in self.constants

    def readers(self) -> dict[str, list[Node]]:
        """Tensor → the operations that read it, once per reading input."""
        table: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in node.inputs:
                if name:
                    table.setdefault(name, []).append(node)
        return table


class UnknownShapeError(Exception):
    """A shape is needed that shape inference could not find."""


def convert_node(proto: onnx.NodeProto, rename: Mapping[str, str]) -> Node:
    """Read an operation, its tensors renamed where `rename` says so."""
    import onnx

    attributes: dict[str, Any] = {}
    for attribute in proto.attribute:
        if attribute.type not in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS):
            value = onnx.helper.get_attribute_value(attribute)
            attributes[attribute.name] = value.decode(errors="replace") if isinstance(value, bytes) else value
    inputs = list(proto.input)
    if len(attributes) < len(proto.attribute):  # what nested graphs take from outside is read as well
        inputs.extend(sorted(_tensors_read(proto) - set(inputs)))
    return Node(
        op=proto.op_type,
        name=proto.name,
        inputs=tuple(rename.get(name, name) for name in inputs),
        outputs=tuple(rename.get(name, name) for name in proto.output),
        attributes=attributes,
        domain="" if proto.domain == "ai.onnx" else proto.domain,
    )


def sort_nodes(nodes: Iterable[onnx.NodeProto], defined: Iterable[str]) -> list[onnx.NodeProto]:
    """Order operations so that each comes after those whose results it reads; keeps a valid order.

    Raises:
        ModelFileError: a cycle, a tensor nobody makes, or one that two operations make.
    """
    nodes = list(nodes)
    known = set(defined)
    makers: dict[str, int] = {}
    for index, node in enumerate(nodes):
        for name in node.output:
            if name and (name in makers or name in known):
                raise ModelFileError(f"two operations of the ONNX model write tensor {name!r}")
            makers[name] = index

    needs = [_tensors_read(node) for node in nodes]
    waiting = [0] * len(nodes)
    readers: dict[int, list[int]] = {}
    for index, names in enumerate(needs):
        for name in names - known:
            if name not in makers:
                raise ModelFileError(
                    f"{_label(nodes[index])} of the ONNX model reads {name!r}, which nothing writes; export "
                    "the network again"
                )
            waiting[index] += 1
            readers.setdefault(makers[name], []).append(index)

    import heapq

    ready = [index for index, count in enumerate(waiting) if count == 0]
    order = []
    while ready:
        index = heapq.heappop(ready)
        order.append(nodes[index])
        for reader in readers.get(index, ()):
            waiting[reader] -= 1
            if waiting[reader] == 0:
                heapq.heappush(ready, reader)
    if len(order) < len(nodes):
        stuck = next(index for index, count in enumerate(waiting) if count)
        behind: set[int] = set()
        while stuck not in behind:  # against the arrows, from what waits behind a cycle into it
            behind.add(stuck)
            stuck = next(makers[name] for name in needs[stuck] - known if waiting[makers[name]])
        raise ModelFileError(
            f"the ONNX model has a cycle through {_label(nodes[stuck])}; export the network again"
        )
    return order


def _label(node: onnx.NodeProto) -> str:
    return label_of(node.op_type, node.name, node.output)


def _tensors_read(node: onnx.NodeProto) -> set[str]:
    """Inputs of an operation and, for one with nested graphs, what these take from outside."""
    from dsonas_hw.kernel.onnx.load import all_graphs

    names = {name for name in node.input if name}
    for attribute in node.attribute:
        nested = [attribute.g] if attribute.HasField("g") else []
        for graph in [*nested, *attribute.graphs]:
            made: set[str] = set()
            read: set[str] = set()
            for inner in all_graphs(graph):
                made.update(tensor.name for tensor in inner.initializer)
                made.update(value.name for value in inner.input)
                read.update(value.name for value in inner.output)
                for inner_node in inner.node:
                    made.update(inner_node.output)
                    read.update(name for name in inner_node.input if name)
            names |= read - made
    return names
