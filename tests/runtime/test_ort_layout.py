"""What ONNX Runtime makes of a few operations, worked out by hand for blocks of 16 channels.

`test_deployed_modules.py` compares the same with ONNX Runtime itself, on the blocks that the processor has.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "kernel"))

from onnx_build import Build

from dsonas_hw.kernel.onnx.from_onnx import network_from_onnx
from dsonas_hw.runtime.ort_cpu.layout import Blocks


def keys(build: Build, output: str, block_size: int = 16) -> list[str]:
    network = network_from_onnx(build.model(output))
    schedule, unknown = network.schedule, network.unknown
    assert unknown == ()
    return [kernel.key for kernel in Blocks(block_size=block_size).kernels(schedule)]


def test_a_reshaped_output_is_a_kernel() -> None:
    build = Build(1, 10, 4, 4)
    output = build.add("Flatten", build.add("GlobalAveragePool", "x"), axis=1)
    assert keys(build, output) == [
        "global_avgpool(1x10x4x4)->1x10x1x1",
        "copy(1x10x1x1)->1x10;view",
    ]


def test_a_slice_of_a_reshaped_tensor_reads_the_reshape() -> None:
    """ShuffleNet's shuffle, and half of its channels: the reshapes on both sides of the transpose run."""
    build = Build(1, 8, 3, 3)
    split = build.add("Reshape", "x", build.ints(1, 2, 4, 3, 3))
    mixed = build.add("Transpose", split, perm=[0, 2, 1, 3, 4])
    joined = build.add("Reshape", mixed, build.ints(1, 8, 3, 3))
    output = build.add("Slice", joined, build.ints(0), build.ints(4), build.ints(1))
    assert keys(build, output) == [
        "copy(1x8x3x3)->1x2x4x3x3;view",
        "copy(1x2x4x3x3)->1x4x2x3x3;transpose",
        "copy(1x4x2x3x3)->1x8x3x3;view",
        "copy(1x4x3x3)->1x4x3x3;slice",
    ]


def test_a_single_tensor_is_concatenated_by_copying_it() -> None:
    build = Build(1, 8, 3, 3)
    output = build.add("Relu", build.add("Concat", "x", axis=1))
    assert keys(build, output) == ["concat(1x8x3x3)->1x8x3x3", "unary(1x8x3x3)->1x8x3x3;relu"]


@pytest.mark.parametrize(("keepdims", "shape"), [(0, "1x32"), (1, "1x32x1x1")])
def test_a_mean_that_is_written_as_a_reduction_leaves_the_blocks(keepdims: int, shape: str) -> None:
    build = Build(1, 3, 6, 6)
    output = build.add("ReduceMean", build.conv("x", 3, 32, 3), axes=[2, 3], keepdims=keepdims)
    assert keys(build, output) == [
        "conv(1x3x6x6)->1x32x6x6;from_plain,k3x3,s1x1",
        "copy(1x32x6x6)->1x32x6x6;from_blocked",
        f"reduce(1x32x6x6)->{shape};mean",
    ]


@pytest.mark.parametrize("block_size", [0, 16])
@pytest.mark.parametrize(
    ("op", "bias", "is_fused"), [("Add", True, True), ("Add", False, False), ("Sum", True, False)]
)
def test_a_plain_convolution_with_a_bias_adds_a_residual_that_is_written_as_add(
    op: str, bias: bool, is_fused: bool, block_size: int
) -> None:
    # 18 channels are no multiple of 4, so that the convolution is plain in spite of the blocks.
    build = Build(1, 18, 6, 6)
    output = build.add("Relu", build.add(op, build.conv("x", 18, 18, 3, bias=bias), "x"))
    fused = ["conv(1x18x6x6,1x18x6x6)->1x18x6x6;k3x3,s1x1+add+relu"]
    apart = [
        "conv(1x18x6x6)->1x18x6x6;k3x3,s1x1",
        "sum(1x18x6x6,1x18x6x6)->1x18x6x6",
        "unary(1x18x6x6)->1x18x6x6;relu",
    ]
    assert keys(build, output, block_size) == (fused if is_fused else apart)


def test_a_residual_goes_to_the_convolution_that_comes_first_in_the_file() -> None:
    build = Build(1, 18, 6, 6)
    first, second = build.conv("x", 18, 18, 1, bias=True), build.conv("x", 18, 18, 3, bias=True)
    assert keys(build, build.add("Add", second, first)) == [
        "conv(1x18x6x6,1x18x6x6)->1x18x6x6;k1x1,s1x1+add",
        "conv(1x18x6x6)->1x18x6x6;k3x3,s1x1",
    ]


@pytest.mark.parametrize(("ceil", "padded", "is_blocked"), [(0, 1, True), (1, 0, True), (1, 1, False)])
def test_an_average_that_counts_padding_and_rounds_up_leaves_the_blocks(
    ceil: int, padded: int, is_blocked: bool
) -> None:
    build = Build(1, 3, 7, 7)
    pool = {"kernel_shape": [3, 3], "pads": [1] * 4, "strides": [1, 1]}
    output = build.add(
        "AveragePool", build.conv("x", 3, 16, 3), ceil_mode=ceil, count_include_pad=padded, **pool
    )
    reorder = "copy(1x16x7x7)->1x16x7x7;from_blocked"
    inside = ["avgpool(1x16x7x7)->1x16x7x7;blocked,k3x3,s1x1", reorder]
    outside = [reorder, "avgpool(1x16x7x7)->1x16x7x7;k3x3,s1x1"]
    assert keys(build, output)[1:] == (inside if is_blocked else outside)


def test_a_product_with_a_bias_is_made_two_dimensional() -> None:
    build = Build(1, 4, 6)
    output = build.add("Add", build.add("MatMul", "x", build.weight(6, 5)), build.weight(5))
    assert keys(build, output) == ["copy(1x4x6)->4x6;view", "gemm(4x6)->4x5", "copy(4x5)->1x4x5;view"]


@pytest.mark.parametrize(
    ("function", "product", "convolution"),
    [
        ("Relu", "fused", "fused"),
        ("Elu", "fused", "apart"),
        ("LeakyRelu", "fused", "fused"),
        ("HardSwish", "apart", "fused"),
        ("Gelu", "apart", "apart"),
    ],
)
def test_which_activations_join_a_product_and_a_blocked_convolution(
    function: str, product: str, convolution: str
) -> None:
    opset = 20 if function == "Gelu" else 17
    linear = Build(1, 8, opset=opset)
    gemm = linear.add("Gemm", "x", linear.weight(8, 4), linear.weight(4))
    image = Build(1, 3, 4, 4, opset=opset)
    conv = image.conv("x", 3, 16, 1)
    name = function.lower()
    for build, before, expected in ((linear, gemm, product), (image, conv, convolution)):
        found = keys(build, build.add(function, before))
        assert found[0].endswith(f"+{name}") == (expected == "fused"), found
