"""Shapes of every tensor of an ONNX model, at the batch size that is asked for.

One walk in running order does it: onnx infers each operation's shapes, small constants (target shapes, axes)
are evaluated on the way, and whatever depends on constants only becomes a constant. For another batch size
than the file's the walk is made twice (see `onnx_batch`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING

from dsonas_hw.errors import ModelFileError
from dsonas_hw.kernel.onnx_batch import BatchChange, check_scaling
from dsonas_hw.kernel.onnx_graph import MALFORMED, Constant, Graph, Node, convert_node, malformed, sort_nodes
from dsonas_hw.kernel.onnx_infer import infer_outputs, reshaped
from dsonas_hw.kernel.onnx_inputs import NetworkInput, batch_of, declared_inputs, shapes_at, stated_shapes
from dsonas_hw.kernel.onnx_tensors import Tensors
from dsonas_hw.kernel.onnx_values import fold

if TYPE_CHECKING:
    import onnx

RANDOM_OPS = frozenset(["RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial"])

Renaming = Mapping[str, str]


def read_graph(model: onnx.ModelProto, opset: int, batch_size: int | None) -> Graph:
    """Infer the shapes of a checked model.

    Raises:
        ModelFileError: operations that contradict each other, or a size that the file leaves open.
    """
    inputs = declared_inputs(model)
    old_batch = batch_of(inputs)
    graph = _ShapeWalk(model, opset, inputs, old_batch).run()
    if batch_size is None or batch_size == old_batch:
        return graph
    try:
        scaled = _ShapeWalk(model, opset, inputs, batch_size, before=graph).run()
    except ModelFileError as error:
        raise ModelFileError(
            f"{error} (at batch size {batch_size}; the file is made for {old_batch})"
        ) from error
    check_scaling(graph, scaled, old_batch=old_batch, new_batch=batch_size)
    return scaled


class _ShapeWalk:
    """One walk over a model, at one batch size."""

    def __init__(
        self,
        model: onnx.ModelProto,
        opset: int,
        inputs: tuple[NetworkInput, ...],
        batch_size: int,
        *,
        before: Graph | None = None,
    ) -> None:
        """`before`: the graph at the file's own batch size, if this walk is at another."""
        self.model = model
        self.opset = opset
        self.tensors = Tensors()
        self.inputs = shapes_at(inputs, batch_size)
        for value in inputs:
            self.tensors.set(value.name, self.inputs[value.name], value.elem_type)
        self.change = None if before is None else BatchChange(before, batch_of(inputs), self.tensors)
        self.stated = stated_shapes(model) if before is None else {}
        self.nodes: list[Node] = []

    def run(self) -> Graph:
        graph = self.model.graph
        for tensor in graph.initializer:
            self.tensors.set_stored(tensor.name, tensor)
        for sparse in graph.sparse_initializer:
            self.tensors.set_sparse(sparse.values.name, sparse)
        order = sort_nodes(graph.node, self.tensors.shapes)
        pending: deque[tuple[onnx.NodeProto, Renaming]] = deque((proto, {}) for proto in order)
        num_done = 0
        while pending:
            proto, renaming = pending.popleft()
            num_done += 1
            try:
                node = convert_node(proto, renaming)
                branch = self._chosen_branch(proto, node)
                if branch is None:
                    self._visit(node)
                else:
                    pending.extendleft(reversed(self._expand(branch, node, renaming, num_done)))
            except MALFORMED as error:
                raise malformed(f"{proto.op_type} ({proto.name})", error) from error
        outputs = tuple(value.name for value in graph.output)
        return Graph(
            nodes=_without_dead_nodes(self.nodes, outputs),
            inputs=self.inputs,
            outputs=outputs,
            shapes=self.tensors.shapes,
            constants=self.tensors.constants,
        )

    def _visit(self, node: Node) -> None:
        """Record what a node makes: a constant, or an activation of some shape."""
        tensors = self.tensors
        inputs = [name for name in node.inputs if name]
        if not any(node.outputs):
            return
        if node.op == "Constant" and not node.domain:
            tensors.set_constant_node(node)
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
        for name in node.outputs:
            if name in self.tensors.shapes:
                shape = self.tensors.shapes[name]
                self.tensors.constants[name] = Constant(shape=shape)
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

    def _chosen_branch(self, proto: onnx.NodeProto, node: Node) -> onnx.GraphProto | None:
        """The branch of an If whose condition is a constant."""
        if node.op != "If" or node.domain:
            return None
        condition = self.tensors.constants.get(node.input(0))
        if condition is None or condition.scalar is None:
            return None
        wanted = "then_branch" if condition.scalar else "else_branch"
        return next((a.g for a in proto.attribute if a.name == wanted and a.HasField("g")), None)

    def _expand(
        self, branch: onnx.GraphProto, node: Node, renaming: Renaming, number: int
    ) -> list[tuple[onnx.NodeProto, Renaming]]:
        """Operations of a branch under names of their own, then copies of its results."""
        from onnx import helper

        made = {tensor.name for tensor in branch.initializer}
        made |= {name for inner in branch.node for name in inner.output if name}
        inner_names = {**renaming, **{name: f"branch{number}/{name}" for name in made}}
        for tensor in branch.initializer:
            self.tensors.set_stored(inner_names[tensor.name], tensor)
        if len(branch.output) != len(node.outputs):
            raise ModelFileError(f"{node.label} of the ONNX model has branches that do not fit it")
        expanded: list[tuple[onnx.NodeProto, Renaming]] = [(inner, inner_names) for inner in branch.node]
        for value, output in zip(branch.output, node.outputs, strict=True):
            result = inner_names.get(value.name, value.name)
            expanded.append((helper.make_node("Identity", [result], [output]), {}))
        return expanded


def _without_dead_nodes(nodes: list[Node], outputs: tuple[str, ...]) -> list[Node]:
    """Drop operations whose results nobody reads: a runtime does not run them."""
    needed = set(outputs)
    kept = []
    for node in reversed(nodes):
        if not outputs or any(name in needed for name in node.outputs):
            needed.update(node.inputs)
            kept.append(node)
    return kept[::-1]
