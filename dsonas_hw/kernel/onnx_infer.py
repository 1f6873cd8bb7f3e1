"""Shapes of what one operation makes, from the shapes of what it takes."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import NamedTuple

from dsonas_hw.errors import ModelFileError
from dsonas_hw.kernel.onnx_graph import CONTRIB_DOMAIN, Node
from dsonas_hw.kernel.onnx_tensors import Tensors
from dsonas_hw.kernel.spec import Shape

MAX_DATA_ELEMENTS = 1024
"""Constants up to this size are shown to shape inference (axes, sizes, scales)."""

CONTRIB_AS_STANDARD = {"FusedConv": "Conv", "FusedGemm": "Gemm", "FusedMatMul": "MatMul"}
CONTRIB_SAME_SHAPE = {"FastGelu", "Gelu", "QuickGelu"}
CONTROL_FLOW = {"If", "Loop", "Scan", "SequenceMap"}
POSITIVE_ATTRIBUTES = ("strides", "dilations", "kernel_shape", "group", "blocksize")


class Inferred(NamedTuple):
    """One output; its shape is None if it depends on more than shapes."""

    name: str
    elem_type: int
    shape: Shape | None


def infer_outputs(
    node: Node, opset: int, tensors: Tensors, input_shapes: Mapping[str, Shape]
) -> list[Inferred]:
    """Outputs whose type is known.

    Raises:
        ModelFileError: the operation's inputs and attributes contradict each other.
    """
    if node.domain == CONTRIB_DOMAIN and node.op in CONTRIB_SAME_SHAPE:
        source = node.inputs[0]
        return [Inferred(node.outputs[0], tensors.elem_types[source], input_shapes[source])]
    op = CONTRIB_AS_STANDARD.get(node.op, "") if node.domain == CONTRIB_DOMAIN else node.op
    if not op or node.domain not in ("", CONTRIB_DOMAIN) or op in CONTROL_FLOW:
        return []
    _check_attributes(node)
    return _infer_with_onnx(node, op, opset, tensors, input_shapes)


def _check_attributes(node: Node) -> None:
    for key in POSITIVE_ATTRIBUTES:
        value = node.attributes.get(key, 1)
        entries = value if isinstance(value, list) else [value]
        if not all(isinstance(entry, int) and entry >= 1 for entry in entries):
            raise ModelFileError(f"{node.label} of the ONNX model has {key} {value}, which must be positive")


def _infer_with_onnx(
    node: Node, op: str, opset: int, tensors: Tensors, input_shapes: Mapping[str, Shape]
) -> list[Inferred]:
    import onnx
    from onnx import helper, shape_inference

    try:
        schema = onnx.defs.get_schema(op, opset, "")
    except onnx.defs.SchemaError:
        return []
    data = {}
    for name in filter(None, node.inputs):
        values = tensors.constants[name].values if name in tensors.constants else None
        if values is not None and values.size <= MAX_DATA_ELEMENTS:
            data[name] = onnx.numpy_helper.from_array(values, name)
    types = {
        name: helper.make_tensor_type_proto(tensors.elem_types[name], shape)
        for name, shape in input_shapes.items()
    }
    attributes = {key: value for key, value in node.attributes.items() if key in schema.attributes}
    try:
        operands = node.inputs[: schema.max_input] if node.domain else node.inputs  # a residual, say
        proto = helper.make_node(op, operands, node.outputs, **attributes)
        inferred = shape_inference.infer_node_outputs(schema, proto, types, data)
    except Exception as error:  # the C++ side raises several unrelated types
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = lines[0] if lines else type(error).__name__
        raise ModelFileError(f"{node.label} of the ONNX model is invalid: {reason}") from error
    outputs = []
    for name in filter(None, node.outputs):
        if name in inferred and inferred[name].HasField("tensor_type"):
            tensor_type = inferred[name].tensor_type
            dims = tensor_type.shape.dim
            known = tensor_type.HasField("shape") and all(dim.HasField("dim_value") for dim in dims)
            shape = tuple(dim.dim_value for dim in dims) if known else None
            outputs.append(Inferred(name, tensor_type.elem_type, shape))
    return outputs


def reshaped(node: Node, source: Shape, target: list[int]) -> Shape:
    """The shape that Reshape makes of `source`.

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
