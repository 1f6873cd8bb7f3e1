"""Random networks of the kinds in use: what `local` is measured with, so that any network can be predicted.

A network is a stem, up to six stages and a head, as image classifiers are. Every stage repeats one kind of
block (`BLOCKS`): residual, bottleneck, inverted residual, fire, dense, shuffle, inception, depthwise with
layer normalisation, plain. Widths, depths, kernel sizes, activations and resolutions are drawn at random,
so that together the networks hold kernels of every category at sizes from 1 to 256 pixels and from 3 to
2,304 channels, in the surroundings (caches, layouts, sums) that kernels have in real networks.

The plan is a pure function of its arguments; nothing here touches a device.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from dsonas_hw.errors import ProfileError
from dsonas_hw.measure.probe import Probe
from dsonas_hw.profile.graph_builder import GraphBuilder, Tensor

if TYPE_CHECKING:
    import onnx

PREFIX = "generic"
NUM_NETWORKS = 72
SIDES = (224, 192, 224, 160, 224, 256, 224, 128, 224, 96)
"""Heights (= widths) of input images in turn; the usual one comes most."""
STAGE_CHANNELS = ((16, 64), (16, 256), (32, 512), (48, 1024), (80, 1536))
"""Channels that a stage at 1/2, 1/4, 1/8, 1/16 and 1/32 of the image's side writes: from, to."""
MAX_STAGES = 6
MAX_FLAT = 10_000
"""Values that a linear layer of thousands of outputs reads at most: 160 MB of weights."""
MAX_FLOPS = 1_200_000_000
"""Of a network at batch 1: some 20 to 60 ms on one core, so that all of them take two minutes to measure."""
ACTIVATIONS = ("relu", "relu", "relu6", "hardswish", "silu")


@dataclass(frozen=True, kw_only=True)
class Style:
    """What the blocks of one stage have in common."""

    activation: str
    kernel_size: int
    """Of depthwise convolutions."""
    expansion: float
    group_width: int
    """Channels of one group of a grouped convolution; 0: it is dense."""
    squeeze: str
    """Gate of the squeeze-excitation, "sigmoid" or "hardsigmoid"; empty: there is none."""


Block = Callable[[GraphBuilder, Tensor, int, int, Style], Tensor]
"""(builder, input, channels to write, stride, style) → output."""


def generic_networks(
    *, num_networks: int = NUM_NETWORKS, seed: int = 0, batch_size: int = 1
) -> Iterator[Probe]:
    """Yield the networks that a profile of arbitrary networks is fitted on, in the order of measuring.

    Equal arguments give equal networks on every machine.

    Raises:
        ProfileError: a network holds operations that no kernel stands for.
    """
    for index in range(num_networks):
        yield _probe(f"{PREFIX}-{seed}-{index}", index, batch_size)


def _probe(name: str, index: int, batch_size: int) -> Probe:
    from dsonas_hw.kernel.onnx.from_onnx import network_from_onnx

    scale = 1.0
    while True:
        build = partial(_network, name, index, batch_size, scale)
        network = network_from_onnx(build(with_weights=False), batch_size=batch_size)
        if network.unknown:
            raise ProfileError(f"no kernel stands for {', '.join(network.unknown[:3])} of {name}")
        if network.costs.flops <= MAX_FLOPS * batch_size:
            break
        scale *= 0.85
    full_name = f"{name}-b{batch_size}"
    return Probe(
        name=full_name, build=lambda: build(with_weights=True).SerializeToString(), schedule=network.schedule
    )


def _network(name: str, index: int, batch_size: int, scale: float, *, with_weights: bool) -> onnx.ModelProto:
    """A random network; scale multiplies its widths."""
    rng = random.Random(name)
    builder = GraphBuilder(seed=index, with_weights=with_weights)
    side = SIDES[index % len(SIDES)]
    first = BLOCKS[index % len(BLOCKS)]  # every kind opens a network in turn, the others follow at random
    x = builder.input(batch_size, 3, side, side)
    x = _stem(builder, x, rng)
    fraction = rng.uniform(0, 1)  # narrow networks are narrow in every stage
    for stage in range(MAX_STAGES):
        add = first if stage == 0 else rng.choice(BLOCKS)
        style = _style(rng)
        channels = _channels(x, side, fraction, scale, rng)
        for block in range(rng.choice((1, 1, 2, 2, 3))):
            stride = 2 if block == 0 and x.shape[2] > 7 else 1
            x = add(builder, x, channels, stride, style)
        if x.shape[2] <= 8:
            break
    return builder.model(_head(builder, x, rng))


def _channels(x: Tensor, side: int, fraction: float, scale: float, rng: random.Random) -> int:
    """Channels of the next stage: log-uniform in the range of its resolution, mostly a multiple of 8."""
    level = min(len(STAGE_CHANNELS) - 1, max(0, round(side / x.shape[2]).bit_length() - 1))
    low, high = STAGE_CHANNELS[level]
    position = min(1.0, max(0.0, fraction + rng.uniform(-0.25, 0.25)))
    channels: float = scale * low * (high / low) ** position
    step = rng.choice((8, 8, 8, 16, 32, 4, 2))
    return max(step, 16, round(channels / step) * step)


def _style(rng: random.Random) -> Style:
    return Style(
        activation=rng.choice(ACTIVATIONS),
        kernel_size=rng.choice((3, 3, 5, 7)),
        expansion=rng.choice((1.0, 2.0, 3.0, 4.0, 6.0)),
        group_width=rng.choice((0, 4, 8, 16, 24, 32, 64)),
        squeeze=rng.choice(("", "", "sigmoid", "hardsigmoid")),
    )


# -- stem and head ---------------------------------------------------------------------------------------


def _stem(b: GraphBuilder, x: Tensor, rng: random.Random) -> Tensor:
    kernel, stride = rng.choice(((3, 2), (3, 2), (7, 2), (3, 1), (11, 4), (4, 4), (5, 2)))
    channels = rng.choice((16, 24, 32, 32, 48, 64, 64) if stride > 1 else (8, 16, 32))
    x = b.activate(b.conv(x, channels, kernel, stride), rng.choice(ACTIVATIONS))
    pool = rng.choice(("", "", "Max3", "Max3", "Max2"))
    return b.pool(x, "Max", int(pool[-1]), 2) if pool else x


def _head(b: GraphBuilder, x: Tensor, rng: random.Random) -> Tensor:
    """Pooling and one or two linear layers; or linear layers on the whole map, as AlexNet and VGG end."""
    if rng.random() < 0.3:
        x = b.activate(b.conv(x, rng.choice((512, 960, 1280))), rng.choice(ACTIVATIONS))
    how = rng.random()
    if how < 0.25:
        x = b.flatten(x if x.channels * x.shape[2] * x.shape[3] <= MAX_FLAT else b.pool(x, "Max", 2, 2))
    elif how < 0.8:
        x = b.flatten(b.global_pool(x))
    else:
        x = b.add("ReduceMean", x.shape[:2], x.name, axes=[2, 3], keepdims=0)
    if how < 0.5 and x.shape[1] <= MAX_FLAT:
        x = b.activate(b.linear(x, rng.choice((512, 1024, 1280, 4096))), rng.choice(("relu", "hardswish")))
        if how < 0.12:
            x = b.activate(b.linear(x, 4096), "relu")
    return b.linear(x, rng.choice((10, 100, 1000, 1000)))


# -- blocks ----------------------------------------------------------------------------------------------


def _shortcut(b: GraphBuilder, x: Tensor, channels: int, stride: int) -> Tensor:
    return x if stride == 1 and x.channels == channels else b.conv(x, channels, 1, stride)


def _squeeze(b: GraphBuilder, x: Tensor, gate: str, inner: int) -> Tensor:
    """Squeeze-excitation: scale every channel by a gate computed from all channels' means."""
    reduced = b.activate(b.conv(b.global_pool(x), max(8, inner)), "silu" if gate == "sigmoid" else "relu")
    return b.mul(x, b.activate(b.conv(reduced, x.channels), gate))


def residual(b: GraphBuilder, x: Tensor, channels: int, stride: int, style: Style) -> Tensor:
    """Two 3×3 convolutions (ResNet-18)."""
    y = b.activate(b.conv(x, channels, 3, stride), style.activation)
    y = b.conv(y, channels, 3)
    return b.activate(b.sum(y, _shortcut(b, x, channels, stride)), style.activation)


def bottleneck(b: GraphBuilder, x: Tensor, channels: int, stride: int, style: Style) -> Tensor:
    """1×1, 3×3 in groups, 1×1 (ResNet-50, ResNeXt, RegNet)."""
    width = style.group_width
    if width:
        groups = max(2, round(channels / width / 2))
        inner = groups * width
    else:
        groups, inner = 1, max(16, round(channels / 4 / 8) * 8)
    y = b.activate(b.conv(x, inner), style.activation)
    y = b.activate(b.conv(y, inner, 3, stride, groups), style.activation)
    if style.squeeze:
        y = _squeeze(b, y, style.squeeze, x.channels // 4)
    y = b.conv(y, channels)
    return b.activate(b.sum(y, _shortcut(b, x, channels, stride)), style.activation)


def inverted_residual(b: GraphBuilder, x: Tensor, channels: int, stride: int, style: Style) -> Tensor:
    """Expand, depthwise, project (MobileNetV2 and V3, EfficientNet, MnasNet)."""
    inner = min(max(x.channels, round(x.channels * style.expansion / 8) * 8), 2_304)
    y = b.activate(b.conv(x, inner), style.activation) if style.expansion > 1 else x
    y = b.activate(b.conv(y, y.channels, style.kernel_size, stride, y.channels), style.activation)
    if style.squeeze:
        y = _squeeze(b, y, style.squeeze, x.channels // 4)
    y = b.conv(y, channels)
    return b.sum(y, x) if y.shape == x.shape else y


def separable(b: GraphBuilder, x: Tensor, channels: int, stride: int, style: Style) -> Tensor:
    """Depthwise and 1×1 convolution (MobileNetV1, LCNet)."""
    y = b.activate(b.conv(x, x.channels, style.kernel_size, stride, x.channels), style.activation)
    return b.activate(b.conv(y, channels), style.activation)


def fire(b: GraphBuilder, x: Tensor, channels: int, stride: int, style: Style) -> Tensor:
    """1×1, then 1×1 beside 3×3 (SqueezeNet)."""
    half = max(8, channels // 2)
    x = b.pool(x, "Max", 3, 2) if stride == 2 else x
    y = b.activate(b.conv(x, max(16, channels // 8)), "relu")
    return b.concat(b.activate(b.conv(y, half), "relu"), b.activate(b.conv(y, half, 3), "relu"))


def dense(b: GraphBuilder, x: Tensor, channels: int, stride: int, style: Style) -> Tensor:
    """Layers that each read all earlier outputs, batch norm and ReLU first (DenseNet)."""
    if stride == 2:
        y = b.activate(b.batch_norm(x), "relu")
        x = b.pool(b.conv(y, max(16, channels // 2)), "Average", 2, 2)
    growth = (16, 24, 32, 48)[channels % 4]
    parts = [x]
    for _ in range(3):
        joined = b.concat(*parts) if len(parts) > 1 else parts[0]
        y = b.activate(b.conv(b.activate(b.batch_norm(joined), "relu"), 4 * growth), "relu")
        parts.append(b.conv(y, growth, 3))
    return b.concat(*parts)


def shuffle(b: GraphBuilder, x: Tensor, channels: int, stride: int, style: Style) -> Tensor:
    """Half of the channels through 1×1, depthwise, 1×1; then the halves are mixed (ShuffleNetV2)."""
    half = max(8, channels // 2)
    if stride == 1 and x.channels == 2 * half:
        kept, y = b.halves(x)
    else:
        kept = b.conv(x, x.channels, 3, stride, x.channels)
        kept, y = b.activate(b.conv(kept, half), "relu"), x
    y = b.activate(b.conv(y, half), "relu")
    y = b.conv(y, half, 3, stride, half)
    joined = b.concat(kept, b.activate(b.conv(y, half), "relu"))
    n, c, height, width = joined.shape
    mixed = b.transpose(b.reshape(joined, n, 2, c // 2, height, width), 0, 2, 1, 3, 4)
    return b.reshape(mixed, n, c, height, width)


def inception(b: GraphBuilder, x: Tensor, channels: int, stride: int, style: Style) -> Tensor:
    """Branches of several kernel sizes, joined (GoogLeNet, Inception)."""
    x = b.pool(x, "Max", 3, 2) if stride == 2 else x
    quarter = max(16, round(channels / 4 / 8) * 8)
    narrow = b.activate(b.conv(x, max(16, quarter // 2)), "relu")
    if style.kernel_size == 7:
        wide = b.activate(
            b.conv(b.activate(b.conv(narrow, quarter, (1, 7)), "relu"), quarter, (7, 1)), "relu"
        )
    elif style.kernel_size == 5:
        wide = b.activate(b.conv(narrow, quarter, 5), "relu")
    else:
        wide = b.activate(
            b.conv(b.activate(b.conv(narrow, quarter, (1, 3)), "relu"), quarter, (3, 1)), "relu"
        )
    kind = "Max" if channels % 16 else "Average"
    return b.concat(
        b.activate(b.conv(x, quarter), "relu"),
        b.activate(b.conv(b.activate(b.conv(x, max(16, quarter // 2)), "relu"), quarter, 3), "relu"),
        wide,
        b.activate(b.conv(b.pool(x, kind, 3, 1), quarter), "relu"),
    )


def normalised(b: GraphBuilder, x: Tensor, channels: int, stride: int, style: Style) -> Tensor:
    """Depthwise 7×7, layer normalisation, two linear layers on channels-last values (ConvNeXt)."""
    if stride == 2 or x.channels != channels:
        x = b.conv(x, channels, stride, stride)
    y = b.transpose(b.conv(x, channels, 7, 1, channels), 0, 2, 3, 1)
    y = b.linear(b.layer_norm(y), 2 * channels)
    y = b.scale(b.linear(b.activate(y, "gelu"), channels))
    return b.sum(b.transpose(y, 0, 3, 1, 2), x)


def plain(b: GraphBuilder, x: Tensor, channels: int, stride: int, style: Style) -> Tensor:
    """3×3 convolutions and pooling (VGG); every second one strides instead (RepVGG)."""
    if stride == 2 and channels % 16:
        return b.activate(b.conv(x, channels, 3, 2), style.activation)
    x = b.activate(b.conv(x, channels, 3), style.activation)
    return b.pool(x, "Max", 2, 2) if stride == 2 else x


BLOCKS: tuple[Block, ...] = (
    inverted_residual,
    residual,
    bottleneck,
    separable,
    shuffle,
    inverted_residual,
    dense,
    fire,
    inception,
    bottleneck,
    normalised,
    plain,
)
"""In the order in which they open networks; those in wider use stand twice."""
