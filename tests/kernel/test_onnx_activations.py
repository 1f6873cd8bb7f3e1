"""Activations that exporters write out in several operations, in the forms seen in the wild."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from onnx_build import Build

from dsonas_hw.kernel.onnx.activations import NAMED, POINTS, TOLERANCE
from dsonas_hw.kernel.onnx.from_onnx import network_from_onnx

Write = Callable[[Build, str], str]


def silu(b: Build, x: str) -> str:
    return b.add("Mul", x, b.add("Sigmoid", x))


def silu_swapped(b: Build, x: str) -> str:
    return b.add("Mul", b.add("Sigmoid", x), x)


def silu_by_exp(b: Build, x: str) -> str:
    return b.add("Div", x, b.add("Add", b.add("Exp", b.add("Neg", x)), b.constant(1)))


def hardswish(b: Build, x: str) -> str:
    return b.add("Mul", x, b.add("HardSigmoid", x, alpha=1 / 6, beta=0.5))


def hardswish_by_clip(b: Build, x: str) -> str:
    clipped = b.add("Clip", b.add("Add", x, b.constant(3)), b.constant(0), b.constant(6))
    return b.add("Div", b.add("Mul", x, clipped), b.constant(6))


def hardswish_by_relu6(b: Build, x: str) -> str:
    clipped = b.add("Clip", b.add("Add", b.constant(3), x), b.constant(0), b.constant(6))
    return b.add("Mul", x, b.add("Mul", clipped, b.constant(1 / 6)))


def hardsigmoid_by_clip(b: Build, x: str) -> str:
    clipped = b.add("Clip", b.add("Add", x, b.constant(3)), b.constant(0), b.constant(6))
    return b.add("Div", clipped, b.constant(6))


def gelu(b: Build, x: str) -> str:
    erf = b.add("Erf", b.add("Div", x, b.constant(math.sqrt(2))))
    return b.add("Mul", b.add("Mul", x, b.add("Add", erf, b.constant(1))), b.constant(0.5))


def gelu_halved_first(b: Build, x: str) -> str:
    erf = b.add("Erf", b.add("Mul", x, b.constant(math.sqrt(0.5))))
    return b.add("Mul", b.add("Mul", x, b.constant(0.5)), b.add("Add", erf, b.constant(1)))


def gelu_by_tanh(b: Build, x: str) -> str:
    cube = b.add("Mul", b.add("Pow", x, b.constant(3)), b.constant(0.044715))
    inner = b.add("Mul", b.add("Add", x, cube), b.constant(math.sqrt(2 / math.pi)))
    outer = b.add("Add", b.add("Tanh", inner), b.constant(1))
    return b.add("Mul", b.add("Mul", b.constant(0.5), x), outer)


def gelu_by_tanh_and_products(b: Build, x: str) -> str:
    cube = b.add("Mul", b.add("Mul", b.add("Mul", x, x), x), b.constant(0.044715))
    inner = b.add("Mul", b.add("Add", x, cube), b.constant(math.sqrt(2 / math.pi)))
    outer = b.add("Add", b.add("Tanh", inner), b.constant(1))
    return b.add("Mul", b.add("Mul", x, outer), b.constant(0.5))


def quickgelu(b: Build, x: str) -> str:
    return b.add("Mul", x, b.add("Sigmoid", b.add("Mul", x, b.constant(1.702))))


def mish(b: Build, x: str) -> str:
    return b.add("Mul", x, b.add("Tanh", b.add("Softplus", x)))


def relu_by_max(b: Build, x: str) -> str:
    return b.add("Max", x, b.constant(0))


WRITTEN_OUT: list[tuple[Write, str]] = [
    (silu, "silu"),
    (silu_swapped, "silu"),
    (silu_by_exp, "silu"),
    (hardswish, "hardswish"),
    (hardswish_by_clip, "hardswish"),
    (hardswish_by_relu6, "hardswish"),
    (hardsigmoid_by_clip, "hardsigmoid"),
    (gelu, "gelu"),
    (gelu_halved_first, "gelu"),
    (gelu_by_tanh, "gelu"),
    (gelu_by_tanh_and_products, "gelu"),
    (quickgelu, "quickgelu"),
    (mish, "mish"),
    (relu_by_max, "relu"),
]


@pytest.mark.parametrize(("write", "function"), WRITTEN_OUT, ids=[w.__name__ for w, _ in WRITTEN_OUT])
def test_written_out_activation_is_recognised(write: Write, function: str) -> None:
    build = Build(1, 8, 4, 4)
    model = build.model(write(build, build.conv("x", 8, 8, 1)))
    (fused,) = network_from_onnx(model).kernels
    assert fused.epilogue == (function,)
    _, unfused = network_from_onnx(model, fuse=False).kernels
    assert (unfused.op, unfused.function, unfused.mac) == ("unary", function, 2 * 128)


@pytest.mark.parametrize(
    ("op", "attributes", "function"),
    [
        ("Relu", {}, "relu"),
        ("LeakyRelu", {}, "leakyrelu"),
        ("HardSwish", {}, "hardswish"),
        ("HardSigmoid", {}, "hardsigmoid"),
        ("Sigmoid", {}, "sigmoid"),
        ("Tanh", {}, "tanh"),
        ("Elu", {}, "elu"),
    ],
)
def test_activation_is_fused_behind_every_kind_of_producer(
    op: str, attributes: dict[str, float], function: str
) -> None:
    build = Build(1, 8, 4, 4)
    other = build.input(1, 8, 4, 4)
    y = build.add(op, build.conv("x", 8, 8, 1), **attributes)
    y = build.add(op, build.add("MaxPool", y, kernel_shape=[2, 2]), **attributes)
    y = build.add(op, build.batchnorm(build.add("Relu", y), 8), **attributes)
    build.add(op, build.add("Add", "x", other), **attributes)
    summed = build.nodes[-1].output[0]
    network = network_from_onnx(build.model(y, summed))
    assert [(k.op, k.epilogue) for k in network.kernels if k.op != "unary"] == [
        ("conv", (function,)),
        ("maxpool", (function,)),
        ("batchnorm", (function,)),
        ("sum", (function,)),
    ]


@pytest.mark.parametrize(
    ("bounds", "function"),
    [((0.0, None), "relu"), ((0.0, 6.0), "relu6"), ((-1.0, 1.0), "clip"), ((0.0, 1.0), "clip")],
)
def test_clip(bounds: tuple[float, float | None], function: str) -> None:
    build = Build(1, 8)
    low, high = (build.constant(b) if b is not None else "" for b in bounds)
    (kernel,) = network_from_onnx(build.model(build.add("Clip", "x", low, high))).kernels
    assert kernel.function == function


def test_prelu_stores_its_slopes() -> None:
    build = Build(1, 8, 4, 4)
    y = build.add("PRelu", build.conv("x", 8, 8, 1, bias=True), build.weight(8, 1, 1))
    (kernel,) = network_from_onnx(build.model(y)).kernels
    assert (kernel.epilogue, kernel.num_bias) == (("prelu",), 16)


def test_a_value_that_is_read_elsewhere_is_not_absorbed() -> None:
    build = Build(1, 8)
    gate = build.add("Sigmoid", "x")
    network = network_from_onnx(build.model(build.add("Mul", "x", gate), gate))
    assert [k.op for k in network.kernels] == ["unary", "mul"]


def test_gating_by_another_tensor_is_no_activation() -> None:
    build = Build(1, 8)
    y = build.add("Mul", "x", build.add("Sigmoid", build.input(1, 8)))
    assert [k.op for k in network_from_onnx(build.model(y)).kernels] == ["unary", "mul"]


def test_plain_arithmetic_stays_as_it_is() -> None:
    build = Build(1, 8)
    y = build.add("Mul", build.add("Add", "x", build.constant(1)), "x")
    assert [k.op for k in network_from_onnx(build.model(y)).kernels] == ["sum", "mul"]


def test_a_long_chain_of_products_is_read_quickly_enough_to_finish() -> None:
    build = Build(1, 8)
    y = "x"
    for _ in range(2000):
        y = build.add("Mul", y, build.add("Sigmoid", y))
    (last,) = {k.function for k in network_from_onnx(build.model(y)).kernels}
    assert last == "silu"


def test_no_two_named_functions_can_be_confused() -> None:
    values = {name: function(POINTS) for name, function in NAMED.items()}
    for name, value in values.items():
        for other in values.keys() - {name}:
            assert np.max(np.abs(value - values[other])) > 10 * TOLERANCE


def layernorm(b: Build, x: str, *, mean: bool = True) -> str:
    centred = b.add("Sub", x, b.add("ReduceMean", x, axes=[-1])) if mean else x
    variance = b.add("ReduceMean", b.add("Pow", centred, b.constant(2)), axes=[-1])
    normed = b.add("Div", centred, b.add("Sqrt", b.add("Add", variance, b.constant(1e-5))))
    scaled = b.add("Mul", normed, b.weight(16))
    return str(b.add("Add", scaled, b.weight(16)) if mean else scaled)


def test_layer_norm_before_opset_17_is_one_kernel() -> None:
    build = Build(2, 7, 16, opset=13)
    (kernel,) = network_from_onnx(build.model(layernorm(build, "x"))).kernels
    assert (kernel.key, kernel.num_bias) == ("layernorm(2x7x16)->2x7x16", 32)


def test_rms_norm_is_one_kernel() -> None:
    build = Build(2, 7, 16, opset=13)
    (kernel,) = network_from_onnx(build.model(layernorm(build, "x", mean=False))).kernels
    assert (kernel.key, kernel.num_bias) == ("layernorm(2x7x16)->2x7x16;rms", 16)
