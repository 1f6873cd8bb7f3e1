"""One walk over a model in running order, at fixed sizes of its inputs: shapes, constants, what runs.

onnx infers each operation's shapes, small constants (target shapes, axes) are evaluated on the way, and
whatever depends on constants only becomes a constant. The bodies of If, Loop and Scan are put in their place
(`bodies`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING

from dsonas_hw.errors import ModelFileError
from dsonas_hw.kernel.onnx.batch import BatchChange
from dsonas_hw.kernel.onnx.graph import (
    MALFORMED,
    Constant,
    Graph,
    Node,
    convert_node,
    label_of,
    malformed,
    sort_nodes,
)
from dsonas_hw.kernel.onnx.infer import infer_outputs, reshaped
from dsonas_hw.kernel.onnx.load import MAX_NODES
from dsonas_hw.kernel.onnx.tensors import Tensors
from dsonas_hw.kernel.onnx.values import fold
from dsonas_hw.kernel.spec import Shape

if TYPE_CHECKING:
    import onnx

    from dsonas_hw.kernel.onnx.declared import NetworkInput
    from dsonas_hw.kernel.onnx.values import Array

RANDOM_OPS = frozenset(["RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial"])


@dataclass(frozen=True, kw_only=True)
class Scope:
    """Where an operation stands: in the graph itself, or in a body that was put in its place."""

    names: Mapping[str, str] = field(default_factory=dict)
    """What its tensors are called here."""
    stored_in: str = ""
    """Where its constants are stored: the same for every pass through a body."""


Entry = tuple["onnx.NodeProto", Scope] | Callable[[], None]
"""An operation still to be visited, or what is to be done once those before it have been."""


EnterBody = Callable[["Walk", "onnx.NodeProto", Node, Scope], bool]
"""Whether the bodies of an operation were put in its place."""


class Walk:
    """One walk over a model; `graph` holds what it found."""

    def __init__(
        self,
        model: onnx.ModelProto,
        opset: int,
        inputs: Iterable[NetworkInput],
        shapes: Mapping[str, Shape],
        stated: Mapping[str, tuple[Shape, int]],
        *,
        decisions: dict[str, tuple[str, list[Graph]]],
        enter_body: EnterBody,
    ) -> None:
        """Begin.

        decisions: which branches were taken, shared by all walks over a model.
        enter_body: puts the bodies of an operation in its place (`bodies.enter_body`).
        """
        self.model = model
        self.opset = opset
        self.tensors = Tensors()
        self.inputs = dict(shapes)
        for value in inputs:
            self.tensors.set(value.name, shapes[value.name], value.elem_type)
        self.stated = stated
        self.change: BatchChange | None = None
        self.decisions = decisions
        self.enter_body = enter_body
        self.nodes: list[Node] = []
        self.notes: list[str] = []
        self.alternatives: list[Graph] = []
        self.num_visited = 0
        self.pending: deque[Entry] = deque()

    def run(self) -> Graph:
        graph = self.model.graph
        for tensor in graph.initializer:
            self.tensors.set_stored(tensor.name, tensor)
        for sparse in graph.sparse_initializer:
            self.tensors.set_sparse(sparse.values.name, sparse)
        order = sort_nodes(graph.node, self.tensors.shapes)
        self.pending.extend((proto, Scope()) for proto in order)
        self.visit_pending()
        return self.graph(tuple(value.name for value in graph.output))

    def graph(self, outputs: tuple[str, ...]) -> Graph:
        """Return what has been found so far, of what these outputs need."""
        return Graph(
            nodes=_without_dead_nodes(self.nodes, outputs),
            inputs=self.inputs,
            outputs=outputs,
            shapes=self.tensors.shapes,
            constants=self.tensors.constants,
            elem_types=self.tensors.elem_types,
            stored=self.tensors.stored,
            notes=self.notes,
            alternatives=self.alternatives,
        )

    def fork(self) -> Walk:
        """Return a walk that goes on from here, and changes nothing of this one but its decisions."""
        other = Walk(
            self.model, self.opset, (), {}, self.stated, decisions=self.decisions, enter_body=self.enter_body
        )
        other.tensors = self.tensors.copy()
        other.inputs = self.inputs
        other.change = None if self.change is None else self.change.copy(other.tensors)
        other.num_visited = self.num_visited
        return other

    def put_body(
        self,
        body: onnx.GraphProto,
        scope: Scope,
        prefix: str,
        stored_in: str,
        bound: Mapping[str, str],
        then: Callable[[list[str]], None],
    ) -> None:
        """Make a body's operations the next ones to visit, and `then` what is done with its results.

        bound: what the body's inputs are called.
        """
        made = {tensor.name for tensor in body.initializer}
        made |= {name for inner in body.node for name in inner.output if name}
        names = {**scope.names, **bound, **{name: f"{prefix}/{name}" for name in made}}
        inner = Scope(names=names, stored_in=f"{stored_in}/")
        for tensor in body.initializer:
            self.tensors.set_stored(names[tensor.name], tensor, f"{stored_in}/{tensor.name}")
        results = [names.get(value.name, value.name) for value in body.output]
        self.pending.appendleft(lambda: then(results))
        self.pending.extendleft((proto, inner) for proto in reversed(body.node))

    def hand_on(self, results: Sequence[str], outputs: Sequence[str]) -> None:
        """Make the results of a body the operation's."""
        for result, output in zip(results, outputs, strict=True):
            if output:
                self.visit(Node(op="Identity", name="", inputs=(result,), outputs=(output,)))

    def visit_pending(self) -> None:
        while self.pending:
            entry = self.pending.popleft()
            if not isinstance(entry, tuple):
                entry()
                continue
            proto, scope = entry
            self.num_visited += 1
            if self.num_visited > MAX_NODES:
                raise ModelFileError(
                    f"the ONNX model runs more than {MAX_NODES} operations; no more are read"
                )
            try:
                node = convert_node(proto, scope.names)
                if not self.enter_body(self, proto, node, scope):
                    self.visit(node, f"{scope.stored_in}{proto.output[0]}" if proto.output else "")
            except MALFORMED as error:
                raise malformed(label_of(proto.op_type, proto.name, proto.output), error) from error

    def visit(self, node: Node, source: str = "") -> None:
        """Record what a node makes: a constant (`source`: what the file calls it), or an activation."""
        tensors = self.tensors
        inputs = [name for name in node.inputs if name]
        if not any(node.outputs):
            return
        if node.op == "Constant" and not node.domain:
            tensors.set_constant_node(node, source)
        elif node.op in ("Shape", "Size") and inputs and inputs[0] in tensors.shapes:
            self._visit_shape(node)
        elif inputs and node.op not in RANDOM_OPS and all(name in tensors.constants for name in inputs):
            self._visit_constant_expression(node)
        else:
            self.nodes.append(node)
            if all(name in tensors.shapes for name in inputs):
                self._infer(node)
            for name in node.outputs:
                if name in self.stated and name not in tensors.shapes:
                    tensors.set(name, *self.stated[name])

    def _visit_shape(self, node: Node) -> None:
        import numpy as np

        shape = self.tensors.shapes[node.inputs[0]]
        part = shape[node.attributes.get("start", 0) : node.attributes.get("end")]
        values = np.asarray(prod(shape) if node.op == "Size" else part, np.int64)
        self.tensors.set_values(node.outputs[0], values)

    def _visit_constant_expression(self, node: Node) -> None:
        operands = [self.tensors.constants[name] if name else None for name in node.inputs]
        if not node.domain and all(operand is None or operand.values is not None for operand in operands):
            arrays = [None if operand is None else operand.values for operand in operands]
            values = fold(node.op, arrays, node.attributes)
            if values is not None:
                self.tensors.set_values(node.outputs[0], values)
                self.tensors.limit_stored(node.outputs[0], node)
                return
        self._infer(node)
        parts = _split_values(node, operands[0], self.tensors.shapes)
        for name in node.outputs:
            if name in self.tensors.shapes:
                shape = self.tensors.shapes[name]
                self.tensors.constants[name] = Constant(shape=shape, values=parts.get(name))
                self.tensors.limit_stored(name, node)

    def _infer(self, node: Node) -> None:
        """Record the shapes of a node's outputs, as far as they can be inferred."""
        tensors, change = self.tensors, self.change
        shapes = {name: tensors.shapes[name] for name in node.inputs if name}
        if node.op == "Reshape" and not node.domain and len(node.inputs) > 1:
            self._infer_reshape(node)
            return
        if change is not None and node.op == "Concat":
            shapes = change.widened(node.inputs)
        for name, elem_type, shape in infer_outputs(node, self.opset, tensors, shapes):
            if shape is None:
                continue
            if change is not None and node.op == "Resize" and change.is_literal(node.input(3)):
                shape = change.resized(node.inputs[0], shape)
            tensors.set(name, shape, elem_type)
        if change is not None:
            change.carry(node)

    def _infer_reshape(self, node: Node) -> None:
        """The target may name the file's batch; and onnx would not compare the numbers of elements."""
        source, result = node.inputs[0], node.outputs[0]
        target = self.tensors.constants.get(node.inputs[1])
        if target is None or target.values is None:
            return
        dims = [int(dim) for dim in target.values.reshape(-1)]
        shape = None
        if self.change is not None and self.change.is_literal(node.inputs[1]):
            shape = self.change.reshaped(source, result, dims)
        if shape is None:
            shape = reshaped(node, self.tensors.shapes[source], dims)
        self.tensors.set(result, shape, self.tensors.elem_types[source])


def _split_values(node: Node, source: Constant | None, shapes: Mapping[str, Shape]) -> dict[str, Array]:
    """The parts of a small constant that is split."""
    if node.op != "Split" or source is None or source.values is None:
        return {}
    axis = int(node.attributes.get("axis", 0)) % len(source.shape)
    parts, start = {}, 0
    for name in node.outputs:
        if name not in shapes:
            return {}
        end = start + shapes[name][axis]
        parts[name] = source.values.take(range(start, end), axis=axis)
        start = end
    return parts


def _without_dead_nodes(nodes: list[Node], outputs: tuple[str, ...]) -> list[Node]:
    """Drop operations whose results nobody reads: a runtime does not run them."""
    needed = set(outputs)
    kept = []
    for node in reversed(nodes):
        if not outputs or any(name in needed for name in node.outputs):
            needed.update(node.inputs)
            kept.append(node)
    return kept[::-1]
