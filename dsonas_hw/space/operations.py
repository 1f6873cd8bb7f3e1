"""The operations of a search space: one registry, one entry each.

An operation is a chain of primitive layers, followed by batch norm and ReLU. The supernet, the derived
network, the ONNX export, the kernels and so every cost are built from that chain: a new operation is one
`register(...)` call.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dsonas_hw.errors import UserError, closest

LayerKind = Literal["depthwise", "pointwise", "conv", "avgpool", "maxpool"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Layer:
    """One primitive layer of stride 1, padded to keep the resolution."""

    kind: LayerKind
    kernel_size: int = 1
    dilation: int = 1
    inputs: int = 1
    """Input channels, as a multiple of the block's channels C."""
    outputs: int = 1
    """Output channels, likewise; only `pointwise` and `conv` may change their number."""
    activated: bool = False
    """Whether batch norm and ReLU follow; behind the last layer of an operation they follow anyway."""

    def __post_init__(self) -> None:
        if min(self.inputs, self.outputs) < 1:
            raise ValueError("inputs and outputs are multiples of the block's channels, at least 1")
        if self.inputs != self.outputs and self.kind not in ("pointwise", "conv"):
            raise ValueError(f"a {self.kind} layer keeps its channels: inputs must equal outputs")
        if self.kernel_size < 1 or self.kernel_size % 2 == 0 or self.dilation < 1:
            raise ValueError(
                f"a layer keeps the resolution: kernel_size must be odd and dilation at least 1, "
                f"not {self.kernel_size} and {self.dilation}"
            )

    @property
    def padding(self) -> int:
        return self.dilation * (self.kernel_size - 1) // 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Operation:
    """What a node of a block computes: `layers`, then batch norm and ReLU; no layers = the identity."""

    name: str
    label: str
    """For drawings, e.g. "sep 3×3"."""
    layers: tuple[Layer, ...]

    def __post_init__(self) -> None:
        multiples = [1, *(m for layer in self.layers for m in (layer.inputs, layer.outputs)), 1]
        if any(a != b for a, b in zip(multiples[::2], multiples[1::2], strict=True)):
            raise ValueError(
                f"operation {self.name!r}: each layer takes as many channels as the one before gives"
            )

    def __hash__(self) -> int:
        return hash(self.name)  # as operations are told apart; searches hash them by the thousand


OPERATIONS: dict[str, Operation] = {}


def register(name: str, label: str, *layers: Layer) -> Operation:
    """Add an operation to the registry; its name is what a configuration uses."""
    if name in OPERATIONS:
        raise ValueError(f"operation {name!r} is registered already")
    OPERATIONS[name] = Operation(name=name, label=label, layers=layers)
    return OPERATIONS[name]


def get_operation(name: str) -> Operation:
    """Look an operation up.

    Raises:
        UserError: no operation of that name.
    """
    try:
        return OPERATIONS[name]
    except KeyError:
        raise UserError(
            f"unknown operation {name!r}. {closest(name, list(OPERATIONS))} One that a script of your own "
            "registers is known to that script alone: use it in the place of dsonas-hw (python SCRIPT.py …)"
        ) from None


def _separable(kernel_size: int, dilation: int = 1) -> tuple[Layer, Layer]:
    return (
        Layer(kind="depthwise", kernel_size=kernel_size, dilation=dilation),
        Layer(kind="pointwise"),
    )


def _inverted_residual(kernel_size: int, expansion: int) -> tuple[Layer, ...]:
    """MobileNetV2's chain: widen, filter each channel, narrow."""
    return (
        Layer(kind="pointwise", outputs=expansion, activated=True),
        Layer(kind="depthwise", kernel_size=kernel_size, inputs=expansion, outputs=expansion, activated=True),
        Layer(kind="pointwise", inputs=expansion),
    )


# The paper's four operations.
register("sep3", "sep 3×3", *_separable(3))
register("sep5", "sep 5×5", *_separable(5))
register("avg3", "avg 3×3", Layer(kind="avgpool", kernel_size=3))
register("max3", "max 3×3", Layer(kind="maxpool", kernel_size=3))
# Beyond the paper.
register("sep7", "sep 7×7", *_separable(7))
register("dil3", "dil 3×3", *_separable(3, dilation=2))
register("dil5", "dil 5×5", *_separable(5, dilation=2))
register("conv1", "conv 1×1", Layer(kind="pointwise"))
register("conv3", "conv 3×3", Layer(kind="conv", kernel_size=3))
register("mb3x2", "mb 3×3 ×2", *_inverted_residual(3, 2))
register("mb3x3", "mb 3×3 ×3", *_inverted_residual(3, 3))
register("mb5x3", "mb 5×5 ×3", *_inverted_residual(5, 3))
register("skip", "skip")
