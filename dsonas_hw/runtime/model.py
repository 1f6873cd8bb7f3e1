"""The bytes of an ONNX model, and what they say of themselves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dsonas_hw.errors import ModelFileError
from dsonas_hw.files import read_regular

if TYPE_CHECKING:
    import onnx

MAX_MODEL_BYTES = 2**31 - 1


def is_quantised(data: bytes) -> bool:
    """Whether an ONNX model says itself what is int8, with Q/DQ nodes.

    Raises:
        ModelFileError: not a model.
    """
    return any(node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in onnx_graph(data).node)


def onnx_graph(data: bytes) -> onnx.GraphProto:
    """The graph of a serialised model.

    Raises:
        ModelFileError: not a model.
    """
    import onnx

    try:
        return onnx.load_model_from_string(data).graph
    except Exception as error:  # protobuf's own error class differs between its versions
        raise ModelFileError(f"not an ONNX model: {error}") from error


def name_nodes(model: bytes) -> bytes:
    """The same network, each of its nodes under a name of its own: events are matched with nodes by name."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        proto = onnx.load_model_from_string(model)
    except DecodeError:
        return model  # the runtime says what is wrong with it
    names = [node.name for node in proto.graph.node]
    if all(names) and len(set(names)) == len(names):
        return model
    for index, node in enumerate(proto.graph.node):
        node.name = f"node{index}"
    return bytes(proto.SerializeToString())


def to_fp16(data: bytes, *, keep_io_types: bool = False) -> bytes:
    """The network in half precision, with its inputs and outputs unless their types are kept."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = convert_float_to_float16(onnx.load_model_from_string(data), keep_io_types=keep_io_types)
    return bytes(model.SerializeToString())


def read_model(model: bytes | Path) -> bytes:
    """The bytes of a model.

    Raises:
        ModelFileError: missing, unreadable, empty or too large.
    """
    if isinstance(model, bytes):
        return model
    try:
        data = read_regular(model, max_bytes=MAX_MODEL_BYTES)
    except OSError as error:
        raise ModelFileError(f"cannot read {model}: {error.strerror or error}") from error
    if not data:
        raise ModelFileError(f"{model} is empty, not an ONNX model")
    return data
