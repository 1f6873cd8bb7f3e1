"""An fp32 model in half precision."""

from __future__ import annotations


def to_fp16(data: bytes, *, keep_io_types: bool = False) -> bytes:
    """Weights and activations in half precision; inputs and outputs too, unless their types are kept."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = convert_float_to_float16(onnx.load_model_from_string(data), keep_io_types=keep_io_types)
    return bytes(model.SerializeToString())
