"""The PyTorch module of each node of an architecture, the auxiliary head of training, and how weights start.

`retrain.init: pytorch` leaves them as PyTorch draws them (uniform, variance 1 / (3·fan-in)); `he` draws them
as Huang & Wang (2018) do. Under batch norm the scale only sets how fast the first steps turn the weights: the
variance of `he`, 6 times larger, cost three random networks 0, 13 and 16 points of accuracy in 8 epochs on
digits; over the paper's long schedules weight decay settles the scale.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dsonas_hw.architecture.graph import BN_EPS, Node
from dsonas_hw.kernel.spec import Shape
from dsonas_hw.train.batch_norm import BatchNorm

AUXILIARY_CHANNELS = (128, 768)
"""Of the auxiliary head's two convolutions, as in the release, DARTS and NASNet."""


def draw_he_weights(module: nn.Module) -> None:
    """Draw convolutions and linear layers as Huang & Wang (2018): Gaussian, variance 2 / fan-in; biases 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, mode="fan_in", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


class NodeLayer(nn.Module):
    """One node: the layer itself, then its batch norm and its ReLU."""

    def __init__(self, main: nn.Module, bn: nn.Module, relu: bool) -> None:
        super().__init__()
        self.main = main
        self.bn = bn
        self.relu = relu

    def forward(self, *inputs: Tensor) -> Tensor:
        x: Tensor = self.bn(self.main(*inputs))
        return F.relu(x, inplace=True) if self.relu else x


class Conv(nn.Conv2d):
    """A convolution without bias; 1×1 of stride 2 on few channels reads every second pixel first.

    oneDNN 3.12 (torch 2.14) writes past its memory in the weight gradient of such a one, channels last.
    """

    MIN_CHANNELS = 8

    def forward(self, x: Tensor) -> Tensor:
        if self.kernel_size == (1, 1) and self.stride != (1, 1) and self.in_channels < self.MIN_CHANNELS:
            down, right = self.stride
            return F.conv2d(x[:, :, ::down, ::right], self.weight)
        return super().forward(x)


class Sum(nn.Module):
    """a + b + …, without keeping the partial sums."""

    def forward(self, first: Tensor, second: Tensor, *others: Tensor) -> Tensor:
        total = first + second
        for other in others:
            total += other
        return total


class Concat(nn.Module):
    def forward(self, *inputs: Tensor) -> Tensor:
        return torch.cat(inputs, dim=1)


class GlobalAverage(nn.Module):
    """(N, C, H, W) → (N, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


def _half_window(side: int) -> int:
    """Return the window of which two cover a side, five eighths of it; a side of 1 or 2 is left as it is."""
    return 1 if side <= 2 else math.ceil(5 * side / 8)


class AuxiliaryHead(nn.Module):
    """A second classifier on an inner feature map: BN, ReLU, average to 2×2, two convolutions, linear.

    The average is the release's: windows of 5 in steps of 3 on 8×8 (CIFAR), of 5 in steps of 2 on 7×7
    (ImageNet), and so two windows of five eighths of any other side.
    """

    def __init__(self, shape: Shape, num_classes: int) -> None:
        super().__init__()
        channels, height, width = shape
        windows = (_half_window(height), _half_window(width))
        strides = (max(1, height - windows[0]), max(1, width - windows[1]))
        kernel = (min(2, height), min(2, width))
        inner, outer = AUXILIARY_CHANNELS
        self.features = nn.Sequential(
            BatchNorm(channels, eps=BN_EPS),
            nn.ReLU(),
            nn.AvgPool2d(windows, strides),
            nn.Conv2d(channels, inner, 1, bias=False),
            BatchNorm(inner, eps=BN_EPS),
            nn.ReLU(),
            nn.Conv2d(inner, outer, kernel, bias=False),
            BatchNorm(outer, eps=BN_EPS),
            nn.ReLU(),
        )
        self.classifier = nn.Linear(outer, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(x).mean((2, 3)))
        return logits


def build_layer(node: Node) -> NodeLayer:
    """Return the PyTorch module of one node."""
    channels = node.output_shape[0]
    size, stride, padding = node.kernel_size, node.stride, node.padding
    main: nn.Module
    match node.op:
        case "conv":
            main = Conv(
                node.input_shape[0], channels, size, stride, padding, node.dilation, node.groups, bias=False
            )
        case "maxpool":
            main = nn.MaxPool2d(size, stride, padding)
        case "avgpool":
            main = nn.AvgPool2d(size, stride, padding, count_include_pad=False)
        case "sum":
            main = Sum()
        case "concat":
            main = Concat()
        case "global_avgpool":
            main = GlobalAverage()
        case "gemm":
            main = nn.Linear(node.input_shape[0], channels)
        case "bn":
            main = nn.Identity()
    has_bn = node.bn or node.op == "bn"
    bn: nn.Module = BatchNorm(channels, eps=BN_EPS) if has_bn else nn.Identity()
    return NodeLayer(main, bn, node.relu)
