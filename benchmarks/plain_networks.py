"""What the supernet's speed is compared with: the same network without λ, a per-edge loop, DARTS.

`EdgeNetwork` is the supernet's network of ordinary modules: equal layers, equal shapes, channels last.

    sums   no λ. Every operation of a level then has the same input, x + Σ of all earlier outputs, so one
           running sum serves them all: the cheapest network without λ that there is
    loop   λ on every edge, written as the paper's Eq. 3 and 4 read: z = Σ λ·h, edge by edge

`DartsNetwork` is the search network of DARTS (Liu et al. 2019) at any width, cell count and batch.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dsonas_hw.search.supernet import batch_norm, build_layer, conv_bn_relu
from dsonas_hw.space.space import SearchSpace

Kind = Literal["sums", "loop"]


class EdgeBlock(nn.Module):
    """A complete block: nodes by level, each reads the block input and every earlier level."""

    def __init__(self, space: SearchSpace, channels: int, kind: Kind) -> None:
        super().__init__()
        self.kind, self.num_operations, self.num_levels = kind, len(space.operations), space.levels
        self.operations = nn.ModuleList(
            nn.Sequential(
                *[build_layer(layer, channels) for layer in space.operation_of(node).layers],
                batch_norm(channels),
                nn.ReLU(inplace=True),
            )
            for node in range(1, space.num_nodes + 1)
        )
        self.merge = nn.Conv2d(space.num_nodes * channels, channels, 1, bias=False)
        self.merge_norm = batch_norm(channels)
        self.sources = [space.sources(node) for node in range(1, space.num_nodes + 1)]

    def forward(self, x: Tensor, lam: Tensor) -> Tensor:
        """x: (B, C, H, W); lam: one per edge, in the order of `SearchSpace.edges`."""
        outputs = self._sums(x) if self.kind == "sums" else self._loop(x, lam)
        return F.relu(self.merge_norm(self.merge(torch.cat(outputs, dim=1)))) + x

    def _sums(self, x: Tensor) -> list[Tensor]:
        outputs: list[Tensor] = []
        for level in range(self.num_levels):
            first = level * self.num_operations
            new = [operation(x) for operation in self.operations[first : first + self.num_operations]]
            outputs += new
            if level + 1 < self.num_levels:
                for h in new:
                    x = x + h
        return outputs

    def _loop(self, x: Tensor, lam: Tensor) -> list[Tensor]:
        outputs, position = [x], 0
        for operation, sources in zip(self.operations, self.sources, strict=True):
            z = lam[position] * outputs[0]
            for source in sources[1:]:
                z = z + lam[position + source] * outputs[source]
            position += len(sources)
            outputs.append(operation(z))
        return [scale * h for scale, h in zip(lam[position:], outputs[1:], strict=True)]


class EdgeNetwork(nn.Module):
    """Stem, blocks, reductions and head of the supernet, of ordinary modules."""

    def __init__(self, space: SearchSpace, kind: Kind) -> None:
        super().__init__()
        c = space.channels
        self.lam = nn.Parameter(torch.ones(len(space.edges)))
        if space.stem == "cifar":
            self.stem = conv_bn_relu(space.input_shape[0], c, 3)
        else:
            self.stem = nn.Sequential(
                conv_bn_relu(space.input_shape[0], c // 2, 3, 2), conv_bn_relu(c // 2, c, 3, 2)
            )
        self.blocks = nn.ModuleList()
        self.reductions = nn.ModuleDict()
        for stage, count in enumerate(space.stages):
            if stage:
                pair = [conv_bn_relu(c, 2 * c, 1, 2), conv_bn_relu(c, 2 * c, 3, 2)]
                self.reductions[str(len(self.blocks))] = nn.ModuleList(pair)
                c *= 2
            self.blocks.extend(EdgeBlock(space, c, kind) for _ in range(count))
        self.head_norm = batch_norm(c)
        self.classifier = nn.Linear(c, space.num_classes)
        self.to(memory_format=torch.channels_last)

    def weights(self) -> list[nn.Parameter]:
        return [p for name, p in self.named_parameters() if name != "lam" and p.requires_grad]

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images.contiguous(memory_format=torch.channels_last))
        for number, block in enumerate(self.blocks):
            if str(number) in self.reductions:
                one, three = self.reductions[str(number)]  # type: ignore[misc]
                x = one(x) + three(x)
            x = block(x, self.lam)
        logits: Tensor = self.classifier(F.relu(self.head_norm(x)).mean((2, 3)))
        return logits


# -- DARTS ----------------------------------------------------------------------------------------------


def _relu_conv_bn(in_channels: int, channels: int) -> nn.Sequential:
    return nn.Sequential(nn.ReLU(), nn.Conv2d(in_channels, channels, 1, bias=False), _norm(channels))


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, affine=False)


def _separable(c: int, kernel_size: int, stride: int, dilation: int = 1) -> list[nn.Module]:
    padding = dilation * (kernel_size - 1) // 2
    depthwise = nn.Conv2d(c, c, kernel_size, stride, padding, dilation, groups=c, bias=False)
    return [nn.ReLU(), depthwise, nn.Conv2d(c, c, 1, bias=False), _norm(c)]


class _FactorizedReduce(nn.Module):
    """Halves the resolution: two 1×1 convolutions of stride 2, on odd and on even positions."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.even = nn.Conv2d(in_channels, channels // 2, 1, 2, bias=False)
        self.odd = nn.Conv2d(in_channels, channels - channels // 2, 1, 2, bias=False)
        self.norm = _norm(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(x)
        shifted = F.pad(x, (0, 1, 0, 1))[:, :, 1:, 1:]
        out: Tensor = self.norm(torch.cat([self.even(x), self.odd(shifted)], dim=1))
        return out


class _MixedEdge(nn.Module):
    """Σ α·operation(x) over DARTS' eight operations; the operation "none" adds nothing."""

    def __init__(self, c: int, stride: int) -> None:
        super().__init__()
        skip = nn.Identity() if stride == 1 else _FactorizedReduce(c, c)
        self.operations = nn.ModuleList(
            [
                nn.Sequential(nn.MaxPool2d(3, stride, 1), _norm(c)),
                nn.Sequential(nn.AvgPool2d(3, stride, 1, count_include_pad=False), _norm(c)),
                skip,
                nn.Sequential(*_separable(c, 3, stride), *_separable(c, 3, 1)),
                nn.Sequential(*_separable(c, 5, stride), *_separable(c, 5, 1)),
                nn.Sequential(*_separable(c, 3, stride, 2)),
                nn.Sequential(*_separable(c, 5, stride, 2)),
            ]
        )

    def forward(self, x: Tensor, alpha: Tensor) -> Tensor:
        out = alpha[1] * self.operations[0](x)
        for weight, operation in zip(alpha[2:], self.operations[1:], strict=True):
            out = out + weight * operation(x)
        return out


class _DartsCell(nn.Module):
    """Two inputs, four nodes, 14 mixed edges; the output is the nodes' concatenation (4·C channels)."""

    NUM_NODES = 4

    def __init__(self, before: int, last: int, c: int, *, reduces: bool, after_reduction: bool) -> None:
        super().__init__()
        self.first = _FactorizedReduce(before, c) if after_reduction else _relu_conv_bn(before, c)
        self.second = _relu_conv_bn(last, c)
        self.edges = nn.ModuleList(
            _MixedEdge(c, 2 if reduces and source < 2 else 1)
            for node in range(self.NUM_NODES)
            for source in range(2 + node)
        )

    def forward(self, before: Tensor, last: Tensor, alpha: Tensor) -> Tensor:
        states = [self.first(before), self.second(last)]
        number = 0
        for _ in range(self.NUM_NODES):
            node = self.edges[number](states[0], alpha[number])
            for offset in range(1, len(states)):
                node = node + self.edges[number + offset](states[offset], alpha[number + offset])
            number += len(states)
            states.append(node)
        return torch.cat(states[-self.NUM_NODES :], dim=1)


class DartsNetwork(nn.Module):
    """DARTS' search network: reductions at one and two thirds of the cells, stem of 3·C channels."""

    def __init__(self, space: SearchSpace) -> None:
        """channels, blocks (= cells) and classes as the space has them."""
        super().__init__()
        c, num_cells = space.channels, space.num_blocks
        self.lam = nn.Parameter(torch.zeros(2, 14, 8))
        """DARTS' α: of normal and of reduction cells, by edge, by operation."""
        self.stem = nn.Sequential(
            nn.Conv2d(space.input_shape[0], 3 * c, 3, padding=1, bias=False), nn.BatchNorm2d(3 * c)
        )
        self.cells = nn.ModuleList()
        self.reduces: list[bool] = []
        before, last = 3 * c, 3 * c
        for index in range(num_cells):
            reduces = index in (num_cells // 3, 2 * num_cells // 3)
            c *= 2 if reduces else 1
            after_reduction = bool(self.reduces) and self.reduces[-1]
            self.cells.append(_DartsCell(before, last, c, reduces=reduces, after_reduction=after_reduction))
            self.reduces.append(reduces)
            before, last = last, 4 * c
        self.classifier = nn.Linear(last, space.num_classes)
        self.to(memory_format=torch.channels_last)

    def weights(self) -> list[nn.Parameter]:
        return [p for name, p in self.named_parameters() if name != "lam"]

    def forward(self, images: Tensor) -> Tensor:
        before = last = self.stem(images.contiguous(memory_format=torch.channels_last))
        alphas = self.lam.softmax(dim=-1)
        for cell, reduces in zip(self.cells, self.reduces, strict=True):
            before, last = last, cell(before, last, alphas[int(reduces)])
        logits: Tensor = self.classifier(last.mean((2, 3)))
        return logits
