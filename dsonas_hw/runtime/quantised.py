"""What TensorRT asks of a model in int8: Q/DQ nodes that are symmetric, and biases that are not quantised.

`onnxruntime.quantization` makes neither unless it is told to: its activations have a zero point of −128, its
biases are int32 (TensorRT #4698, onnxruntime #14229).
"""

from __future__ import annotations

from typing import Any

from dsonas_hw.runtime.model import onnx_graph

QUANTISE = (
    "quantise it with onnxruntime.quantization.quantize_static(…, quant_format=QuantFormat.QDQ, "
    "activation_type=QuantType.QInt8, weight_type=QuantType.QInt8, "
    'extra_options={"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False})'
)
"""How to make a model that TensorRT takes."""


def why_not_for_tensorrt(data: bytes) -> str:
    """Why TensorRT would refuse a model with Q/DQ nodes, in one line; empty if nothing is known against it.

    Raises:
        ModelFileError: not a model.
    """
    import numpy as np
    from onnx import TensorProto, numpy_helper

    graph = onnx_graph(data)
    constants: dict[str, Any] = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            constants |= {name: a.t for name in node.output for a in node.attribute if a.name == "value"}
    for node in graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        source = constants.get(node.input[0])
        if source is not None and source.data_type == TensorProto.INT32:
            return f"its bias {node.input[0]!r} is quantised to int32; {QUANTISE}"
        zero = constants.get(node.input[2]) if len(node.input) > 2 and node.input[2] else None
        if zero is None:
            continue
        if zero.data_type == TensorProto.UINT8:
            return f"{node.input[0]!r} is quantised to uint8; {QUANTISE}"
        values = np.unique(numpy_helper.to_array(zero).astype(np.int64))
        if values.any():
            return (
                f"{node.input[0]!r} is quantised around a zero point of {values[values != 0][0]}; {QUANTISE}"
            )
    return ""
