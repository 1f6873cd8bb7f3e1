"""The kernel lists that the estimate is fitted with are those that come back from an exported file."""

from __future__ import annotations

import sys
from collections import Counter
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.known_networks import (
    EagerGraph,
    fbnet_kernels,
    nasbench201_kernels,
    ofa_mobilenet_v3_kernels,
)
from dsonas_hw.estimate.estimate import load_estimate
from dsonas_hw.kernel.onnx.from_onnx import network_from_onnx
from dsonas_hw.kernel.spec import Kernel, Shape
from dsonas_hw.target import Target

ARCH = "|nor_conv_3x3~0|+|none~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_1x1~1|skip_connect~2|"
BATCH = 8


class Named(tuple):  # type: ignore[type-arg]
    """A shape that knows its tensor."""

    name: str


class OnnxGraph(EagerGraph):
    """Writes ONNX nodes, batch norms unfolded, while the kernels are written down."""

    def __init__(self) -> None:
        super().__init__()
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self.first: Named | None = None

    def _name(self, x: Shape) -> str:
        if isinstance(x, Named):
            return x.name
        assert self.first is None
        self.first = Named(x)
        return "x"

    def _node(self, op: str, inputs: list[str], output: Shape, **attributes: Any) -> Named:
        from onnx import helper

        result = Named(output)
        result.name = f"t{len(self.nodes)}"
        self.nodes.append(
            helper.make_node(op, inputs, [result.name], name=f"n{len(self.nodes)}", **attributes)
        )
        return result

    def _weight(self, shape: tuple[int, ...], values: Any = None) -> str:
        from onnx import numpy_helper

        name = f"w{len(self.weights)}"
        array = np.zeros(shape, np.float32) if values is None else values
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def conv(
        self, x: Shape, channels: int, k: int = 1, stride: int = 1, groups: int = 1, bias: bool = False
    ) -> Shape:
        out = super().conv(x, channels, k, stride, groups, bias)
        inputs = [self._name(x), self._weight((channels, x[1] // groups, k, k))]
        inputs += [self._weight((channels,))] if bias else []
        return self._node("Conv", inputs, out, pads=[k // 2] * 4, strides=[stride] * 2, group=groups)

    def batchnorm(self, x: Shape) -> Shape:
        super().batchnorm(x)
        parameters = [self._weight((x[1],)) for _ in range(4)]
        return self._node("BatchNormalization", [self._name(x), *parameters], x)

    def unary(self, x: Shape, function: str) -> Shape:
        super().unary(x, function)
        op = {"relu": "Relu", "hardswish": "HardSwish", "hardsigmoid": "HardSigmoid"}[function]
        attributes = {"alpha": 1 / 6, "beta": 0.5} if function == "hardsigmoid" else {}
        return self._node(op, [self._name(x)], x, **attributes)

    def add(self, *inputs: Shape) -> Shape:
        super().add(*inputs)
        return self._node("Add", [self._name(x) for x in inputs], inputs[0])

    def mul(self, *inputs: Shape) -> Shape:
        out = super().mul(*inputs)
        names = [self._name(x) for x in inputs]
        return self._node("Mul", names if len(names) > 1 else [*names, self._weight(())], out)

    def avgpool(self, x: Shape, k: int, stride: int, pad: int) -> Shape:
        out = super().avgpool(x, k, stride, pad)
        return self._node(
            "AveragePool", [self._name(x)], out, kernel_shape=[k] * 2, strides=[stride] * 2, pads=[pad] * 4
        )

    def global_avgpool(self, x: Shape) -> Shape:
        return self._node("GlobalAveragePool", [self._name(x)], super().global_avgpool(x))

    def copy(self, x: Shape, function: str) -> Shape:
        super().copy(x, function)
        n, c, h, w = x
        split = self._weight((), np.array([0, 2, c // 2, h, w]))
        y = self._node("Reshape", [self._name(x), split], (n, 2, c // 2, h, w))
        y = self._node("Transpose", [y.name], (n, c // 2, 2, h, w), perm=[0, 2, 1, 3, 4])
        return self._node("Reshape", [y.name, self._weight((), np.array([0, c, h, w]))], x)

    def linear(self, features: int, x: Shape) -> Shape:
        out = super().linear(features, x)
        flat = self._node("Flatten", [self._name(x)], (x[0], prod(x[1:])))
        return self._node(
            "Gemm", [flat.name, self._weight((flat[1], features)), self._weight((features,))], out
        )

    def model(self) -> Any:
        from onnx import TensorProto, helper

        assert self.first is not None
        shape = ["N", *self.first[1:]]
        last = self.nodes[-1].output[0]
        graph = helper.make_graph(
            self.nodes,
            "network",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info(last, TensorProto.FLOAT, None)],
            self.weights,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _alike(kernel: Kernel) -> tuple[object, ...]:
    """What the estimate sees; a channel shuffle is read as a transpose of five axes."""
    return (
        kernel.op,
        tuple(prod(shape) for shape in kernel.inputs),
        prod(kernel.output),
        kernel.kernel_size,
        kernel.stride,
        kernel.groups,
        kernel.num_weights if kernel.kind in ("conv", "gemm") else 0,
    )


@pytest.mark.parametrize("space", ["nasbench201", "fbnet", "ofa"])
def test_kernels_come_back_from_onnx(space: str) -> None:
    graph = OnnxGraph()
    if space == "nasbench201":
        listed = nasbench201_kernels(ARCH, BATCH, graph=graph)
    elif space == "fbnet":
        listed = fbnet_kernels(
            [0, 1, 8, 2, 3, 5, 8, 6, 7, 4, 1, 8, 2, 3, 0, 8, 6, 5, 4, 7, 1, 8], BATCH, graph=graph
        )
    else:
        listed = ofa_mobilenet_v3_kernels(
            [3, 5, 7, 3] * 5, [3, 4, 6, 3] * 5, [2, 3, 4, 2, 3], 160, BATCH, graph=graph
        )
    found = network_from_onnx(graph.model(), batch_size=BATCH, fuse=False)
    assert found.unknown == ()
    assert Counter(map(_alike, found.kernels)) == Counter(map(_alike, listed))
    model = load_estimate(Target(device="1080ti", runtime="eager", batch_size=BATCH))
    read, written = model.predict(found.kernels), model.predict(listed)
    assert read.value == pytest.approx(written.value, rel=1e-3)


def test_sizes_of_nasbench201() -> None:
    three = nasbench201_kernels("|nor_conv_3x3~0|+|none~0|none~1|+|none~0|none~1|none~2|", 1)
    none = nasbench201_kernels("|none~0|+|none~0|none~1|+|none~0|none~1|none~2|", 1)
    # 16 · 16 · 9 · 32² = 2 359 296 in every stage, 15 cells.
    assert sum(k.flops for k in three) - sum(k.flops for k in none) == 15 * 2_359_296
    adds = [k for k in nasbench201_kernels(ARCH, 1, first_adds=True) if k.op == "sum"]
    fewer = [k for k in nasbench201_kernels(ARCH, 1) if k.op == "sum"]
    assert len(adds) - len(fewer) == 45
