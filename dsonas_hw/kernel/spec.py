"""A kernel: what a device runs once a network is deployed.

Everything that has a cost goes through lists of `Kernel`: flops, mac and params, the key of a lookup table,
the latency prediction and the γ of an edge. So they cannot disagree.

Two lists describe one network. The *fused* list is what an inference runtime runs: batch norms folded into
the convolution, linear layer or pool before them, activations fused into the kernel that produces their
input. The *unfused* list is what an eager framework runs: every batch norm and activation a kernel of its
own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

Shape = tuple[int, ...]

#: op → kind. An operation that is not here is unknown: it is reported, never costed as zero.
KINDS: dict[str, str] = {
    "conv": "conv",
    "conv_transpose": "conv",
    "gemm": "gemm",
    "matmul": "gemm",
    "rnn": "recurrent",  # one direction or both of an LSTM, GRU or plain RNN: named in `function`
    "maxpool": "pool",
    "avgpool": "pool",
    "global_avgpool": "reduce",
    "global_maxpool": "reduce",
    "reduce": "reduce",
    "batchnorm": "norm",
    "layernorm": "norm",
    "instancenorm": "norm",
    "groupnorm": "norm",
    "lrn": "norm",
    "softmax": "softmax",
    "sum": "elementwise",  # n-ary addition, n = len(inputs)
    "mul": "elementwise",
    "sub": "elementwise",
    "div": "elementwise",
    "unary": "elementwise",  # relu, sigmoid, hardswish, …: named in `function`
    "binary": "elementwise",  # pow, min, max, where, …: named in `function`
    "concat": "move",
    "copy": "move",  # transpose, slice, pad, split, gather, expand: named in `function`
    "resize": "move",
}

#: Matrix products per step and direction of a recurrent layer.
RECURRENT_GATES: dict[str, int] = {"lstm": 4, "gru": 3, "rnn": 1}


def by(sizes: Sequence[int]) -> str:
    """Return the sizes as they are written: (3, 3) is 3x3."""
    return "x".join(map(str, sizes))


@dataclass(frozen=True, kw_only=True, slots=True)
class Kernel:
    """One kernel of a deployed network.

    Shapes are (N, C, H, W) for images, (N, C, D, H, W) for volumes and (N, features) or (N, tokens, features)
    otherwise; N is the batch. A recurrent layer reads (steps, N, features) and writes (steps, N, directions ·
    hidden), and `groups` is its number of directions.
    """

    op: str
    inputs: tuple[Shape, ...]
    """Shapes of the activations that are read; weights are not among them."""
    output: Shape
    kernel_size: tuple[int, ...] = (1, 1)
    stride: tuple[int, ...] = (1, 1)
    dilation: tuple[int, ...] = (1, 1)
    groups: int = 1
    num_weights: int = 0
    """Weight elements that are read and stored (bias not included)."""
    num_bias: int = 0
    """Bias elements stored: after a batch norm is folded, one per output channel."""
    function: str = ""
    """Which elementwise function, reduction or copy, where `op` names only the kind."""
    epilogue: tuple[str, ...] = ()
    """What is fused behind it, in order: "bn", "relu", "hardswish", …"""

    def __post_init__(self) -> None:
        if self.op not in KINDS:
            raise ValueError(f"unknown kernel op {self.op!r}")
        if self.op == "rnn" and self.function not in RECURRENT_GATES:
            raise ValueError(f"unknown recurrent layer {self.function!r}")

    @property
    def kind(self) -> str:
        """conv | gemm | recurrent | pool | reduce | norm | softmax | elementwise | move."""
        return KINDS[self.op]

    @property
    def is_depthwise(self) -> bool:
        """A convolution with as many groups as input channels (and more than one)."""
        return self.op == "conv" and self.groups > 1 and self.groups == self.inputs[0][1]

    @property
    def batch_size(self) -> int:
        return self.output[0]

    @property
    def flops(self) -> int:
        """Multiply-adds of convolutions, linear and recurrent layers, matrix products; 0 for all else."""
        if self.op == "conv":
            return prod(self.output) * (self.inputs[0][1] // self.groups) * prod(self.kernel_size)
        if self.op == "conv_transpose":
            return prod(self.inputs[0]) * (self.output[1] // self.groups) * prod(self.kernel_size)
        if self.op in ("gemm", "matmul"):
            return prod(self.output) * self.inputs[0][-1]
        if self.op == "rnn":
            hidden = self.output[-1] // self.groups
            return prod(self.output) * RECURRENT_GATES[self.function] * (self.inputs[0][-1] + hidden)
        return 0

    @property
    def mac(self) -> int:
        """Memory access cost in elements: read + written + weights read (ShuffleNet V2's MAC)."""
        return sum(prod(shape) for shape in self.inputs) + prod(self.output) + self.num_weights

    @property
    def params(self) -> int:
        """Weights that the deployed network stores for this kernel."""
        return self.num_weights + self.num_bias

    @property
    def key(self) -> str:
        """The lookup table's key: equal keys cost the same.

        Example: ``conv(1x48x32x32)->1x48x32x32;k3x3,s1x1,g48+bn+relu``.
        """
        shapes = ",".join(by(shape) for shape in self.inputs)
        details = []
        if self.function:
            details.append(self.function)
        if self.kernel_size != (1, 1) or self.kind in ("conv", "pool"):
            details.append(f"k{by(self.kernel_size)}")
        if self.stride != (1, 1) or self.kind in ("conv", "pool"):
            details.append(f"s{by(self.stride)}")
        if set(self.dilation) != {1}:
            details.append(f"d{by(self.dilation)}")
        if self.groups != 1:
            details.append(f"g{self.groups}")
        tail = ";" + ",".join(details) if details else ""
        fused = "".join(f"+{name}" for name in self.epilogue)
        return f"{self.op}({shapes})->{by(self.output)}{tail}{fused}"
