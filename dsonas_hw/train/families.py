"""Networks that an engineer would scale to a budget instead of searching: six families at any width.

                 images of 64 pixels and more        smaller images
    stem         the family's own                    3×3 of stride 1 (or 2), no pooling
    stages       the family's own                    three, at 1, 1/2 and 1/4 of the stem's side
    width        all channels × width, in eights     likewise

Blocks are torchvision's own but for MobileNetV4's, which it does not have. A family is told by its name and,
for small images, `-s2` (stem of stride 2) and `-d2` (twice the blocks in every stage): `resnet-s2-d2`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from torch import nn
from torchvision.models import EfficientNet, MobileNetV2, ShuffleNetV2
from torchvision.models.efficientnet import MBConvConfig
from torchvision.models.regnet import BlockParams, RegNet
from torchvision.models.resnet import BasicBlock
from torchvision.ops import Conv2dNormActivation

SMALL_SIDE = 64
"""Images of fewer pixels a side have the stem and the stages for small images."""
CHANNEL_STEP = 8


@dataclass(frozen=True, kw_only=True)
class Size:
    """What a family needs to know to be built."""

    width: float
    """Times the family's own channels."""
    depth: int
    """Times the blocks of each stage; 1 where images are large."""
    is_small: bool
    """Whether images are."""

    def channels(self, own: float) -> int:
        """Return the scaled number of channels, a positive multiple of eight."""
        return max(CHANNEL_STEP, round(own * self.width / CHANNEL_STEP) * CHANNEL_STEP)


def resnet(size: Size, num_classes: int) -> nn.Module:
    """ResNet-18 (He et al. 2016); small images: that paper's 16, 32, 64 channels, ResNet-8 at depth 1."""
    own = (16, 32, 64) if size.is_small else (64, 128, 256, 512)
    num_blocks = size.depth if size.is_small else 2
    first, *_ = stages = [size.channels(c) for c in own]
    stem: list[nn.Module] = [Conv2dNormActivation(3, first, 3 if size.is_small else 7, 2)]
    if not size.is_small:
        stem.append(nn.MaxPool2d(3, 2, 1))
    blocks: list[nn.Module] = []
    for stage, (before, after) in enumerate(pairwise([first, *stages])):
        for index in range(num_blocks):
            stride = 2 if stage and not index else 1
            enters = after if index else before
            shortcut = (
                Conv2dNormActivation(enters, after, 1, stride, activation_layer=None)
                if stride > 1 or enters != after
                else None
            )
            blocks.append(BasicBlock(enters, after, stride, shortcut))
    return nn.Sequential(*stem, *blocks, *_head(stages[-1], num_classes))


def mobilenetv2(size: Size, num_classes: int) -> nn.Module:
    """MobileNetV2 (Sandler et al. 2018); small images: two blocks a stage, a head 4 × as wide."""
    setting = [[1, 16, 1, 1], [6, 24, 2, 1], [6, 48, 2, 2], [6, 96, 2, 2]]
    if size.is_small:
        setting = [[t, c, n * size.depth, s] for t, c, n, s in setting]
    network: nn.Module = MobileNetV2(num_classes, size.width, setting if size.is_small else None, dropout=0.0)
    if size.is_small or size.width < 1:  # torchvision never narrows the head, which would dwarf the rest
        features: Any = network.get_submodule("features")
        enters = features[-1][0].in_channels
        wide = size.channels(4 * 96 if size.is_small else 1280)
        head = Conv2dNormActivation(enters, wide, 1, activation_layer=nn.ReLU6)
        features[-1] = head
        network.set_submodule("classifier.1", nn.Linear(wide, num_classes))
    return network


def efficientnet(size: Size, num_classes: int) -> nn.Module:
    """EfficientNet-B0 (Tan & Le 2019), with squeeze-excitation; small images: the stages of `mobilenetv2`."""
    large = (
        (1, 3, 1, 32, 16, 1), (6, 3, 2, 16, 24, 2), (6, 5, 2, 24, 40, 2), (6, 3, 2, 40, 80, 3),
        (6, 5, 1, 80, 112, 3), (6, 5, 2, 112, 192, 4), (6, 3, 1, 192, 320, 1),
    )  # fmt: skip
    d = size.depth
    small = (
        (1, 3, 1, 32, 16, d),
        (6, 3, 1, 16, 24, 2 * d),
        (6, 5, 2, 24, 48, 2 * d),
        (6, 5, 2, 48, 96, 2 * d),
    )
    setting = [MBConvConfig(*row, width_mult=size.width) for row in (small if size.is_small else large)]
    wide = size.channels(4 * (96 if size.is_small else 320))
    network: nn.Module = EfficientNet(setting, 0.0, 0.0, num_classes, last_channel=wide)
    return network


def regnet(size: Size, num_classes: int) -> nn.Module:
    """RegNetX-400MF (Radosavovic et al. 2020); small images: 1, 2 and 2 blocks, groups of 16."""
    group = 16  # a stage is whole groups
    own = [24, 56, 152] if size.is_small else [32, 64, 160, 400]
    depths = [size.depth, 2 * size.depth, 2 * size.depth] if size.is_small else [1, 2, 7, 12]
    strides = [1, 2, 2] if size.is_small else [2, 2, 2, 2]
    widths = [max(group, round(c * size.width / group) * group) for c in own]
    params = BlockParams(depths, widths, [group] * len(own), [1.0] * len(own), strides)
    network: nn.Module = RegNet(params, num_classes, widths[0] if size.is_small else size.channels(32))
    return network


def shufflenetv2(size: Size, num_classes: int) -> nn.Module:
    """ShuffleNetV2 1.0× (Ma et al. 2018); small images: half its channels, 2, 3 and 2 blocks."""
    own = (24, 58, 116, 232, 464) if size.is_small else (24, 116, 232, 464, 1024)
    repeats = [n * size.depth for n in (2, 3, 2)] if size.is_small else [4, 8, 4]
    halves = [2 * max(4, round(c * size.width / 8) * 4) for c in own]  # a block splits its channels in two
    network: nn.Module = ShuffleNetV2(repeats, halves, num_classes)
    if size.is_small:
        network.set_submodule("maxpool", nn.Identity())
    return network


def mobilenetv4(size: Size, num_classes: int) -> nn.Module:
    """Like MobileNetV4-Conv-S (Qin et al. 2024): convolutions first, then universal inverted bottlenecks.

    A block: first depthwise, second depthwise (0: there is none), stride, channels, expansion.
    """
    large = (
        (5, 5, 2, 96, 3), *(4 * ((0, 3, 1, 96, 2),)), (3, 0, 1, 96, 4),
        (3, 3, 2, 128, 6), (5, 5, 1, 128, 4), (0, 5, 1, 128, 4), (0, 5, 1, 128, 3),
        *(2 * ((0, 3, 1, 128, 4),)),
    )  # fmt: skip
    small = (
        *((5, 5, 2, 96, 3), *((0, 3, 1, 96, 2), (3, 0, 1, 96, 4)) * size.depth),
    )  # fmt: skip
    first, second = size.channels(32), size.channels(64)
    layers: list[nn.Module] = [Conv2dNormActivation(3, first, 3, 2)]
    if not size.is_small:
        layers += [Conv2dNormActivation(first, first, 3, 2), Conv2dNormActivation(first, first, 1)]
    layers += [Conv2dNormActivation(first, size.channels(96), 3, 2)]
    layers += [Conv2dNormActivation(size.channels(96), second, 1)]
    enters = second
    for start, middle, stride, own, expansion in small if size.is_small else large:
        layers.append(_UniversalBlock(enters, size.channels(own), start, middle, stride, expansion))
        enters = size.channels(own)
    wide = size.channels(4 * 96 if size.is_small else 960)
    layers.append(Conv2dNormActivation(enters, wide, 1))
    if size.is_small:
        return nn.Sequential(*layers, *_head(wide, num_classes))
    last = size.channels(1280)
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), Conv2dNormActivation(wide, last, 1), *_head(last, num_classes)
    )


class _UniversalBlock(nn.Module):
    """Depthwise?, expand, depthwise?, project; the input is added where the shapes allow it."""

    def __init__(
        self, enters: int, leaves: int, start: int, middle: int, stride: int, expansion: int
    ) -> None:
        super().__init__()
        inner = max(CHANNEL_STEP, enters * expansion)
        layers: list[nn.Module] = []
        if start:
            first = 1 if middle else stride
            layers.append(
                Conv2dNormActivation(enters, enters, start, first, groups=enters, activation_layer=None)
            )
        layers.append(Conv2dNormActivation(enters, inner, 1))
        if middle:
            layers.append(Conv2dNormActivation(inner, inner, middle, stride, groups=inner))
        layers.append(Conv2dNormActivation(inner, leaves, 1, activation_layer=None))
        self.layers = nn.Sequential(*layers)
        self.adds = stride == 1 and enters == leaves

    def forward(self, x):  # type: ignore[no-untyped-def]
        return x + self.layers(x) if self.adds else self.layers(x)


def _head(channels: int, num_classes: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes)]


FAMILIES: dict[str, tuple[str, Callable[[Size, int], nn.Module]]] = {
    "resnet": ("ResNet", resnet),
    "mobilenetv2": ("MobileNetV2", mobilenetv2),
    "mobilenetv4": ("MobileNetV4", mobilenetv4),
    "regnet": ("RegNet", regnet),
    "shufflenetv2": ("ShuffleNetV2", shufflenetv2),
    "efficientnet": ("EfficientNet", efficientnet),
}
"""Name → how it is written, and what builds it, before its first convolution is replaced for the images."""
