"""Params are what the file stores, precision what its products compute in; what is unknown has a weight."""

from __future__ import annotations

import math

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_build import Build

from dsonas_hw.kernel.onnx.from_onnx import network_from_onnx


class TestStored:
    def test_a_weight_used_twice(self) -> None:
        build = Build(1, 8, 16, 16)
        w = build.weight(8, 8, 3, 3)
        y = build.add("Conv", build.add("Conv", "x", w, pads=[1] * 4), w, pads=[1] * 4)
        network = network_from_onnx(build.model(y))
        assert (network.params, network.costs.flops) == (576, 2 * 256 * 576)
        assert network.costs.mac == 2 * (2 * 8 * 256 + 576), "read once per use"

    def test_a_copy_through_identity(self) -> None:
        build = Build(1, 8, 16, 16)
        w = build.weight(8, 8, 3, 3)
        copied = build.add("Identity", w)
        y = build.add("Conv", build.add("Conv", "x", w, pads=[1] * 4), copied, pads=[1] * 4)
        assert network_from_onnx(build.model(y)).params == 576

    def test_a_tied_embedding(self) -> None:
        build = Build(1, 16, 4)
        table = build.weight(1000, 32)
        ids = build.input(1, 16, elem_type=TensorProto.INT64)
        y = build.add("MatMul", build.add("Gather", table, ids), build.add("Transpose", table, perm=[1, 0]))
        assert network_from_onnx(build.model(y)).params == 32_000

    def test_parts_of_one_weight_count_once_each(self) -> None:
        build = Build(1, 8)
        q, k = build.add("Split", build.weight(8, 10), num_outputs=2, axis=1)
        y = build.add("Add", build.add("MatMul", "x", q), build.add("MatMul", "x", k))
        assert network_from_onnx(build.model(y)).params == 80

    def test_a_shared_convolution_with_batch_norm(self) -> None:
        build = Build(1, 8, 4, 4)
        w, norm = build.weight(8, 8, 1, 1), [build.weight(8) for _ in range(4)]
        y = "x"
        for _ in range(3):
            y = build.add("Relu", build.add("BatchNormalization", build.add("Conv", y, w), *norm))
        assert network_from_onnx(build.model(y)).params == 64 + 8
        assert network_from_onnx(build.model(y), fuse=False).params == 64 + 16

    def test_one_weight_behind_two_batch_norms(self) -> None:
        build = Build(1, 8, 4, 4)
        w = build.weight(8, 8, 1, 1)
        y = build.batchnorm(build.add("Conv", build.batchnorm(build.add("Conv", "x", w), 8), w), 8)
        assert network_from_onnx(build.model(y)).params == 64 + 8 + 8


def product(elem_type: int, *, weight_type: int | None = None) -> Build:
    dtype = helper.tensor_dtype_to_np_dtype(weight_type or elem_type)
    build = Build(1, 8)
    build.inputs = [helper.make_tensor_value_info("x", elem_type, (1, 8))]
    build.w = build.constant(np.zeros((8, 8)), dtype)  # type: ignore[attr-defined]
    return build


class TestPrecision:
    @pytest.mark.parametrize(
        ("elem_type", "name"),
        [(TensorProto.FLOAT, "fp32"), (TensorProto.FLOAT16, "fp16"), (TensorProto.BFLOAT16, "bf16"),
         (TensorProto.DOUBLE, "fp64")],
    )  # fmt: skip
    def test_of_the_operands(self, elem_type: int, name: str) -> None:
        build = product(elem_type)
        assert network_from_onnx(build.model(build.add("MatMul", "x", build.w))).precision == name  # type: ignore[attr-defined]

    def test_casts_at_both_ends_do_not_hide_it(self) -> None:
        build = Build(1, 8)
        half = build.add("Cast", "x", to=TensorProto.FLOAT16)
        y = build.add("MatMul", half, build.constant(np.zeros((8, 8)), np.float16))
        network = network_from_onnx(build.model(build.add("Cast", y, to=TensorProto.FLOAT)))
        assert network.precision == "fp16"

    def quantised(self, *, activation: bool = True) -> onnx.ModelProto:
        build = Build(1, 8)
        scale, zero = build.constant(0.1), build.constant(0, np.int8)
        x = "x"
        if activation:
            x = build.add("DequantizeLinear", build.add("QuantizeLinear", "x", scale, zero), scale, zero)
        w = build.add("DequantizeLinear", build.constant(np.zeros((8, 8)), np.int8), scale, zero)
        return build.model(build.add("MatMul", build.add("Reshape", x, build.ints(1, 8)), w))

    def test_q_dq(self) -> None:
        network = network_from_onnx(self.quantised())
        assert (network.precision, network.params) == ("int8", 64)

    def test_weights_alone_in_8_bits_compute_in_fp32(self) -> None:
        assert network_from_onnx(self.quantised(activation=False)).precision == "fp32"

    def test_operator_form(self) -> None:
        build = Build(1, 8)
        build.inputs = [helper.make_tensor_value_info("x", TensorProto.UINT8, (1, 8))]
        s, z = build.constant(0.1), build.constant(0, np.uint8)
        y = build.add("QLinearMatMul", "x", s, z, build.constant(np.zeros((8, 8)), np.uint8), s, z, s, z)
        network = network_from_onnx(build.model(y))
        assert (network.precision, network.costs.flops, network.params) == ("int8", 64, 64)

    def test_most_of_the_flops_decide(self) -> None:
        build = product(TensorProto.FLOAT16)
        y = build.add("Cast", build.add("MatMul", "x", build.w), to=TensorProto.FLOAT)  # type: ignore[attr-defined]
        network = network_from_onnx(build.model(build.add("MatMul", y, build.weight(8, 2))))
        assert network.precision == "fp16"
        assert network.flops_in == {"fp16": 64, "fp32": 16}


def with_unknown(channels: int, *, weight: bool, shaped: bool = True) -> onnx.ModelProto:
    """A convolution of 8 channels at 64 × 64, and a custom operation over 1 × `channels`."""
    build = Build(1, 8, 64, 64)
    conv = build.conv("x", 8, 8, 3)
    small = build.input(1, channels)
    operands = [small, *([build.weight(channels, channels)] if weight else [])]
    y = build.add("Strange", *operands, domain="ai.example")
    model = build.model(conv, y, domains=[("ai.example", 1)])
    if shaped:
        model.graph.output[1].CopyFrom(helper.make_tensor_value_info(y, 1, (1, channels)))
    return model


class TestUnknown:
    # 64 · 64 · 8 · 72 multiply-adds + 4 · mac + 10,000 = 2,631,616 of work that is known
    def test_a_small_one_does_not_matter(self) -> None:
        network = network_from_onnx(with_unknown(8, weight=True))
        assert network.unknown == ("Strange (strange1)",)
        # 8 outputs · 8 weights each + 4 · (8 + 64 + 8) + 10,000
        assert network.unknown_fraction == pytest.approx((64 + 320 + 10_000) / 2_634_240, rel=0.01)
        assert network.is_known

    def test_one_that_holds_a_large_weight_does(self) -> None:
        network = network_from_onnx(with_unknown(1024, weight=True))
        assert not network.is_known, "1024² multiply-adds"
        assert network.params == 576 + 1024**2, "what it stores is known"

    def test_its_number_does_not_matter(self) -> None:
        assert network_from_onnx(with_unknown(1024, weight=False)).unknown_fraction > 0.05

    def test_without_a_shape_nothing_is_known_of_it(self) -> None:
        network = network_from_onnx(with_unknown(8, weight=False, shaped=False))
        assert network.unknown_fraction == math.inf


def test_elements_that_are_not_there_cost_nothing() -> None:
    build = Build(1, 8, 16, 16)
    build.inputs.append(helper.make_tensor_value_info("e", TensorProto.FLOAT, (1, 0, 16, 16)))
    y = build.conv(build.add("Concat", "x", build.add("Relu", "e"), axis=1), 8, 8, 3)
    network = network_from_onnx(build.model(y))
    assert [kernel.op for kernel in network.kernels] == ["concat", "conv"]
    assert network.kernels[0].inputs == ((1, 8, 16, 16),)
    assert network.input_shapes["e"] == (1, 0, 16, 16)


def test_a_stored_tensor_of_another_file_is_not_opened() -> None:
    build = Build(1, 8)
    tensor = numpy_helper.from_array(np.zeros((8, 8), np.float32), "w")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.ClearField("raw_data")
    tensor.external_data.add(key="location", value="weights.bin")
    build.initializers.append(tensor)
    assert network_from_onnx(build.model(build.add("MatMul", "x", "w"))).params == 64


def test_weights_of_what_runs_over_no_element_are_stored_all_the_same() -> None:
    build = Build(1, 8, "H", 16)
    network = network_from_onnx(build.model(build.conv("x", 8, 8, 3)), input_shapes={"x": (1, 8, 0, 16)})
    assert (network.costs.flops, network.costs.params, network.kernels) == (0, 8 * 8 * 9, ())
