"""Random convolutional networks as users write them in PyTorch: any width, activation, pool and head."""

from __future__ import annotations

import contextlib
import io
import random
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor, nn

ACTIVATIONS: tuple[type[nn.Module], ...] = (
    *(nn.ReLU, nn.ReLU6, nn.Hardswish, nn.SiLU, nn.LeakyReLU, nn.Sigmoid),
    *(nn.Tanh, nn.Hardsigmoid, nn.GELU, nn.ELU),
)


class Residual(nn.Module):
    def __init__(self, body: nn.Module, after: nn.Module) -> None:
        super().__init__()
        self.body, self.after = body, after

    def forward(self, x: Tensor) -> Tensor:
        return self.after(x + self.body(x))


class SqueezeExcitation(nn.Module):
    def __init__(self, channels: int, squeezed: int, gate: nn.Module, pool: nn.Module) -> None:
        super().__init__()
        self.scale = nn.Sequential(
            pool, nn.Conv2d(channels, squeezed, 1), nn.ReLU(), nn.Conv2d(squeezed, channels, 1), gate
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale(x)


class Mean(nn.Module):
    """A global average that is written as a reduction."""

    def __init__(self, keepdim: bool) -> None:
        super().__init__()
        self.keepdim = keepdim

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3), keepdim=self.keepdim)


class Branches(nn.Module):
    def __init__(self, branches: Sequence[nn.Module]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


class Shuffle(nn.Module):
    """ShuffleNet's unit: half of the channels is kept, and the halves are interleaved."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        kept, changed = x.chunk(2, 1)
        y = torch.cat((kept, self.body(changed)), 1)
        n, c, h, w = y.shape
        return y.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


class Builder:
    """Draws a network layer by layer."""

    def __init__(self, rng: random.Random, channels: int) -> None:
        self.rng = rng
        self.channels = channels

    def width(self) -> int:
        return 2 * self.rng.randint(1, 32)

    def activation(self) -> nn.Module:
        return self.rng.choice(ACTIVATIONS)()

    def conv(
        self,
        inputs: int,
        outputs: int,
        *,
        kernel_size: int = 0,
        stride: int = 1,
        groups: int = 1,
        act: bool = True,
    ) -> nn.Sequential:
        kernel_size = kernel_size or self.rng.choice((1, 3, 5))
        norm = self.rng.random() < 0.7
        bias = not norm or self.rng.random() < 0.2
        layers: list[nn.Module] = [
            nn.Conv2d(inputs, outputs, kernel_size, stride, kernel_size // 2, groups=groups, bias=bias)
        ]
        layers += [nn.BatchNorm2d(outputs)] if norm else []
        layers += [self.activation()] if act else []
        return nn.Sequential(*layers)

    def unit(self, kind: str) -> nn.Module:
        rng, channels = self.rng, self.channels
        wide, stride = self.width(), rng.choice((1, 1, 2))
        match kind:
            case "dense":
                self.channels = wide
                return self.conv(channels, wide, stride=stride)
            case "separable":
                self.channels = wide
                depthwise = self.conv(channels, channels, kernel_size=3, stride=stride, groups=channels)
                return nn.Sequential(depthwise, self.conv(channels, wide, kernel_size=1))
            case "inverted":
                layers: list[nn.Module] = [self.conv(channels, wide, kernel_size=1)]
                layers.append(self.conv(wide, wide, kernel_size=rng.choice((3, 5)), groups=wide))
                if rng.random() < 0.5:
                    gate = rng.choice((nn.Sigmoid, nn.Hardsigmoid))()
                    pool = rng.choice((Mean(keepdim=True), nn.AdaptiveAvgPool2d(1)))
                    layers.append(SqueezeExcitation(wide, rng.choice((2, 4, 8, 16)), gate, pool))
                layers.append(self.conv(wide, channels, kernel_size=1, act=False))
                return Residual(nn.Sequential(*layers), rng.choice((nn.Identity(), nn.ReLU())))
            case "fire":
                left, right = self.width(), self.width()
                self.channels = left + right
                branches = [self.conv(wide, left, kernel_size=1), self.conv(wide, right, kernel_size=3)]
                return nn.Sequential(self.conv(channels, wide, kernel_size=1), Branches(branches))
            case "pool":
                size = rng.choice((2, 3))
                stride, padding = (2, 0) if size == 2 else (stride, 1)
                pool = rng.choice((nn.MaxPool2d, nn.AvgPool2d))
                return nn.Sequential(
                    pool(size, stride, padding=padding, ceil_mode=rng.random() < 0.3),
                    nn.BatchNorm2d(channels) if rng.random() < 0.3 else nn.Identity(),
                )
            case "grouped":
                groups = rng.choice([g for g in (2, 4, 8) if channels % g == 0])
                self.channels = groups * rng.choice((2, 4, 8, 16))
                return self.conv(channels, self.channels, kernel_size=3, stride=stride, groups=groups)
            case "shuffle" if channels >= 4:  # with two channels nothing moves: see `ort_layout`
                return Shuffle(self.conv(channels // 2, channels // 2))
            case "preactivated":
                self.channels = wide
                conv = nn.Conv2d(channels, wide, 3, 1, 1, bias=False)
                return nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(), conv)
            case "sum":
                choices = (nn.MaxPool2d(3, 1, 1), nn.AvgPool2d(3, 1, 1), self.conv(channels, channels))
                return Residual(rng.choice(choices), nn.ReLU())
            case "concat":
                self.channels = 2 * channels
                return Branches([nn.Identity(), nn.MaxPool2d(3, 1, 1)])
        return Branches([nn.Identity()])  # DenseNet concatenates a single tensor, too

    def head(self) -> nn.Module:
        classes = self.rng.choice((2, 10))
        pool = self.rng.choice((nn.AdaptiveAvgPool2d(1), Mean(keepdim=True)))
        match self.rng.choice(("linear", "hidden", "mean", "convolution")):
            case "convolution":
                return nn.Sequential(nn.Conv2d(self.channels, classes, 1), nn.ReLU(), pool, nn.Flatten())
            case "mean":
                return nn.Sequential(Mean(keepdim=False), nn.Linear(self.channels, classes))
            case "hidden":
                hidden = nn.Sequential(nn.Dropout(0.2), nn.Linear(self.channels, 16), self.activation())
                return nn.Sequential(pool, nn.Flatten(), hidden, nn.Linear(16, classes))
        return nn.Sequential(pool, nn.Flatten(), nn.Linear(self.channels, classes))


KINDS = (
    *("dense", "separable", "inverted", "inverted", "fire", "pool", "grouped", "shuffle"),
    *("preactivated", "sum", "concat", "single"),
)


def draw_module(index: int) -> tuple[nn.Module, tuple[int, int, int, int]]:
    """A network, and the shape of its input."""
    rng = random.Random(f"module {index}")
    channels, side = rng.choice((1, 2, 3)), rng.choice((24, 28, 33))
    builder = Builder(rng, channels)
    units = [builder.unit("dense")]
    units += [builder.unit(rng.choice(KINDS)) for _ in range(rng.randint(1, 7))]
    return nn.Sequential(*units, builder.head()), (rng.choice((1, 1, 2)), channels, side, side + 2)


def fill(module: nn.Module) -> None:
    """Random weights, no two tensors equal: what is equal, a runtime's optimiser merges."""
    generator = torch.Generator().manual_seed(0)
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.is_floating_point():
            tensor.data.uniform_(0.1, 1.1, generator=generator)
        else:
            tensor.data.zero_()


def export(module: nn.Module, shape: tuple[int, ...], *, fold: bool = True) -> bytes:
    """The network as ONNX, its batch norms folded by the exporter or left to the runtime."""
    file = io.BytesIO()
    mode = torch.onnx.TrainingMode.EVAL if fold else torch.onnx.TrainingMode.PRESERVE
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(),
            (torch.zeros(shape),),
            file,  # type: ignore[arg-type]
            dynamo=False,
            opset_version=17,
            training=mode,
            do_constant_folding=fold,
        )
    return file.getvalue()
