"""Shapes of every tensor of an ONNX model, at the batch size that is asked for.

One walk in running order does it: onnx infers each operation's shapes, small constants (target shapes, axes)
are evaluated on the way, and whatever depends on constants only becomes a constant.

Another batch size than the file's needs care, for exporters bake it into target shapes ("reshape to 1 × 2 ×
58 × 28 × 28"). The walk is then made twice, first as the file says; in the second, the axis of the target
that the batch lies in is scaled.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING, Any

from dsonas_hw.errors import ModelFileError
from dsonas_hw.kernel.onnx_graph import CONTRIB_DOMAIN, Constant, Graph, Node, convert_node, sort_nodes
from dsonas_hw.kernel.onnx_values import MAX_ELEMENTS, fold
from dsonas_hw.kernel.spec import Shape

if TYPE_CHECKING:
    import onnx

MAX_TENSOR_ELEMENTS = 2**40
"""No device holds a larger tensor: such a shape means a damaged file."""

RANDOM_OPS = {
    "RandomNormal",
    "RandomUniform",
    "RandomNormalLike",
    "RandomUniformLike",
    "Bernoulli",
    "Multinomial",
}
CONTRIB_AS_STANDARD = {"FusedConv": "Conv", "FusedGemm": "Gemm", "FusedMatMul": "MatMul"}
CONTRIB_SAME_SHAPE = {"Gelu", "FastGelu", "QuickGelu", "BiasGelu"}
POSITIVE_ATTRIBUTES = ("strides", "dilations", "kernel_shape", "group", "blocksize")

Dims = tuple[int | str, ...]


def read_graph(model: onnx.ModelProto, opset: int, batch_size: int | None) -> Graph:
    """Infer the shapes of a checked model.

    Raises:
        ModelFileError: operations that contradict each other, or a size that the file leaves open.
    """
    inputs = _declared_inputs(model)
    batch, fixed = _batch_dimension(inputs)
    symbol = None if fixed else batch
    own_batch = batch if isinstance(batch, int) else 1
    base = _ShapeWalk(model, opset, _resolve(inputs, batch, symbol, own_batch))
    if batch_size is None or batch_size == own_batch:
        return base.run()
    reference = base.run()
    walk = _ShapeWalk(model, opset, _resolve(inputs, batch, symbol, batch_size), reference.shapes)
    graph = walk.run()
    _check_scaling(reference, graph, own_batch, batch_size)
    return graph


def _declared_inputs(model: onnx.ModelProto) -> dict[str, tuple[int, Dims]]:
    """Network inputs: element type and dimensions, an int or a name; "" is a nameless open dimension."""
    stored = {tensor.name for tensor in model.graph.initializer}
    stored |= {tensor.values.name for tensor in model.graph.sparse_initializer}
    inputs: dict[str, tuple[int, Dims]] = {}
    for value in model.graph.input:
        if value.name in stored:
            continue
        if not value.type.HasField("tensor_type"):
            raise ModelFileError(f"input {value.name!r} of the ONNX model is not a tensor")
        tensor_type = value.type.tensor_type
        if not tensor_type.HasField("shape"):
            raise ModelFileError(f"input {value.name!r} of the ONNX model has no shape; export it with one")
        dims: list[int | str] = []
        for dim in tensor_type.shape.dim:
            dims.append(dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else dim.dim_param)
        inputs[value.name] = (tensor_type.elem_type, tuple(dims))
    return inputs


def _batch_dimension(inputs: Mapping[str, tuple[int, Dims]]) -> tuple[int | str, bool]:
    """The first dimension of the first input that has any, and whether it is a fixed size."""
    for _, dims in inputs.values():
        if dims:
            return dims[0], isinstance(dims[0], int)
    return 1, True


def _resolve(
    inputs: Mapping[str, tuple[int, Dims]], batch: int | str, symbol: int | str | None, batch_size: int
) -> dict[str, tuple[int, Shape]]:
    """Put the batch size into the inputs.

    `symbol` is the batch's name if it is open: it may then appear anywhere. A fixed batch is the first
    dimension of every input that has the same first dimension as the first input.
    """
    resolved = {}
    for name, (elem_type, dims) in inputs.items():
        shape: list[int] = []
        for axis, dim in enumerate(dims):
            if dim == batch if axis == 0 else (symbol and dim == symbol):
                shape.append(batch_size)
            elif isinstance(dim, str):
                if axis > 0:
                    raise ModelFileError(
                        f"input {name!r} of the ONNX model leaves dimension {axis} open ({dim!r}); "
                        "export it with fixed sizes (only the batch, dimension 0, may be open)"
                    )
                shape.append(batch_size)
            else:
                shape.append(dim)
        _check_size(name, shape)
        resolved[name] = (elem_type, tuple(shape))
    return resolved


def _check_size(name: str, shape: list[int] | Shape) -> None:
    if any(dim < 0 for dim in shape) or prod(shape) > MAX_TENSOR_ELEMENTS:
        dims = " × ".join(map(str, shape))
        raise ModelFileError(f"tensor {name!r} of the ONNX model has the impossible shape {dims}")


def _check_scaling(old: Graph, new: Graph, old_batch: int, new_batch: int) -> None:
    """Every activation either scales with the batch or does not depend on it."""
    for name, shape in new.shapes.items():
        before = old.shapes.get(name)
        if before is None or name in new.constants or name in old.constants:
            continue
        if shape != before and prod(shape) * old_batch != prod(before) * new_batch:
            raise ModelFileError(
                f"the ONNX model cannot run at batch size {new_batch}: tensor {name!r} would go from shape "
                f"{before} to {shape}; export it again at that batch size"
            )


class _ShapeWalk:
    """State of one walk over the model."""

    def __init__(
        self,
        model: onnx.ModelProto,
        opset: int,
        inputs: Mapping[str, tuple[int, Shape]],
        reference: Mapping[str, Shape] | None = None,
    ) -> None:
        """`reference`: shapes at the file's own batch size, if this walk is at another."""
        self.model = model
        self.opset = opset
        self.reference = reference
        self.inputs = {name: shape for name, (_, shape) in inputs.items()}
        self.shapes: dict[str, Shape] = dict(self.inputs)
        self.elem_types = {name: elem_type for name, (elem_type, _) in inputs.items()}
        self.constants: dict[str, Constant] = {}
        self.nodes: list[Node] = []
        self.known_names = set(self.inputs)

    def run(self) -> Graph:
        graph = self.model.graph
        for tensor in graph.initializer:
            self._store(tensor.name, tensor)
        for sparse in graph.sparse_initializer:
            self._store_constant(
                sparse.values.name,
                Constant(shape=tuple(sparse.dims), num_stored=prod(sparse.values.dims)),
                sparse.values.data_type,
            )
        order = sort_nodes(graph.node, [*self.shapes, ""])
        pending: deque[tuple[onnx.NodeProto, Mapping[str, str]]] = deque((proto, {}) for proto in order)
        num_done = 0
        while pending:
            proto, rename = pending.popleft()
            num_done += 1
            node = convert_node(proto, rename)
            if node.op == "If" and not node.domain:
                branch = self._chosen_branch(proto, node)
                if branch is not None:
                    pending.extendleft(reversed(self._expand(branch, node, rename, num_done)))
                    continue
            self._visit(node)
        outputs = tuple(value.name for value in graph.output)
        return Graph(
            nodes=_without_dead_nodes(self.nodes, outputs),
            inputs=self.inputs,
            outputs=outputs,
            shapes=self.shapes,
            constants=self.constants,
        )

    def _store(self, name: str, tensor: onnx.TensorProto) -> None:
        shape = tuple(tensor.dims)
        self._store_constant(
            name,
            Constant(shape=shape, values=_small_values(tensor), num_stored=prod(shape)),
            tensor.data_type,
        )

    def _store_constant(self, name: str, constant: Constant, elem_type: int) -> None:
        _check_size(name, constant.shape)
        self.constants[name] = constant
        self.shapes[name] = constant.shape
        self.elem_types[name] = elem_type

    def _visit(self, node: Node) -> None:
        if not any(node.outputs):
            return
        if node.op == "Constant" and not node.domain:
            self._visit_constant(node)
            return
        inputs = [name for name in node.inputs if name]
        if inputs and node.op not in RANDOM_OPS and all(name in self.constants for name in inputs):
            self._fold(node)
            return
        if node.op in ("Shape", "Size") and node.inputs[0] in self.shapes:
            self._fold_shape(node)
            return
        self.nodes.append(node)
        if all(name in self.shapes for name in inputs):
            self._infer(node)

    def _visit_constant(self, node: Node) -> None:
        import numpy as np
        import onnx

        name = node.outputs[0]
        for key, value in node.attributes.items():
            if isinstance(value, onnx.TensorProto):
                self._store(name, value)
            elif isinstance(value, onnx.SparseTensorProto):
                constant = Constant(shape=tuple(value.dims), num_stored=prod(value.values.dims))
                self._store_constant(name, constant, value.values.data_type)
            elif key in ("value_int", "value_ints"):
                self._store_values(name, np.asarray(value, np.int64))
            elif key in ("value_float", "value_floats"):
                self._store_values(name, np.asarray(value, np.float32))
            elif key in ("value_string", "value_strings"):
                shape = (len(value),) if key == "value_strings" else ()
                self._store_constant(name, Constant(shape=shape), onnx.TensorProto.STRING)
            else:
                continue
            return
        raise ModelFileError(f"{node.label} of the ONNX model holds no value")

    def _store_values(self, name: str, values: Any, *, follows_batch: bool = False) -> None:
        from onnx import helper

        small = values if values.size <= MAX_ELEMENTS else None
        self._store_constant(
            name,
            Constant(
                shape=tuple(values.shape), values=small, num_stored=values.size, follows_batch=follows_batch
            ),
            helper.np_dtype_to_tensor_dtype(values.dtype),
        )

    def _fold(self, node: Node) -> None:
        """An operation on constants: its result is a constant, with its values if they are few."""
        operands = [self.constants[name] if name else None for name in node.inputs]
        follows_batch = any(operand.follows_batch for operand in operands if operand)
        known = all(operand is None or operand.values is not None for operand in operands)
        if known and not node.domain and len(node.outputs) == 1:
            arrays = [None if operand is None else operand.values for operand in operands]
            values = fold(node.op, arrays, node.attributes)
            if values is not None:
                self._store_values(node.outputs[0], values, follows_batch=follows_batch)
                self._limit_stored(node.outputs[0], node, operands)
                return
        elif node.op in ("Shape", "Size"):
            self._fold_shape(node)
            return
        self._infer(node)
        for name in filter(None, node.outputs):
            self.constants[name] = Constant(
                shape=self.shapes.get(name, ()), follows_batch=follows_batch, num_stored=MAX_TENSOR_ELEMENTS
            )
            self._limit_stored(name, node, operands)
            if name not in self.shapes:
                del self.constants[name]

    def _limit_stored(self, name: str, node: Node, operands: list[Constant | None]) -> None:
        """A constant made from others takes no more storage than they do."""
        made = self.constants[name]
        given = 0 if node.op == "ConstantOfShape" else sum(c.num_stored for c in operands if c is not None)
        self.constants[name] = Constant(
            shape=made.shape,
            values=made.values,
            num_stored=min(prod(made.shape), given),
            follows_batch=made.follows_batch,
        )

    def _fold_shape(self, node: Node) -> None:
        import numpy as np

        shape = self.shapes[node.inputs[0]]
        if node.op == "Size":
            values = np.asarray(prod(shape), np.int64)
        else:
            values = np.asarray(shape[node.attributes.get("start", 0) : node.attributes.get("end")], np.int64)
        self._store_values(node.outputs[0], values, follows_batch=True)

    def _infer(self, node: Node) -> None:
        """Add the shapes of a node's outputs, as far as they can be inferred."""
        if node.op == "Reshape" and not node.domain:
            target = self._reshape_target(node)
            if target is not None:
                self._set_output(node, target)
            return
        if node.domain == CONTRIB_DOMAIN and node.op in CONTRIB_SAME_SHAPE:
            self._set_output(node, self.shapes[node.inputs[0]])
            return
        for name, elem_type, shape in self._infer_with_onnx(node):
            self.elem_types[name] = elem_type
            if shape is not None:
                if self.reference is not None:
                    shape = self._scale_literal_sizes(node, name, shape)
                _check_size(name, shape)
                self.shapes[name] = shape

    def _set_output(self, node: Node, shape: Shape) -> None:
        _check_size(node.outputs[0], shape)
        self.shapes[node.outputs[0]] = shape
        self.elem_types[node.outputs[0]] = self.elem_types.get(node.inputs[0], 1)

    def _infer_with_onnx(self, node: Node) -> list[tuple[str, int, Shape | None]]:
        import onnx
        from onnx import helper, shape_inference

        op = CONTRIB_AS_STANDARD.get(node.op, "") if node.domain == CONTRIB_DOMAIN else node.op
        if not op or node.domain not in ("", CONTRIB_DOMAIN):
            return []
        for key in POSITIVE_ATTRIBUTES:
            value = node.attributes.get(key, 1)
            if (
                min(value if isinstance(value, list) and value else [value if isinstance(value, int) else 1])
                < 1
            ):
                raise ModelFileError(
                    f"{node.label} of the ONNX model has {key} {value}, which must be positive"
                )
        try:
            schema = onnx.defs.get_schema(op, self.opset, "")
        except onnx.defs.SchemaError:
            return []
        types = {
            name: helper.make_tensor_type_proto(self.elem_types.get(name, 1), shape)
            for name, shape in self._input_shapes(node).items()
        }
        data = {}
        for name in filter(None, node.inputs):
            constant = self.constants.get(name)
            if constant is not None and constant.values is not None and constant.values.size <= 1024:
                data[name] = onnx.numpy_helper.from_array(constant.values, name)
        known_attributes = {k: v for k, v in node.attributes.items() if k in schema.attributes}
        try:
            proto = helper.make_node(op, node.inputs, node.outputs, **known_attributes)
            inferred = shape_inference.infer_node_outputs(schema, proto, types, data)
        except Exception as error:  # onnx raises several unrelated types from C++
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            reason = lines[0] if lines else type(error).__name__
            at = "" if self.reference is None else " at this batch size"
            raise ModelFileError(f"{node.label} of the ONNX model is invalid{at}: {reason}") from error
        results: list[tuple[str, int, Shape | None]] = []
        for name in filter(None, node.outputs):
            tensor_type = inferred[name].tensor_type if name in inferred else None
            if tensor_type is None:
                continue
            shape: Shape | None = None
            if tensor_type.HasField("shape") and all(d.HasField("dim_value") for d in tensor_type.shape.dim):
                shape = tuple(dim.dim_value for dim in tensor_type.shape.dim)
            results.append((name, tensor_type.elem_type, shape))
        return results

    def _input_shapes(self, node: Node) -> dict[str, Shape]:
        """Shapes of the inputs; a constant that was stored at the file's batch size is widened to ours."""
        shapes = {name: self.shapes[name] for name in node.inputs if name}
        if self.reference is None or node.op != "Concat":
            return shapes
        for name in shapes:
            old = self.reference.get(name)
            if name in self.constants or old is None or old == shapes[name]:
                continue
            for other, shape in shapes.items():
                if other in self.constants and len(shape) == len(old):
                    widened = tuple(
                        new if size == before and new != before else size
                        for size, before, new in zip(shape, old, shapes[name], strict=True)
                    )
                    shapes[other] = widened
        return shapes

    def _reshape_target(self, node: Node) -> Shape | None:
        """Shape that a Reshape makes; None if its target is not known."""
        source, target = self.shapes[node.inputs[0]], self.constants.get(node.input(1))
        if target is None or target.values is None:
            return None
        if self.reference is not None and not target.follows_batch:
            scaled = self._scaled(node.inputs[0], node.outputs[0])
            if scaled is not None:
                return scaled
        dims = [int(dim) for dim in target.values.reshape(-1)]
        if not node.attributes.get("allowzero", 0):
            dims = [source[i] if dim == 0 and i < len(source) else dim for i, dim in enumerate(dims)]
        fixed = prod(dim for dim in dims if dim != -1)
        if dims.count(-1) == 1 and fixed > 0:
            dims[dims.index(-1)] = prod(source) // fixed
        if min(dims, default=1) < 0 or prod(dims) != prod(source):
            raise ModelFileError(
                f"{node.label} of the ONNX model cannot turn shape {source} into {target.values.tolist()}"
            )
        return tuple(dims)

    def _scaled(self, source: str, result: str) -> Shape | None:
        """The file's shape of `result` with the batch scaled as it is in `source`; None if unclear.

        The batch lies in the axis of `result` that begins after as many elements as it does in `source`.
        """
        assert self.reference is not None
        old, new, old_result = self.reference.get(source), self.shapes[source], self.reference.get(result)
        if old is None or old_result is None or len(old) != len(new):
            return None
        changed = [axis for axis, (before, after) in enumerate(zip(old, new, strict=True)) if before != after]
        if not changed:
            return old_result
        if len(changed) > 1:
            return None
        axis = changed[0]
        before, after = old[axis], new[axis]
        starts = [
            i
            for i in range(len(old_result))
            if prod(old_result[:i]) == prod(old[:axis]) and old_result[i] * after % before == 0
        ]
        if not starts:
            return None
        place = axis if axis in starts else starts[0]
        return tuple(d * after // before if i == place else d for i, d in enumerate(old_result))

    def _scale_literal_sizes(self, node: Node, name: str, shape: Shape) -> Shape:
        """An output size that the file spells out, batch included, follows the input's batch."""
        sizes = self.constants.get(node.input(3))
        if node.op != "Resize" or sizes is None or sizes.follows_batch or self.reference is None:
            return shape
        old, new = self.reference.get(node.inputs[0]), self.shapes[node.inputs[0]]
        if old is None or len(old) != len(shape):
            return shape
        return tuple(n if o != n else s for o, n, s in zip(old, new, shape, strict=True))

    def _chosen_branch(self, proto: onnx.NodeProto, node: Node) -> onnx.GraphProto | None:
        """The branch of an If whose condition is a constant."""
        condition = self.constants.get(node.input(0))
        if condition is None or condition.scalar is None:
            return None
        wanted = "then_branch" if condition.scalar else "else_branch"
        return next((a.g for a in proto.attribute if a.name == wanted and a.HasField("g")), None)

    def _expand(
        self, branch: onnx.GraphProto, node: Node, rename: Mapping[str, str], number: int
    ) -> list[tuple[onnx.NodeProto, Mapping[str, str]]]:
        """Operations of a branch under names of their own, then copies of its results."""
        from onnx import helper

        made = {tensor.name for tensor in branch.initializer}
        made |= {name for inner in branch.node for name in inner.output if name}
        inner_names = {**rename, **{name: f"branch{number}/{name}" for name in made}}
        for tensor in branch.initializer:
            self._store(inner_names[tensor.name], tensor)
        results = [inner_names.get(value.name, value.name) for value in branch.output]
        if len(results) != len(node.outputs):
            raise ModelFileError(f"{node.label} of the ONNX model has branches that do not fit it")
        copies: list[tuple[onnx.NodeProto, Mapping[str, str]]] = [
            (helper.make_node("Identity", [result], [output]), {})
            for result, output in zip(results, node.outputs, strict=True)
            if output
        ]
        return [*((inner, inner_names) for inner in branch.node), *copies]


def _small_values(tensor: onnx.TensorProto) -> Any:
    """Elements of a small numeric tensor that lies in the file, else None."""
    from onnx import TensorProto, numpy_helper

    if prod(tensor.dims) > MAX_ELEMENTS or tensor.data_location == TensorProto.EXTERNAL:
        return None
    if tensor.data_type in (TensorProto.STRING, TensorProto.UNDEFINED) or tensor.HasField("segment"):
        return None
    try:
        values = numpy_helper.to_array(tensor)
    except Exception:  # no data, or not as much as the shape says: only the shape is known
        return None
    return values if values.dtype.kind in "iufb" else None


def _without_dead_nodes(nodes: list[Node], outputs: tuple[str, ...]) -> list[Node]:
    """Drop operations whose results nobody reads: a runtime does not run them."""
    needed = set(outputs)
    kept = []
    for node in reversed(nodes):
        if not outputs or any(name in needed for name in node.outputs):
            needed.update(node.inputs)
            kept.append(node)
    return kept[::-1]
