"""Kernel lists of the public search spaces, as an eager framework runs them (nothing fused).

Each function returns the kernels of one network of a published space, in the order they run. They follow the
released models of NAS-Bench-201, FBNet (as HW-NAS-Bench builds it) and once-for-all MobileNetV3.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from dsonas_hw.kernel.spec import Kernel, Shape


class EagerGraph:
    """Writes down kernels while a network is described; shapes flow through as values."""

    def __init__(self) -> None:
        self.kernels: list[Kernel] = []

    def conv(
        self, x: Shape, channels: int, k: int = 1, stride: int = 1, groups: int = 1, bias: bool = False
    ) -> Shape:
        n, c, h, w = x
        pad = k // 2
        out = (n, channels, (h + 2 * pad - k) // stride + 1, (w + 2 * pad - k) // stride + 1)
        self.kernels.append(
            Kernel(
                op="conv",
                inputs=(x,),
                output=out,
                kernel_size=(k, k),
                stride=(stride, stride),
                groups=groups,
                num_weights=channels * (c // groups) * k * k,
                num_bias=channels if bias else 0,
            )
        )
        return out

    def batchnorm(self, x: Shape) -> Shape:
        self.kernels.append(
            Kernel(op="batchnorm", inputs=(x,), output=x, num_weights=2 * x[1], num_bias=2 * x[1])
        )
        return x

    def unary(self, x: Shape, function: str) -> Shape:
        self.kernels.append(Kernel(op="unary", inputs=(x,), output=x, function=function))
        return x

    def add(self, *inputs: Shape) -> Shape:
        self.kernels.append(Kernel(op="sum", inputs=inputs, output=inputs[0]))
        return inputs[0]

    def mul(self, *inputs: Shape) -> Shape:
        output = max(inputs, key=prod)
        self.kernels.append(Kernel(op="mul", inputs=inputs, output=output))
        return output

    def avgpool(self, x: Shape, k: int, stride: int, pad: int) -> Shape:
        n, c, h, w = x
        out = (n, c, (h + 2 * pad - k) // stride + 1, (w + 2 * pad - k) // stride + 1)
        self.kernels.append(
            Kernel(op="avgpool", inputs=(x,), output=out, kernel_size=(k, k), stride=(stride, stride))
        )
        return out

    def global_avgpool(self, x: Shape) -> Shape:
        out = (x[0], x[1], 1, 1)
        self.kernels.append(Kernel(op="global_avgpool", inputs=(x,), output=out))
        return out

    def copy(self, x: Shape, function: str) -> Shape:
        self.kernels.append(Kernel(op="copy", inputs=(x,), output=x, function=function))
        return x

    def linear(self, features: int, x: Shape) -> Shape:
        out = (x[0], features)
        flat = (x[0], prod(x[1:]))
        self.kernels.append(
            Kernel(op="gemm", inputs=(flat,), output=out, num_weights=flat[1] * features, num_bias=features)
        )
        return out

    def conv_bn(
        self, x: Shape, channels: int, k: int = 1, stride: int = 1, groups: int = 1, act: str = ""
    ) -> Shape:
        x = self.batchnorm(self.conv(x, channels, k, stride, groups))
        return self.activation(x, act) if act else x

    def activation(self, x: Shape, act: str) -> Shape:
        return self.unary(x, act)


def nasbench201_kernels(
    arch: str,
    batch_size: int,
    *,
    channels: int = 16,
    num_cells: int = 5,
    first_adds: bool = False,
    graph: EagerGraph | None = None,
) -> list[Kernel]:
    """A NAS-Bench-201 network on 32×32 images with 10 classes; a `none` edge is x · 0.

    With `first_adds` a node adds its n inputs with n kernels, as Python's `sum` does, which starts at 0; an
    exported ONNX file has n - 1.
    """
    nodes = [[e.split("~") for e in node.split("|") if e] for node in arch.split("+")]
    g = graph or EagerGraph()

    def edge(x: Shape, op: str) -> Shape:
        if op == "none":
            return g.mul(x)
        if op == "skip_connect":
            return x
        if op == "avg_pool_3x3":
            return g.avgpool(x, 3, 1, 1)
        k = {"nor_conv_1x1": 1, "nor_conv_3x3": 3}[op]
        return g.conv_bn(g.unary(x, "relu"), x[1], k)

    x: Shape = g.conv_bn((batch_size, 3, 32, 32), channels, 3)
    for stage in range(3):
        if stage:
            wide = channels * 2**stage
            y = g.conv_bn(g.unary(x, "relu"), wide, 3, 2)
            y = g.conv_bn(g.unary(y, "relu"), wide, 3)
            x = g.add(g.conv(g.avgpool(x, 2, 2, 0), wide), y)
        for _ in range(num_cells):
            values = [x]
            for node in nodes:
                total: Shape | None = None
                for op, source in node:
                    y = edge(values[int(source)], op)
                    if total is None and not first_adds:
                        total = y
                    else:
                        total = g.add(y) if total is None else g.add(total, y)
                assert total is not None
                values.append(total)
            x = values[-1]
    x = g.unary(g.batchnorm(x), "relu")
    g.linear(10, g.global_avgpool(x))
    return g.kernels


FBNET_BLOCKS = ("k3_e1", "k3_e1_g2", "k3_e3", "k3_e6", "k5_e1", "k5_e1_g2", "k5_e3", "k5_e6", "skip")
FBNET_STAGES = ((1, 16, 1), (4, 24, 1), (4, 32, 2), (4, 64, 2), (4, 112, 1), (4, 184, 2), (1, 352, 1))


def fbnet_kernels(
    op_indices: Sequence[int], batch_size: int, *, graph: EagerGraph | None = None
) -> list[Kernel]:
    """An FBNet (CIFAR-100 variant, 32×32): 22 blocks chosen from `FBNET_BLOCKS`."""
    g = graph or EagerGraph()
    x: Shape = g.conv_bn((batch_size, 3, 32, 32), 16, 3, act="relu")
    layers = [(c, s if i == 0 else 1) for n, c, s in FBNET_STAGES for i in range(n)]
    for (channels, stride), index in zip(layers, op_indices, strict=True):
        name = FBNET_BLOCKS[index]
        same = stride == 1 and channels == x[1]
        if name == "skip":
            x = x if same else g.conv_bn(x, channels, 1, stride, act="relu")
            continue
        parts = name.split("_")
        k, expansion, groups = int(parts[0][1:]), int(parts[1][1:]), 2 if len(parts) == 3 else 1
        wide = x[1] * expansion
        y = g.conv_bn(x, wide, groups=groups, act="relu")
        if groups > 1:
            y = g.copy(y, "transpose")
        y = g.conv_bn(y, wide, k, stride, groups=wide, act="relu")
        y = g.conv_bn(y, channels, groups=groups)
        x = g.add(x, y) if same else y
    x = g.conv_bn(x, 1504, act="relu")
    g.linear(100, g.global_avgpool(x))
    return g.kernels


def _divisible(value: float, by: int = 8) -> int:
    rounded = max(by, int(value + by / 2) // by * by)
    return rounded + by if rounded < 0.9 * value else rounded


class _OfaGraph(EagerGraph):
    """once-for-all writes hardswish as x · relu6(x + 3) / 6: four kernels."""

    def __init__(self, composed: bool) -> None:
        super().__init__()
        self.composed = composed

    def activation(self, x: Shape, act: str) -> Shape:
        if act == "relu" or not self.composed:
            return self.unary(x, act)
        self.add(x)
        self.unary(x, "relu6")
        if act == "hardswish":
            self.mul(x, x)
        return self.mul(x)


def ofa_mobilenet_v3_kernels(
    kernel_sizes: Sequence[int],
    expansions: Sequence[int],
    depths: Sequence[int],
    resolution: int,
    batch_size: int,
    *,
    width: float = 1.2,
    composed_activations: bool = False,
    graph: EagerGraph | None = None,
) -> list[Kernel]:
    """A once-for-all MobileNetV3: five stages of up to four blocks.

    With `composed_activations` hardswish is x · relu6(x + 3) / 6 in four kernels, as the release writes it;
    otherwise it is the one kernel that frameworks have today.
    """
    g = graph or _OfaGraph(composed_activations)
    widths = [_divisible(c * width) for c in (16, 16, 24, 40, 80, 112, 160, 960, 1280)]
    x: Shape = g.conv_bn((batch_size, 3, resolution, resolution), widths[0], 3, 2, act="hardswish")
    y = g.conv_bn(x, x[1], 3, 1, groups=x[1], act="relu")
    x = g.add(x, g.conv_bn(y, widths[1]))
    for stage, (stride, act, squeeze) in enumerate(
        [(2, "relu", 0), (2, "relu", 1), (2, "hardswish", 0), (1, "hardswish", 1), (2, "hardswish", 1)]
    ):
        for block in range(depths[stage]):
            k, e = kernel_sizes[4 * stage + block], expansions[4 * stage + block]
            channels, s = widths[stage + 2], stride if block == 0 else 1
            wide = _divisible(round(x[1] * e))
            y = g.conv_bn(x, wide, act=act)
            y = g.conv_bn(y, wide, k, s, groups=wide, act=act)
            if squeeze:
                z = g.conv(g.global_avgpool(y), _divisible(wide // 4), bias=True)
                z = g.conv(g.unary(z, "relu"), wide, bias=True)
                y = g.mul(y, g.activation(z, "hardsigmoid"))
            y = g.conv_bn(y, channels)
            x = g.add(x, y) if s == 1 and channels == x[1] else y
    x = g.global_avgpool(g.conv_bn(x, widths[-2], act="hardswish"))
    g.linear(1000, g.activation(g.conv(x, widths[-1]), "hardswish"))
    return g.kernels
