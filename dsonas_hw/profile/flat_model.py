"""The network of a file as it is timed: at fixed sizes, nothing nested in it, without the file's weights.

The operations are those that the network is counted by (`kernel.onnx.walk`): of an If the branch that counts,
of a Loop or Scan every pass. Weights keep their shapes and types; the time does not depend on what they say,
and they may lie in another file, or be missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from dsonas_hw.errors import ProfileError
from dsonas_hw.kernel.onnx.graph import Constant, Graph, Node
from dsonas_hw.kernel.onnx.load import load_model
from dsonas_hw.kernel.onnx.loops import LOOP_STACK, LOOP_VIEW
from dsonas_hw.kernel.onnx.shapes import read_graph
from dsonas_hw.kernel.spec import Shape

if TYPE_CHECKING:
    import onnx

MAX_NODES = 20_000
"""Of a network that is timed; each is an event of the profiler in every run."""
MAX_WEIGHTS = 250_000_000
"""Numbers of up to eight bytes: a protobuf message holds 2 GiB."""


def flat_model(path: Path, *, batch_size: int | None, input_shapes: Mapping[str, Shape]) -> bytes:
    """Return the network of a file at these sizes, as ONNX.

    batch_size, input_shapes: as of `network_from_onnx`.

    Raises:
        ModelFileError: it cannot be read.
        ProfileError: it has too many operations, or too large weights, to be timed.
    """
    from onnx import ValueInfoProto, helper

    model, opset = load_model(path)
    graph, _ = read_graph(model, opset, batch_size, input_shapes)
    if len(graph.nodes) > MAX_NODES:
        raise ProfileError(
            f"{path} runs {len(graph.nodes)} operations, its loops counted; at most {MAX_NODES} are timed"
        )
    extra: list[onnx.TensorProto] = []
    nodes = [proto for node in graph.nodes for proto in _as_onnx(node, graph, extra)]
    made = {name for proto in nodes for name in proto.output}
    stored = {tensor.name for tensor in extra}
    read = dict.fromkeys(name for proto in nodes for name in proto.input if name and name not in made)
    constants = [name for name in read if name in graph.constants]
    given = [name for name in read if name not in graph.constants and name not in stored]
    if sum(prod(graph.shapes[name]) for name in constants) > MAX_WEIGHTS:
        raise ProfileError(f"{path} has too large weights to be timed; at most {MAX_WEIGHTS:,} numbers")
    flat = helper.make_graph(
        nodes,
        "flat",
        [helper.make_tensor_value_info(name, graph.elem_types[name], graph.shapes[name]) for name in given],
        [ValueInfoProto(name=name) for name in graph.outputs if name in made],
        [*(_stored(name, graph.constants[name], graph.elem_types[name]) for name in constants), *extra],
    )
    proto = helper.make_model(flat, opset_imports=model.opset_import, ir_version=model.ir_version)
    return bytes(proto.SerializeToString())


def _as_onnx(node: Node, graph: Graph, extra: list[onnx.TensorProto]) -> Iterator[onnx.NodeProto]:
    """An operation as ONNX writes it; extra: gets the constants that it needs besides its own."""
    import numpy as np
    from onnx import helper, numpy_helper

    def constant(values: object) -> str:
        extra.append(
            numpy_helper.from_array(np.asarray(values, np.int64), f"{node.outputs[0]}/own{len(extra)}")
        )
        return extra[-1].name

    if node.op == LOOP_VIEW:
        yield helper.make_node("Gather", [node.inputs[0], constant(0)], node.outputs, **node.attributes)
    elif node.op == LOOP_STACK:
        axis = node.attributes["axis"]
        parts = []
        for index, name in enumerate(node.inputs):
            shape = graph.shapes[name]
            parts.append(f"{node.outputs[0]}/part{index}")
            widened = constant((*shape[:axis], 1, *shape[axis:]))
            yield helper.make_node("Reshape", [name, widened], parts[-1:])
        yield helper.make_node("Concat", parts, node.outputs, axis=axis)
    else:
        inputs = list(node.inputs)
        if node.op == "Reshape" and node.outputs[0] in graph.shapes:  # the file may hold its own batch here
            inputs[1] = constant(graph.shapes[node.outputs[0]])
        proto = helper.make_node(node.op, inputs, node.outputs, name=node.name, domain=node.domain)
        given = {key: value for key, value in node.attributes.items() if value != []}
        proto.attribute.extend(helper.make_attribute(key, value) for key, value in given.items())
        yield proto


def _stored(name: str, constant: Constant, elem_type: int) -> onnx.TensorProto:
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    if constant.values is not None:
        return numpy_helper.from_array(constant.values, name)
    dtype = helper.tensor_dtype_to_np_dtype(elem_type)
    is_float = elem_type in (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
    values = np.full(constant.shape, 0.01 if is_float else 0, dtype)
    return TensorProto(name=name, data_type=elem_type, dims=constant.shape, raw_data=values.tobytes())
