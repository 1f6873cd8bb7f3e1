"""Which models in int8 TensorRT takes, made by ONNX Runtime's own quantisation."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from dsonas_hw.runtime.quantised import QUANTISE, why_not_for_tensorrt


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """conv with bias → ReLU."""
    rng = np.random.default_rng(0)
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w", "b"], ["h"], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["h"], ["y"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 8, 8])],
        [
            numpy_helper.from_array(rng.standard_normal((4, 3, 3, 3)).astype(np.float32), "w"),
            numpy_helper.from_array(rng.standard_normal(4).astype(np.float32), "b"),
        ],
    )
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


def quantise(model: Path, arguments: str) -> bytes:
    """What `quantize_static` makes of it, with these arguments after the reader's."""
    quantization: Any = pytest.importorskip("onnxruntime.quantization")

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            rng = np.random.default_rng(1)
            inputs = ({"x": rng.random((1, 3, 8, 8), np.float32)} for _ in range(4))
            self.inputs: Iterator[dict[str, Any]] = inputs

        def get_next(self) -> dict[str, Any] | None:
            return next(self.inputs, None)

    logging.disable(logging.WARNING)
    written = model.with_name("int8.onnx")
    try:
        call = f"quantize_static(model, written, reader, {arguments})"
        eval(call, {**vars(quantization), "model": model, "written": written, "reader": Reader()})
    finally:
        logging.disable(logging.NOTSET)
    return written.read_bytes()


def test_what_the_hint_says_makes_a_model_that_is_taken(model: Path) -> None:
    arguments = QUANTISE.partition("(…, ")[2].rpartition(")")[0]
    assert why_not_for_tensorrt(quantise(model, arguments)) == ""


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ("quant_format=QuantFormat.QDQ", "is quantised"),
        (
            "quant_format=QuantFormat.QDQ, activation_type=QuantType.QUInt8, "
            'extra_options={"QuantizeBias": False}',
            "quantised to uint8",
        ),
        (
            "quant_format=QuantFormat.QDQ, activation_type=QuantType.QInt8, "
            'extra_options={"QuantizeBias": False}',
            "quantised around a zero point of -128",
        ),
        (
            "quant_format=QuantFormat.QDQ, activation_type=QuantType.QInt8, "
            'extra_options={"ActivationSymmetric": True}',
            "bias 'b_quantized' is quantised to int32",
        ),
    ],
)
def test_what_the_library_makes_by_itself_is_refused_with_the_way_to_make_it(
    model: Path, arguments: str, reason: str
) -> None:
    found = why_not_for_tensorrt(quantise(model, arguments))
    assert reason in found
    assert found.endswith(QUANTISE)
    assert "\n" not in found
