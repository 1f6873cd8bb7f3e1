"""A hand-made network as a value, as the module that is trained, and as the ONNX file that is measured."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from dsonas_hw.architecture.onnx import Array
from dsonas_hw.errors import RunError, UserError, closest
from dsonas_hw.train.batch_norm import BatchNorm
from dsonas_hw.train.drop_path import DropEdges
from dsonas_hw.train.families import FAMILIES, SMALL_SIDE, Size
from dsonas_hw.train.regularise import Dropout

WIDTH_UNITS = 32
"""Parts of a family's own width in which widths are counted."""
MAX_WIDTH_UNITS = 4 * WIDTH_UNITS
ONNX_OPSET = 17


@dataclass(frozen=True, kw_only=True)
class HandMade:
    """A network of a family, for images of a shape.

    Example:
        >>> parse_family("resnet-s2", input_shape=(1, 28, 28), num_classes=10).title
        'ResNet, stem/2'
    """

    family: str
    """A key of `families.FAMILIES`."""
    input_shape: tuple[int, int, int]
    """Channels, height, width."""
    num_classes: int
    stem_stride: int = 1
    """Of small images' stem; other images have the family's own stem."""
    depth: int = 1
    width_units: int = WIDTH_UNITS
    """Width in 32nds of the family's own."""

    @property
    def title(self) -> str:
        """The family and what is particular, for people."""
        parts = [FAMILIES[self.family][0]]
        parts += [f"stem/{self.stem_stride}"] if self.is_small and self.stem_stride > 1 else []
        parts += [f"depth ×{self.depth}"] if self.depth > 1 else []
        return ", ".join(parts)

    @property
    def is_small(self) -> bool:
        """Whether it has the stem and stages for small images."""
        return min(self.input_shape[1:]) < SMALL_SIDE

    def with_width(self, width_units: int) -> HandMade:
        """Return the same network at another width, in 32nds."""
        return replace(self, width_units=width_units)

    def to_json(self) -> dict[str, Any]:
        """Return what `hand_made_from_json` reads."""
        return asdict(self)


def hand_made_from_json(data: Mapping[str, Any], *, origin: str) -> HandMade:
    """Read what `HandMade.to_json` gave.

    Raises:
        RunError: it is not such a network.
    """
    try:
        found = HandMade(**{**data, "input_shape": tuple(data["input_shape"])})
        FAMILIES[found.family]
    except (KeyError, TypeError):
        raise RunError(f"{origin} holds no hand-made network; delete it and start again") from None
    return found


def parse_family(name: str, *, input_shape: tuple[int, int, int], num_classes: int) -> HandMade:
    """Return the network that a name such as `resnet` or `resnet-s2-d2` stands for, at its own width.

    Raises:
        UserError: no such family, or a variant that images of this size do not have.
    """
    match = re.fullmatch(r"([a-z0-9]+)(?:-s([12]))?(?:-d([1-4]))?", name)
    if match is None or match[1] not in FAMILIES:
        raise UserError(
            f"unknown family {name!r}. {closest(name, list(FAMILIES))} "
            "Small images also have variants: -s2 (stem of stride 2) and -d2 (twice the blocks)"
        )
    network = HandMade(
        family=match[1], input_shape=input_shape, num_classes=num_classes,
        stem_stride=int(match[2] or 1), depth=int(match[3] or 1),
    )  # fmt: skip
    if not network.is_small and (match[2] or match[3]):
        raise UserError(
            f"{name}: images of {min(input_shape[1:])} pixels have the family's own stem and depth; "
            f"say {match[1]}"
        )
    return network


class HandMadeNetwork(nn.Module):
    """The module of a hand-made network; (N, C, H, W) images → (N, classes) logits.

    It has what `Trainer` asks of a network. There is nothing in it that drop-path or an auxiliary head would
    belong to; dropout before the classifier is the recipe's.
    """

    def __init__(self, network: HandMade, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.body = build_module(network)
        _replace_last_linear(self.body, dropout)
        for module in self.body.modules():
            if type(module) is nn.BatchNorm2d:
                module.__class__ = BatchNorm  # the same, but for batches that processes share
        self.drop_edges = DropEdges(of_node={}, depths=())
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, classes)."""
        logits: Tensor = self.body(images.contiguous(memory_format=torch.channels_last))
        return logits

    def forward_with_auxiliary(
        self, images: Tensor, drop_masks: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Return the logits (N, classes); there is no auxiliary head."""
        return self(images), None

    def named_arrays(self) -> dict[str, Array]:
        """Return every weight and statistic under the name that PyTorch gives it."""
        return {
            name: tensor.detach().cpu().numpy().copy()
            for name, tensor in self.state_dict().items()
            if tensor.is_floating_point()
        }

    @torch.no_grad()
    def load_named_arrays(self, arrays: Mapping[str, Array]) -> None:
        """Take weights that `named_arrays` gave.

        Raises:
            RuntimeError: a weight is missing or of another shape.
        """
        counters = {name: t for name, t in self.state_dict().items() if not t.is_floating_point()}
        self.load_state_dict({**counters, **{name: torch.from_numpy(a) for name, a in arrays.items()}})


def build_module(network: HandMade) -> nn.Module:
    """Return the family's module with the stem of these images, weights drawn as the family does."""
    small = network.is_small
    size = Size(width=network.width_units / WIDTH_UNITS, depth=network.depth, is_small=small)
    body = FAMILIES[network.family][1](size, network.num_classes)
    name, first = next((n, m) for n, m in body.named_modules() if isinstance(m, nn.Conv2d))
    channels = network.input_shape[0]
    if small:
        stem = nn.Conv2d(channels, first.out_channels, 3, network.stem_stride, 1, bias=False)
    elif channels != first.in_channels:
        kernel, stride, padding = cast(
            "tuple[Any, Any, Any]", (first.kernel_size, first.stride, first.padding)
        )
        stem = nn.Conv2d(channels, first.out_channels, kernel, stride, padding, bias=False)
    else:
        return body
    nn.init.kaiming_normal_(stem.weight, mode="fan_out", nonlinearity="relu")
    body.set_submodule(name, stem)
    return body


def layer_shapes(network: HandMade) -> tuple[tuple[int, ...], ...]:
    """Return the shapes of all weights: networks that have equal ones are the same network."""
    with torch.device("meta"):
        return tuple(tuple(p.shape) for p in build_module(network).parameters())


def count_params(network: HandMade) -> int:
    """Return the learned weights, batch norms' among them."""
    return sum(p.numel() for p in build_module(network).parameters())


def hand_made_onnx(network: HandMade, *, batch_size: int) -> bytes:
    """Return the network with random weights as an ONNX file (float32); latency does not depend on them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = HandMadeNetwork(network).eval()
    file: Any = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter that needs no further package
        torch.onnx.export(
            module, (torch.zeros(batch_size, *network.input_shape),), file, dynamo=False,
            input_names=["input"], output_names=["logits"], opset_version=ONNX_OPSET,
        )  # fmt: skip
    return bytes(file.getvalue())


def _replace_last_linear(body: nn.Module, dropout: float) -> None:
    """Put the recipe's dropout before the classifier."""
    name, last = [(n, m) for n, m in body.named_modules() if isinstance(m, nn.Linear)][-1]
    body.set_submodule(name, nn.Sequential(Dropout(dropout), last))
