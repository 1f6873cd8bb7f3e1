"""Shapes of what one operation makes, from the shapes of what it takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, NamedTuple

from dsonas_hw.errors import ModelFileError
from dsonas_hw.kernel.onnx.graph import CONTRIB_DOMAIN, NCHWC_DOMAIN, Node
from dsonas_hw.kernel.onnx.infer_contrib import infer_contrib
from dsonas_hw.kernel.onnx.tensors import Tensors
from dsonas_hw.kernel.spec import Shape, by

if TYPE_CHECKING:
    import onnx

MAX_DATA_ELEMENTS = 1024
"""Constants up to this size are shown to shape inference (axes, sizes, scales)."""

CONTRIB_OPSET = 13
"""Of the standard operations that ONNX Runtime's own are compared with: axes are attributes, as theirs."""
CONTROL_FLOW = {"If", "Loop", "Scan", "SequenceMap"}
WINDOWED = ("Conv", "ConvInteger", "ConvTranspose", "MaxPool", "AveragePool", "LpPool")
POSITIVE_ATTRIBUTES = ("strides", "dilations", "kernel_shape", "group", "blocksize")


class Inferred(NamedTuple):
    """One output; its shape is None if it depends on more than shapes."""

    name: str
    elem_type: int
    shape: Shape | None


def infer_outputs(
    node: Node, opset: int, tensors: Tensors, input_shapes: Mapping[str, Shape]
) -> list[Inferred]:
    """Return the outputs whose type is known.

    Raises:
        ModelFileError: the operation's inputs and attributes contradict each other.
    """
    from onnx import TensorProto

    if node.op in CONTROL_FLOW or node.domain not in ("", CONTRIB_DOMAIN, NCHWC_DOMAIN):
        return []
    _check_attributes(node)
    if not node.domain:
        schema = _schema(node.op, opset)
        if schema is not None and schema.has_type_and_shape_inference_function:
            types = {name: tensors.elem_types[name] for name in input_shapes}
            try:
                made = _ask_onnx(node, schema, node.inputs, node.outputs, {}, tensors, input_shapes, types)
                _check_window(node, input_shapes, made)
                return made
            except ModelFileError:
                if TensorProto.BFLOAT16 not in types.values():
                    raise
            # Before opset 22 most operations are not defined for bf16, though there are such files.
            brain, half = int(TensorProto.BFLOAT16), int(TensorProto.FLOAT16)
            types = {name: half if t == brain else t for name, t in types.items()}
            made = _ask_onnx(node, schema, node.inputs, node.outputs, {}, tensors, input_shapes, types)
            return [one._replace(elem_type=brain) if one.elem_type == half else one for one in made]
    return _infer_contrib(node, tensors, input_shapes)


def _infer_contrib(node: Node, tensors: Tensors, input_shapes: Mapping[str, Shape]) -> list[Inferred]:
    """What ONNX Runtime's own operations make; it writes some of them into the standard's domain."""

    def standard(op: str, names: list[str], shapes: Mapping[str, Shape], **attributes: int) -> Shape | None:
        from onnx import TensorProto

        schema = _schema(op, CONTRIB_OPSET)
        if schema is None:
            return None
        # What they quantise is integer, which the standard operation would not take.
        types = {
            name: tensors.elem_types.get(name, TensorProto.FLOAT)
            if tensors.elem_types.get(name) in (TensorProto.INT64, TensorProto.BOOL)
            else TensorProto.FLOAT
            for name in shapes
        }
        used = {name: shapes[name] for name in names if name}
        made = _ask_onnx(node, schema, names, node.outputs[:1], attributes, tensors, used, types)
        return made[0].shape if made else None

    made = infer_contrib(node, input_shapes, standard)
    elem_type = _contrib_type(node, tensors)
    return [
        Inferred(name, elem_type, shape)
        for name, shape in zip(node.outputs, made, strict=False)
        if name and shape is not None
    ]


def _contrib_type(node: Node, tensors: Tensors) -> int:
    """Element type of what one of ONNX Runtime's own operations makes."""
    from onnx import TensorProto

    integers = (TensorProto.INT8, TensorProto.UINT8, TensorProto.INT16, TensorProto.UINT16)
    first = tensors.elem_types[node.inputs[0]]
    if node.op == "QuantizeLinear":
        return tensors.elem_types[node.inputs[2]] if node.input(2) else int(TensorProto.UINT8)
    if node.op in ("EmbedLayerNormalization", "QLinearConcat"):
        return tensors.elem_types[node.inputs[2]]
    keeps = node.op.startswith("QLinear") or (node.op == "QGemm" and len(node.inputs) > 7)
    return first if first not in integers or keeps else int(TensorProto.FLOAT)


def _check_attributes(node: Node) -> None:
    for key in POSITIVE_ATTRIBUTES:
        value = node.attributes.get(key, 1)
        entries = value if isinstance(value, list) else [value]
        if not all(isinstance(entry, int) and entry >= 1 for entry in entries):
            raise ModelFileError(f"{node.label} of the ONNX model has {key} {value}, which must be positive")


def _check_window(node: Node, input_shapes: Mapping[str, Shape], made: Iterable[Inferred]) -> None:
    """Refuse a convolution or pool whose window is larger than what it reads, borders included."""
    source: Shape = input_shapes.get(node.input(0), ())
    empty = any(one.shape is not None and min(one.shape, default=1) < 1 for one in made)
    if node.op.endswith(WINDOWED) and 0 not in source and empty:
        raise ModelFileError(
            f"{node.label} of the ONNX model reads {by(source)}, which is smaller than its window; read the "
            "network at a larger size"
        )


def _schema(op: str, opset: int) -> onnx.defs.OpSchema | None:
    import onnx

    try:
        return onnx.defs.get_schema(op, opset, "")
    except onnx.defs.SchemaError:
        return None


def _ask_onnx(
    node: Node,
    schema: onnx.defs.OpSchema,
    inputs: Sequence[str],
    outputs: Sequence[str],
    changed: Mapping[str, int],
    tensors: Tensors,
    input_shapes: Mapping[str, Shape],
    elem_types: Mapping[str, int],
) -> list[Inferred]:
    """What onnx infers for a standard operation on these tensors, `changed` attributes aside."""
    import onnx
    from onnx import helper, shape_inference

    data = {}
    for name in filter(None, inputs):
        values = tensors.constants[name].values if name in tensors.constants else None
        if values is not None and values.size <= MAX_DATA_ELEMENTS:
            data[name] = onnx.numpy_helper.from_array(values, name)
    types = {
        name: helper.make_tensor_type_proto(elem_types[name], shape) for name, shape in input_shapes.items()
    }
    attributes = {key: value for key, value in node.attributes.items() if key in schema.attributes}
    try:
        proto = helper.make_node(schema.name, inputs, outputs, **{**attributes, **changed})
        inferred = shape_inference.infer_node_outputs(schema, proto, types, data)
    except Exception as error:  # the C++ side raises several unrelated types
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = lines[0] if lines else type(error).__name__
        raise ModelFileError(f"{node.label} of the ONNX model is invalid: {reason}") from error
    found = []
    for name in filter(None, outputs):
        if name in inferred and inferred[name].HasField("tensor_type"):
            tensor_type = inferred[name].tensor_type
            dims = tensor_type.shape.dim
            known = tensor_type.HasField("shape") and all(dim.HasField("dim_value") for dim in dims)
            shape = tuple(dim.dim_value for dim in dims) if known else None
            found.append(Inferred(name, tensor_type.elem_type, shape))
    return found


def reshaped(node: Node, source: Shape, target: list[int]) -> Shape:
    """Return the shape that Reshape makes of `source`.

    Raises:
        ModelFileError: it has not as many elements.
    """
    dims = list(target)
    if not node.attributes.get("allowzero", 0):
        dims = [source[i] if dim == 0 and i < len(source) else dim for i, dim in enumerate(dims)]
    fixed = prod(dim for dim in dims if dim != -1)
    if dims.count(-1) == 1 and fixed > 0:
        dims[dims.index(-1)] = prod(source) // fixed
    if min(dims, default=1) < 0 or prod(dims) != prod(source):
        raise ModelFileError(f"{node.label} of the ONNX model cannot turn shape {source} into {target}")
    return tuple(dims)
