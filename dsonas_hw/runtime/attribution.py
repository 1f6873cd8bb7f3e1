"""From the times of what a runtime ran to the kernels of the network.

A runtime on a GPU tells the times of its own *layers*: a layer of an engine, a node of its optimised graph, a
call into PyTorch. Each stands for one or several nodes of the ONNX network, and is named here by the tensors
that these write. A node belongs to the kernel that writes its tensor, or, where that tensor is inside of a
kernel (a convolution whose ReLU is fused), to the kernel of whoever reads it.

    layer ──tensors──▶ nodes ──▶ kernels          one: it has the layer's time
                                                   several: they share it by what each brings (`_brings`)
                                                   none: named, and no kernel's

A kernel that no layer stands for takes no time of its own (a concatenation whose parts are written where they
belong) or was run together with the one that reads it (a sum inside a convolution).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from dsonas_hw.errors import ProfileError
from dsonas_hw.kernel.network import Schedule, ScheduledKernel
from dsonas_hw.kernel.onnx.from_onnx import network_from_onnx
from dsonas_hw.runtime.base import NetworkTiming, NodeTiming
from dsonas_hw.target import Target

FREE_MS = 1e-4
"""Of a kernel that no time was seen of: less than any profiler resolves."""
FLOPS_PER_ELEMENT = 32.0
"""Multiply-adds that take about as long as to move one element."""
LEAST_FRACTION = 0.01
"""Of a layer's time, for each of its kernels."""
UNNAMED_FRACTION = 0.05
"""Of the kernels' time, that may be of layers without a node before it is worth a remark."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerTime:
    """What a runtime ran as one."""

    name: str
    tensors: tuple[str, ...]
    """That its nodes write; empty: it stands for no node."""
    latency_ms: float


def time_kernels(layers: Sequence[LayerTime], graph: Any, schedule: Schedule) -> NetworkTiming:
    """Return the time of every kernel of a network, in the order of the schedule.

    graph: of ONNX, with the tensors that the layers name; the network's own, or what a runtime made of it.

    Raises:
        ProfileError: a convolution or a product has no time: layers are missing.
    """
    steps = schedule.kernels
    kernel_of = kernels_by_tensor(graph, schedule)
    together = _run_together(steps, set(kernel_of.values()))
    times_ms = [0.0] * len(steps)
    seen: set[int] = set()
    unnamed: list[LayerTime] = []
    for layer in layers:
        leaders = {kernel_of[tensor] for tensor in layer.tensors if tensor in kernel_of}
        members = [index for index, leader in enumerate(together) if leader in leaders]
        if not members:
            unnamed.append(layer)
        for index, fraction in zip(members, _fractions([steps[index] for index in members]), strict=True):
            times_ms[index] += fraction * layer.latency_ms
        seen.update(members)
    missing = [step.kernel.key for index, step in enumerate(steps) if step.kernel.flops and index not in seen]
    if missing:
        raise ProfileError(
            f"the trace has no time of {len(missing)} of {len(steps)} kernels, such as {missing[0]}; "
            f"it holds {len(layers)} layers"
            + (f", among them {unnamed[0].name!r}, which stands for no node" if unnamed else "")
        )
    return NetworkTiming(
        nodes=tuple(
            NodeTiming(kernel=step.kernel, latency_ms=max(time_ms, FREE_MS))
            for step, time_ms in zip(steps, times_ms, strict=True)
        ),
        remarks=_remarks(unnamed, sum(times_ms)),
    )


def kernels_by_tensor(graph: Any, schedule: Schedule) -> dict[str, int]:
    """Tensor of an ONNX graph → number of the kernel that the node which writes it belongs to."""
    written = {step.writes: index for index, step in enumerate(schedule.kernels)}
    readers: dict[str, Any] = {}
    found: dict[str, int] = {}
    for node in reversed(graph.node):
        inside = next((found[name] for name in node.output if name in found), None)
        for name in node.output:
            if name in written:
                found[name] = written[name]
            elif name in readers:
                found[name] = readers[name]
            elif inside is not None:
                found[name] = inside
        owner = next((found[name] for name in node.output if name in found), None)
        if owner is not None:
            readers.update(dict.fromkeys(node.input, owner))
    for node in graph.node:  # views behind the last kernel
        before = next((found[name] for name in node.input if name in found), None)
        if before is not None:
            found.update((name, before) for name in node.output if name not in found)
    return found


def _run_together(steps: Sequence[ScheduledKernel], named: set[int]) -> list[int]:
    """For every kernel the one whose layer it runs in: itself, or the next that reads it."""
    leaders = list(range(len(steps)))
    readers: dict[str, int] = {}
    for index in reversed(range(len(steps))):
        if index not in named and steps[index].writes in readers:
            leaders[index] = leaders[readers[steps[index].writes]]
        readers.update(dict.fromkeys(steps[index].reads, index))
    return leaders


def _fractions(members: Sequence[ScheduledKernel]) -> list[float]:
    """How the kernels of one layer share its time."""
    inside = {step.writes for step in members}
    brought = [_brings(step, inside) for step in members]
    total = sum(brought)
    least = [max(value / total if total else 0.0, LEAST_FRACTION) for value in brought]
    return [value / sum(least) for value in least]


def _brings(step: ScheduledKernel, inside: set[str]) -> float:
    """Elements that a layer moves because of this kernel, and its multiply-adds in the same unit.

    What passes between the kernels of the layer is not moved; its result counts for the first of them.
    """
    kernel = step.kernel
    is_first = not any(name in inside for name in step.reads)
    read = sum(
        prod(shape) for name, shape in zip(step.reads, step.read_shapes, strict=False) if name not in inside
    )
    moved = read + kernel.num_weights + (prod(kernel.output) if is_first else 0)
    return moved + kernel.flops / FLOPS_PER_ELEMENT


def _remarks(unnamed: Iterable[LayerTime], known_ms: float) -> tuple[str, ...]:
    unnamed = sorted(unnamed, key=lambda layer: -layer.latency_ms)
    unnamed_ms = sum(layer.latency_ms for layer in unnamed)
    if not unnamed_ms or unnamed_ms <= UNNAMED_FRACTION * (known_ms + unnamed_ms):
        return ()
    names = ", ".join(layer.name[:60] for layer in unnamed[:3])
    fraction = unnamed_ms / (known_ms + unnamed_ms)
    return (f"{fraction:.0%} of the kernels' time stands for no node of the network: {names}",)


def schedule_of(model: bytes, target: Target, fuse: bool) -> Schedule:
    """The kernels of an ONNX model, over buffers that are called like its tensors.

    fuse: as the runtime does.

    Raises:
        ModelFileError: not a network that can be read.
    """
    import onnx

    proto = onnx.load_model_from_string(model)
    return network_from_onnx(proto, batch_size=target.batch_size, fuse=fuse).schedule


def tensors_of_nodes(graph: Any) -> Mapping[str, tuple[str, ...]]:
    """Name of a node → the tensors that it writes."""
    return {node.name: tuple(node.output) for node in graph.node}
