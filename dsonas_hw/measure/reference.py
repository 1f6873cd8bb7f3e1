"""Two small networks that never change: what the speed of this machine is read from.

A CPU that others share, or whose clock moves, runs everything 5 to 15 % slower in one minute than in another.
Timings are compared with the reference workloads' next to them, so that tables and checks made in different
minutes agree. They hold what the networks of the search spaces hold: separable and plain convolutions, pools,
sums, a concat.

They are two because what others take away is not the same for all: from one hour to another the large one,
on 5 MB of tensors, became 20 % slower, networks above 0.2 ms by as much, and networks below 0.1 ms, which
live in a core's own caches like the small one, by 8 %.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

SMALL_NETWORK_MS, LARGE_NETWORK_MS = 0.05, 0.5
"""Networks that slow down as the small, and as the large workload does; those between do as both."""
SMALL_KEY, LARGE_KEY = "reference_small_ms", "reference_large_ms"
"""Of a speed's numbers in files."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Speed:
    """How fast a machine is: what each reference workload takes there, in ms."""

    small_ms: float
    large_ms: float

    def relative_time(self, other: Speed, latency_ms: float) -> float:
        """What a network of about this latency takes, in multiples of what it takes at another speed."""
        span = math.log(LARGE_NETWORK_MS / SMALL_NETWORK_MS)
        large = min(max(math.log(latency_ms / SMALL_NETWORK_MS) / span, 0.0), 1.0)
        small_time, large_time = self.small_ms / other.small_ms, self.large_ms / other.large_ms
        return math.pow(small_time, 1 - large) * math.pow(large_time, large)

    def to_values(self) -> dict[str, float]:
        """The two numbers as files hold them."""
        return {SMALL_KEY: self.small_ms, LARGE_KEY: self.large_ms}

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Speed | None:
        """The speed among numbers of a file; None: it is not there."""
        if not values.get(SMALL_KEY) or not values.get(LARGE_KEY):
            return None
        return cls(small_ms=float(values[SMALL_KEY]), large_ms=float(values[LARGE_KEY]))

    def quicker(self, other: Speed) -> Speed:
        """The quicker of two, workload by workload."""
        return Speed(small_ms=min(self.small_ms, other.small_ms), large_ms=min(self.large_ms, other.large_ms))

    @classmethod
    def usual(cls, speeds: Iterable[Speed]) -> Speed | None:
        """The median of several; None: there is none."""
        seen = list(speeds)
        if not seen:
            return None
        return cls(
            small_ms=median(speed.small_ms for speed in seen),
            large_ms=median(speed.large_ms for speed in seen),
        )


@dataclass(frozen=True, kw_only=True)
class References:
    """The reference workloads, ready to run."""

    small: Callable[[], object]
    large: Callable[[], object]


def build_small() -> bytes:
    """The small one as ONNX: about 30 µs on one core of a server CPU, on 50 kB of tensors."""
    return _build(channels=16, side=8)


def build_large() -> bytes:
    """The large one as ONNX: about a millisecond on one core of a server CPU, on 5 MB of tensors."""
    return _build(channels=48, side=32)


def _build(*, channels: int, side: int, num_branches: int = 8) -> bytes:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    nodes: list[Any] = []
    initializers: list[Any] = []

    def weight(*shape: int) -> str:
        values = rng.standard_normal(shape, np.float32) / np.float32(np.prod(shape[1:]) ** 0.5)
        initializers.append(numpy_helper.from_array(values, f"w{len(initializers)}"))
        return f"w{len(initializers) - 1}"

    def add(op_type: str, *inputs: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(op_type, list(inputs), [f"t{len(nodes)}"], **attributes))
        return f"t{len(nodes) - 1}"

    current = "input"
    branches = []
    for index in range(num_branches):
        if index % 2:
            pooled = add("MaxPool", current, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
        else:
            pooled = add("Conv", current, weight(channels, 1, 5, 5), group=channels, pads=[2, 2, 2, 2])
        mixed = add("Relu", add("Conv", pooled, weight(channels, channels, 1, 1)))
        current = add("Sum", mixed, current)
        branches.append(mixed)
    joined = add("Concat", *branches, axis=1)
    add("Conv", joined, weight(channels, num_branches * channels, 1, 1))
    shape = [1, channels, side, side]
    graph = helper.make_graph(
        nodes,
        "reference",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, shape)],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(onnx.shape_inference.infer_shapes(model).SerializeToString())
