"""Networks of a few operations, with their kernels, counts and golden numbers worked out by hand."""

from __future__ import annotations

from typing import Any

import onnx
import pytest
from onnx_build import Build

from dsonas_hw.kernel.costs import count_costs
from dsonas_hw.kernel.onnx.from_onnx import network_from_onnx
from dsonas_hw.kernel.spec import Kernel


def kernels(model: onnx.ModelProto, **options: Any) -> tuple[Kernel, ...]:
    network = network_from_onnx(model, **options)
    assert network.unknown == ()
    return network.kernels


def only(model: onnx.ModelProto, **options: Any) -> Kernel:
    (kernel,) = kernels(model, **options)
    return kernel


def sep_conv(kernel: int, channels: int, size: int) -> onnx.ModelProto:
    build = Build(1, channels, size, size)
    depthwise = build.conv("x", channels, channels, kernel, group=channels)
    pointwise = build.conv(depthwise, channels, channels, 1)
    return build.model(build.add("Relu", build.batchnorm(pointwise, channels)))


def pool(op: str, channels: int, size: int) -> onnx.ModelProto:
    build = Build(1, channels, size, size)
    pooled = build.add(op, "x", kernel_shape=[3, 3], strides=[1, 1], pads=[1] * 4)
    return build.model(build.add("Relu", build.batchnorm(pooled, channels)))


def pointwise(channels_in: int, channels_out: int, size: int) -> onnx.ModelProto:
    build = Build(1, channels_in, size, size)
    return build.model(build.conv("x", channels_in, channels_out, 1))


class TestGolden:
    def test_multiply_adds_of_the_search_space(self) -> None:
        # 32·32·48·(k² + 48): the depthwise k × k and the 1 × 1 behind it
        assert count_costs(kernels(sep_conv(3, 48, 32))).flops == 32 * 32 * 48 * (9 + 48) == 2_801_664
        assert count_costs(kernels(sep_conv(5, 48, 32))).flops == 32 * 32 * 48 * (25 + 48) == 3_588_096
        # the block output's 1 × 1 over 16 branches
        assert count_costs(kernels(pointwise(16 * 48, 48, 32))).flops == 32 * 32 * 768 * 48 == 37_748_736

    def test_mac_of_the_operations_relative_to_sep_conv_5(self) -> None:
        # h = w = 16, c = 96. Separable: depthwise reads and writes hwc, so does the 1 × 1: 4hwc + k²c + c².
        mac = {k: count_costs(kernels(sep_conv(k, 96, 16))).mac for k in (3, 5)}
        assert mac[3] == 4 * 256 * 96 + 9 * 96 + 96 * 96
        assert mac[5] == 4 * 256 * 96 + 25 * 96 + 96 * 96
        assert mac[3] / mac[5] == pytest.approx(0.986, abs=5e-4)
        for op in ("AveragePool", "MaxPool"):  # its BN and ReLU are fused: 2hwc
            assert count_costs(kernels(pool(op, 96, 16))).mac / mac[5] == pytest.approx(0.447, abs=5e-4)
        branch = count_costs(kernels(pointwise(96, 96, 16))).mac  # 2hwc + c²
        assert branch / mac[5] == pytest.approx(0.531, abs=5e-4)

    def test_fused_pool_is_one_kernel(self) -> None:
        kernel = only(pool("MaxPool", 96, 16))
        assert kernel.key == "maxpool(1x96x16x16)->1x96x16x16;k3x3,s1x1+bn+relu"
        assert kernel.num_bias == 2 * 96


class TestFolding:
    def test_bn_in_the_file_reads_as_if_the_exporter_had_folded_it(self) -> None:
        with_bn = Build(1, 8, 6, 6)
        normed = with_bn.batchnorm(with_bn.conv("x", 8, 16, 3), 16)
        folded = Build(1, 8, 6, 6)
        biased = folded.conv("x", 8, 16, 3, bias=True)
        assert kernels(with_bn.model(with_bn.add("Relu", normed))) == kernels(
            folded.model(folded.add("Relu", biased))
        )

    def test_unfused_keeps_each_operation_and_fusing_costs_no_flops_and_no_mac(self) -> None:
        model = sep_conv(3, 8, 6)
        eager, fused = kernels(model, fuse=False), kernels(model)
        assert [k.op for k in eager] == ["conv", "conv", "batchnorm", "unary"]
        assert eager[2].num_bias == 2 * 8
        assert count_costs(fused).flops == count_costs(eager).flops
        assert count_costs(fused).mac <= count_costs(eager).mac
        # scale and shift of the BN, 2 · 8, become the convolution's bias, 8
        assert count_costs(eager).params - count_costs(fused).params == 8

    def test_bn_folds_into_transposed_convolution_and_linear_layer(self) -> None:
        build = Build(2, 8, 4, 4)
        up = build.add("ConvTranspose", "x", build.weight(8, 6, 2, 2), strides=[2, 2])
        kernel = only(build.model(build.batchnorm(up, 6)))
        assert (kernel.op, kernel.output, kernel.num_bias) == ("conv_transpose", (2, 6, 8, 8), 6)
        # each of 2·8·4·4 inputs meets 6·2·2 weights
        assert kernel.flops == 2 * 8 * 4 * 4 * 6 * 2 * 2

        build = Build(2, 8)
        linear = build.add("Gemm", "x", build.weight(5, 8), build.weight(5), transB=1)
        kernel = only(build.model(build.batchnorm(linear, 5)))
        assert (kernel.op, kernel.num_weights, kernel.num_bias) == ("gemm", 40, 5)

    @pytest.mark.parametrize(("op", "num_bias"), [("Mul", 0), ("Div", 0), ("Add", 16), ("Sub", 16)])
    def test_constant_per_channel_folds_like_a_bn(self, op: str, num_bias: int) -> None:
        for shape in ((16, 1, 1), (1, 16, 1, 1), (1,)):
            build = Build(1, 8, 6, 6)
            conv = build.conv("x", 8, 16, 1)
            assert only(build.model(build.add(op, conv, build.weight(*shape)))).num_bias == num_bias

    def test_constant_along_the_width_does_not_fold(self) -> None:
        build = Build(1, 8, 6, 6)
        scaled = build.add("Mul", build.conv("x", 8, 16, 1), build.weight(6))
        conv, mul = kernels(build.model(scaled))
        assert (conv.op, mul.op, mul.num_weights, mul.inputs) == ("conv", "mul", 6, ((1, 16, 6, 6),))

    def test_padding_in_front_of_a_convolution_is_its_own(self) -> None:
        build = Build(1, 3, 8, 8)
        padded = build.add("Pad", "x", build.ints(0, 0, 0, 0, 0, 0, 1, 1))
        model = build.model(build.conv(padded, 3, 4, 3, strides=[2, 2], pads=[0] * 4))
        assert only(model).key == "conv(1x3x8x8)->1x4x4x4;k3x3,s2x2"
        assert [k.op for k in kernels(model, fuse=False)] == ["copy", "conv"]

    def test_cropping_in_front_of_a_convolution_is_a_kernel(self) -> None:
        build = Build(1, 3, 8, 8)
        cropped = build.add("Pad", "x", build.ints(0, 0, 0, -1, 0, 0, 1, 0))
        crop, _ = kernels(build.model(build.conv(cropped, 3, 4, 3)))
        assert crop.key == "copy(1x3x8x8)->1x3x9x7;pad"

    def test_reflected_padding_is_a_kernel(self) -> None:
        build = Build(1, 3, 8, 8)
        padded = build.add("Pad", "x", build.ints(0, 0, 1, 1, 0, 0, 1, 1), mode="reflect")
        pad, _ = kernels(build.model(build.conv(padded, 3, 4, 3, pads=[0] * 4)))
        assert pad.key == "copy(1x3x8x8)->1x3x10x10;pad_reflect"


class TestLinear:
    def test_product_with_a_constant_is_a_linear_layer(self) -> None:
        build = Build(2, 7, 8)
        product = build.add("MatMul", "x", build.weight(8, 5))
        for fuse in (True, False):
            kernel = only(build.model(build.add("Add", product, build.weight(5))), fuse=fuse)
            assert kernel.key == "gemm(2x7x8)->2x7x5"
            assert (kernel.num_weights, kernel.num_bias) == (40, 5)
            assert kernel.flops == 2 * 7 * 8 * 5
            assert kernel.mac == 2 * 7 * 8 + 2 * 7 * 5 + 40

    def test_constant_on_the_left(self) -> None:
        # (5 × 7) · (2 × 7 × 8): each of 2·5·8 results sums 7 products
        build = Build(2, 7, 8)
        kernel = only(build.model(build.add("MatMul", build.weight(5, 7), "x")))
        assert (kernel.op, kernel.inputs, kernel.output) == ("gemm", ((2, 8, 7),), (2, 8, 5))
        assert kernel.flops == 2 * 5 * 8 * 7

    def test_positional_table_is_no_bias(self) -> None:
        build = Build(2, 7, 8)
        product = build.add("MatMul", "x", build.weight(8, 8))
        gemm, add = kernels(build.model(build.add("Add", product, build.weight(1, 7, 8))))
        assert (gemm.num_bias, add.op, add.num_weights) == (0, "sum", 56)

    def test_transposed_gemm(self) -> None:
        build = Build(8, 2)
        kernel = only(build.model(build.add("Gemm", "x", build.weight(8, 5), transA=1)))
        assert (kernel.inputs, kernel.output, kernel.flops) == (((2, 8),), (2, 5), 2 * 8 * 5)

    def test_attention_products(self) -> None:
        build = Build(2, 4, 9, 16)
        keys, values = build.input(2, 4, 16, 9), build.input(2, 4, 9, 16)
        weights = build.add("Softmax", build.add("MatMul", "x", keys), axis=-1)
        scores, softmax, product = kernels(build.model(build.add("MatMul", weights, values)))
        assert (scores.op, scores.flops, scores.num_weights) == ("matmul", 2 * 4 * 9 * 9 * 16, 0)
        assert softmax.op == "softmax"
        assert product.flops == 2 * 4 * 9 * 9 * 16

    @pytest.mark.skipif(onnx.defs.onnx_opset_version() < 23, reason="this onnx has no Attention yet")
    def test_attention_operation(self) -> None:
        build = Build(2, 9, 64, opset=23)
        keys, mask = build.input(2, 7, 64), build.input(9, 7)
        y = build.add("Attention", "x", keys, keys, mask, q_num_heads=4, kv_num_heads=4)
        scores, softmax, product = kernels(build.model(y))
        assert scores.flops == product.flops == 2 * 4 * 9 * 7 * 16
        assert softmax.inputs == ((2, 4, 9, 7), (9, 7))

    @pytest.mark.parametrize(
        ("equation", "left", "right", "flops"),
        [
            ("bhqd,bhkd->bhqk", (2, 4, 9, 16), (2, 4, 7, 16), 2 * 4 * 9 * 7 * 16),
            ("bqhd,bkhd->bhqk", (2, 9, 4, 16), (2, 7, 4, 16), 2 * 4 * 9 * 7 * 16),
            ("nctv,vw->nctw", (2, 3, 5, 7), (7, 11), 2 * 3 * 5 * 7 * 11),
            ("...v,vw->...w", (2, 3, 5, 7), (7, 11), 2 * 3 * 5 * 7 * 11),
            ("...qd,...dk", (2, 3, 5, 7), (2, 3, 7, 11), 2 * 3 * 5 * 7 * 11),
            ("jk,ij", (3, 5), (2, 3), 2 * 3 * 5),
        ],
    )
    def test_einsum_of_two_is_a_product(
        self, equation: str, left: tuple[int, ...], right: tuple[int, ...], flops: int
    ) -> None:
        build = Build(*left)
        dynamic = only(build.model(build.add("Einsum", "x", build.input(*right), equation=equation)))
        assert (dynamic.op, dynamic.flops) == ("matmul", flops)
        build = Build(*left)
        constant = only(build.model(build.add("Einsum", "x", build.weight(*right), equation=equation)))
        assert (constant.op, constant.flops) == ("gemm", flops)

    def test_other_einsum_is_unknown(self) -> None:
        build = Build(2, 3, 3)
        network = network_from_onnx(build.model(build.add("Einsum", "x", equation="bii->b")))
        assert network.unknown == ("Einsum (einsum0)",)
        assert network.peak_activation_elements is None


class TestConvolution:
    def test_groups_stride_dilation(self) -> None:
        build = Build(1, 8, 16, 16)
        model = build.model(
            build.conv("x", 8, 12, 3, group=4, strides=[2, 2], dilations=[2, 2], pads=[2] * 4)
        )
        kernel = only(model)
        assert kernel.key == "conv(1x8x16x16)->1x12x8x8;k3x3,s2x2,d2x2,g4"
        # every one of 12·8·8 outputs sees 8/4 channels of 3 × 3
        assert kernel.flops == 12 * 8 * 8 * 2 * 9
        assert kernel.num_weights == 12 * 2 * 9

    def test_sequence_is_an_image_of_height_one(self) -> None:
        build = Build(2, 4, 10)
        conv = build.add("Conv", "x", build.weight(6, 4, 3), pads=[1, 1], strides=[2])
        pooled = build.add("MaxPool", build.add("Relu", conv), kernel_shape=[2], strides=[2])
        first, second = kernels(build.model(pooled))
        assert first.key == "conv(2x4x1x10)->2x6x1x5;k1x3,s1x2+relu"
        assert second.key == "maxpool(2x6x1x5)->2x6x1x2;k1x2,s1x2"
        assert first.flops == 2 * 6 * 5 * 4 * 3

    def test_volume(self) -> None:
        build = Build(1, 3, 4, 5, 6)
        conv = build.add("Conv", "x", build.weight(5, 3, 3, 1, 2), strides=[1, 2, 3])
        kernel = only(build.model(build.add("Relu", conv)))
        # (4 - 3) / 1 + 1 = 2, (5 - 1) / 2 + 1 = 3, (6 - 2) / 3 + 1 = 2
        assert kernel.key == "conv(1x3x4x5x6)->1x5x2x3x2;k3x1x2,s1x2x3+relu"
        assert kernel.flops == 5 * (2 * 3 * 2) * (3 * 3 * 1 * 2)

    def test_convolution_of_two_activations_stores_nothing(self) -> None:
        build = Build(1, 4, 8, 8)
        kernel = only(build.model(build.add("Conv", "x", build.input(6, 4, 3, 3))))
        assert (kernel.num_weights, kernel.params) == (0, 0)
        assert kernel.flops == 6 * 6 * 6 * 4 * 9

    def test_what_onnxruntime_fused_already(self) -> None:
        build = Build(1, 8, 4, 4)
        residual = build.input(1, 6, 4, 4)
        operands = ("x", build.weight(6, 8, 1, 1), build.weight(6), residual)
        y = build.add("FusedConv", *operands, domain="com.microsoft", activation="Relu")
        y = build.add("QuickGelu", y, domain="com.microsoft")
        conv, gelu = kernels(build.model(y, domains=[("com.microsoft", 1)]))
        assert conv.key == "conv(1x8x4x4,1x6x4x4)->1x6x4x4;k1x1,s1x1+relu"
        assert gelu.function == "quickgelu"

    def test_quantised_convolution(self) -> None:
        build = Build(1, 4, 8, 8)
        scale, zero = build.constant(0.5), build.constant(0, "int8")
        x = build.add("DequantizeLinear", build.add("QuantizeLinear", "x", scale, zero), scale, zero)
        weight = build.add("DequantizeLinear", build.constant([[[[0]] * 1] * 4] * 6, "int8"), scale, zero)
        y = build.add("Relu", build.add("Conv", x, weight))
        model = build.model(build.add("QuantizeLinear", y, scale, zero))
        kernel = only(model)
        assert (kernel.key, kernel.num_weights) == ("conv(1x4x8x8)->1x6x8x8;k1x1,s1x1+relu", 24)
        assert [k.function for k in kernels(model, fuse=False) if k.op == "unary"] == [
            "quantize",
            "dequantize",
            "relu",
            "quantize",
        ]


class TestViewsAndCopies:
    def test_views_run_nothing(self) -> None:
        build = Build(2, 8, 1, 1)
        y = build.add("Identity", build.add("Dropout", "x"))
        y = build.add("Unsqueeze", build.add("Flatten", y), build.ints(0))
        y = build.add("Squeeze", build.add("Reshape", y, build.ints(2, -1, 1, 1)), build.ints(3))
        y = build.add("Transpose", y, perm=[2, 0, 1])  # moves an axis of size one only
        assert kernels(build.model(y)) == ()

    def test_shape_arithmetic_runs_nothing(self) -> None:
        build = Build(2, 8, 4, 4)
        shape = build.add("Shape", "x")
        batch = build.add("Unsqueeze", build.add("Gather", shape, build.constant(0, "int64")), build.ints(0))
        flat = build.add("Reshape", "x", build.add("Concat", batch, build.ints(-1), axis=0))
        kernel = only(build.model(build.add("Gemm", flat, build.weight(128, 3))))
        assert kernel.key == "gemm(2x128)->2x3"

    def test_channel_shuffle_is_one_copy(self) -> None:
        build = Build(1, 8, 4, 4)
        y = build.add("Reshape", "x", build.ints(1, 2, 4, 4, 4))
        y = build.add("Reshape", build.add("Transpose", y, perm=[0, 2, 1, 3, 4]), build.ints(1, 8, 4, 4))
        copy, _ = kernels(build.model(build.conv(y, 8, 8, 1)))
        assert (copy.op, copy.function, copy.mac) == ("copy", "transpose", 2 * 8 * 4 * 4)

    def test_split_and_concat(self) -> None:
        build = Build(1, 8, 4, 4)
        left, right = build.add("Split", "x", num_outputs=2, axis=1)
        model = build.model(build.add("Concat", right, build.conv(left, 4, 4, 1), axis=1))
        network = network_from_onnx(model)
        split, conv, concat = network.kernels
        assert (split.function, split.mac) == ("split", 2 * 128)
        assert conv.inputs == ((1, 4, 4, 4),)
        assert concat.mac == 2 * 128
        # both parts (128 together) + the convolution's output 64 + the concatenation 128
        assert network.peak_activation_elements == 128 + 64 + 128

    def test_slice_reads_what_it_takes(self) -> None:
        build = Build(1, 8, 4, 4)
        kernel = only(build.model(build.add("Slice", "x", build.ints(0), build.ints(2), build.ints(1))))
        assert (kernel.inputs, kernel.output, kernel.mac) == (((1, 2, 4, 4),), (1, 2, 4, 4), 64)

    def test_reversal_is_no_view(self) -> None:
        build = Build(1, 8, 4, 4)
        operands = (build.ints(-1), build.ints(-100), build.ints(3), build.ints(-1))
        assert only(build.model(build.add("Slice", "x", *operands))).mac == 2 * 128

    def test_embedding_stores_its_table_and_reads_a_row_each(self) -> None:
        build = Build(1, 2)
        tokens = build.input(1, 6, elem_type=onnx.TensorProto.INT64)
        kernel = only(build.model(build.add("Gather", build.weight(100, 16), tokens)))
        assert kernel.params == 1600
        assert kernel.mac == 6 * 16 + 6 + 6 * 16

    def test_resize(self) -> None:
        build = Build(1, 8, 4, 4)
        scales = build.constant([1, 1, 2, 2])
        kernel = only(build.model(build.add("Resize", "x", "", scales, mode="linear")))
        assert kernel.key == "resize(1x8x4x4)->1x8x8x8;linear"

    def test_dead_code_does_not_run(self) -> None:
        build = Build(1, 8, 4, 4)
        build.conv("x", 8, 64, 3)
        assert kernels(build.model(build.add("Relu", "x"))) == (
            Kernel(op="unary", function="relu", inputs=((1, 8, 4, 4),), output=(1, 8, 4, 4)),
        )


class TestElementwiseAndReductions:
    def test_sum_of_many_is_one_kernel_and_a_chain_is_many(self) -> None:
        build = Build(1, 8, 4, 4)
        others = [build.input(1, 8, 4, 4) for _ in range(3)]
        kernel = only(build.model(build.add("Relu", build.add("Sum", "x", *others))))
        assert (kernel.op, len(kernel.inputs), kernel.epilogue) == ("sum", 4, ("relu",))
        assert kernel.mac == 5 * 128
        chain = build.add("Add", build.add("Add", "x", others[0]), others[1])
        assert [len(k.inputs) for k in kernels(build.model(chain))] == [2, 2]

    def test_a_number_is_no_parameter(self) -> None:
        build = Build(1, 8)
        kernel = only(build.model(build.add("Mul", "x", build.constant([0.5]))))
        assert (kernel.op, kernel.params, kernel.mac) == ("mul", 0, 16)

    def test_a_repeated_constant_is_stored_once(self) -> None:
        build = Build(4, 8, 8)
        token = build.add("Expand", build.weight(1, 1, 8), build.ints(4, 1, 1))
        (kernel,) = kernels(build.model(build.add("Concat", token, "x", axis=1)))
        assert (kernel.output, kernel.params) == ((4, 9, 8), 8)

    def test_squeeze_and_excitation(self) -> None:
        build = Build(1, 8, 4, 4)
        squeezed = build.add("ReduceMean", "x", axes=[2, 3])
        gate = build.add("Sigmoid", build.conv(squeezed, 8, 8, 1))
        pooled, conv, mul = kernels(build.model(build.add("Mul", "x", gate)))
        assert pooled.key == "global_avgpool(1x8x4x4)->1x8x1x1"
        assert conv.epilogue == ("sigmoid",)
        assert mul.inputs == ((1, 8, 4, 4), (1, 8, 1, 1))

    def test_mean_over_the_image_is_a_global_pool_however_it_is_written(self) -> None:
        keys = set()
        for axes, keepdims in (([2, 3], 1), ([-1, -2], 0)):
            build = Build(1, 8, 4, 4)
            model = build.model(build.add("ReduceMean", "x", axes=axes, keepdims=keepdims))
            keys.add(only(model).key)
            build = Build(1, 8, 4, 4, opset=18)
            reduced = build.add("ReduceMean", "x", build.ints(*axes), keepdims=keepdims)
            keys.add(only(build.model(reduced)).key)
        build = Build(1, 8, 4, 4)
        keys.add(only(build.model(build.add("GlobalAveragePool", "x"))).key)
        assert keys == {"global_avgpool(1x8x4x4)->1x8x1x1"}

    def test_other_reductions(self) -> None:
        build = Build(1, 8, 4, 4)
        kernel = only(build.model(build.add("ReduceMax", "x", axes=[1], keepdims=0)))
        assert (kernel.op, kernel.function, kernel.output) == ("reduce", "max", (1, 4, 4))

    @pytest.mark.parametrize("op", ["Where", "Pow", "Sqrt", "Min", "Mean", "Softplus", "LRN", "LogSoftmax"])
    def test_is_known(self, op: str) -> None:
        build = Build(1, 8, 4, 4)
        other = build.input(1, 8, 4, 4)
        condition = build.add("Greater", "x", other)
        operands = {"Where": (condition, "x", other), "Pow": ("x", other), "Min": ("x", other)}
        attributes = {"LRN": {"size": 3}}.get(op, {})
        y = build.add(op, *operands.get(op, ("x",) if op != "Mean" else ("x", other)), **attributes)
        assert network_from_onnx(build.model(y)).unknown == ()

    def test_norms_store_scale_and_shift(self) -> None:
        build = Build(2, 8, 4, 4)
        y = build.add("InstanceNormalization", "x", build.weight(8), build.weight(8))
        y = build.add("LayerNormalization", y, build.weight(4), build.weight(4), axis=-1)
        y = build.add("LRN", y, size=3)
        assert [(k.op, k.num_bias) for k in kernels(build.model(y))] == [
            ("instancenorm", 16),
            ("layernorm", 8),
            ("lrn", 0),
        ]

    def test_group_norm_as_torch_writes_it(self) -> None:
        build = Build(2, 8, 4, 4)
        y = build.add("Reshape", "x", build.ints(0, 2, -1))
        y = build.add("InstanceNormalization", y, build.weight(2), build.weight(2))
        y = build.add("Reshape", y, build.ints(2, 8, 4, 4))
        y = build.add("Add", build.add("Mul", y, build.weight(8, 1, 1)), build.weight(8, 1, 1))
        kernel = only(build.model(build.add("Relu", y)))
        assert kernel.key == "groupnorm(2x8x4x4)->2x8x4x4+relu"
        assert kernel.num_bias == 16


class TestUnknown:
    def test_is_listed_once_each_and_the_rest_is_counted(self) -> None:
        build = Build(1, 8, 4, 4)
        y = build.add("Frobnicate", "x", domain="ai.example")
        build.nodes[-1].name = "odd"
        conv = build.conv("x", 8, 8, 1)
        network = network_from_onnx(build.model(y, conv, domains=[("ai.example", 1)]))
        assert network.unknown == ("Frobnicate (odd)",)
        assert [k.op for k in network.kernels] == ["conv"]

    def test_what_follows_is_unknown_too_unless_the_file_states_its_shape(self) -> None:
        build = Build(1, 8, 4, 4)
        y = build.add("Frobnicate", "x", domain="ai.example")
        model = build.model(build.add("Relu", y), domains=[("ai.example", 1)])
        assert network_from_onnx(model).unknown == ("Frobnicate (frobnicate0)", "Relu (relu1)")
        model.graph.value_info.append(onnx.helper.make_tensor_value_info(y, 1, (1, 8, 2, 2)))
        network = network_from_onnx(model)
        assert network.unknown == ("Frobnicate (frobnicate0)",)
        assert network.kernels[0].output == (1, 8, 2, 2)

    def test_loop_whose_length_the_input_decides_is_unknown(self) -> None:
        body = onnx.helper.make_graph(
            [onnx.helper.make_node("Add", ["state", "t0"], ["next"])],
            "body",
            [onnx.helper.make_tensor_value_info(n, t, []) for n, t in (("i", 7), ("go", 9))]
            + [onnx.helper.make_tensor_value_info("state", 1, (1, 8))],
            [onnx.helper.make_tensor_value_info(n, t, s) for n, t, s in (("go", 9, []), ("next", 1, (1, 8)))],
        )
        build = Build(1, 8)
        build.add("Relu", "x")  # read by the body only
        trips = build.add("ReduceMax", build.add("Cast", "x", to=7), keepdims=0)
        y = build.add("Loop", trips, "", "x", body=body)
        network = network_from_onnx(build.model(y))
        assert network.unknown == ("Loop (loop3)",)
        assert [k.function for k in network.kernels] == ["relu", "cast", "max"]

    def test_branch_of_a_constant_condition_is_followed(self) -> None:
        def branch(op: str) -> onnx.GraphProto:
            node = onnx.helper.make_node(op, ["x"], ["y"])
            return onnx.helper.make_graph([node], op, [], [onnx.helper.make_tensor_value_info("y", 1, None)])

        build = Build(1, 8)
        condition = build.constant(True, "bool")
        y = build.add("If", condition, then_branch=branch("Relu"), else_branch=branch("Sigmoid"))
        assert only(build.model(y)).function == "relu"

    def test_functions_of_the_model_are_expanded(self) -> None:
        build = Build(1, 8, 4, 4)
        y = build.add("Twice", "x", domain="local")
        model = build.model(y, domains=[("local", 1)])
        body = [onnx.helper.make_node("Relu", ["a"], ["b"]), onnx.helper.make_node("Sigmoid", ["b"], ["c"])]
        opsets = [onnx.helper.make_opsetid("", 17)]
        model.functions.append(onnx.helper.make_function("local", "Twice", ["a"], ["c"], body, opsets))
        assert [k.function for k in kernels(model)] == ["relu", "sigmoid"]


@pytest.mark.parametrize("opset", range(7, onnx.defs.onnx_opset_version() + 1))
def test_opset(opset: int) -> None:
    build = Build(2, 3, 8, 8, opset=opset)
    y = build.add("Relu", build.batchnorm(build.conv("x", 3, 8, 3), 8))
    y = build.add("Flatten", build.add("MaxPool", y, kernel_shape=[2, 2], strides=[2, 2]))
    y = build.add("Softmax", build.add("Gemm", y, build.weight(128, 5), build.weight(5)))
    assert [(k.op, k.output, k.params, k.epilogue) for k in kernels(build.model(y))] == [
        ("conv", (2, 8, 8, 8), 8 * 3 * 9 + 8, ("relu",)),
        ("maxpool", (2, 8, 4, 4), 0, ()),
        ("gemm", (2, 5), 128 * 5 + 5, ()),
        ("softmax", (2, 5), 0, ()),
    ]


def test_the_model_is_not_modified() -> None:
    model = sep_conv(3, 8, 6)
    before = model.SerializeToString(deterministic=True)
    network_from_onnx(model, batch_size=4)
    assert model.SerializeToString(deterministic=True) == before
