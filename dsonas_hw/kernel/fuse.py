"""From the kernels an eager framework runs to those an inference runtime runs.

- A constant scale and shift per channel (batch norm, `x * c`, `x + c`) is folded into the convolution or
  linear layer before it; batch norm behind a pool runs in the pool's kernel.
- An activation runs in the kernel that produces its input.
- Zero padding in front of a convolution becomes the convolution's own.
- What converts to and from integers runs in the kernels around it.

Each but the last needs the value in between to have no other reader.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from math import prod

from dsonas_hw.kernel.network import Schedule, ScheduledKernel
from dsonas_hw.kernel.spec import Kernel

ACTIVATIONS = frozenset([
    "relu", "relu6", "clip", "leakyrelu", "prelu", "elu", "selu", "celu", "thresholdedrelu",
    "sigmoid", "hardsigmoid", "tanh", "softplus", "softsign", "silu", "hardswish", "mish", "gelu",
    "quickgelu",
])  # fmt: skip


def fuse_kernels(schedule: Schedule) -> Schedule:
    """Fuse whatever an inference runtime fuses; the flops stay the same and the mac never grows."""
    schedule = _without_quantisation(schedule)
    num_readers = Counter(name for step in schedule.kernels for name in step.reads)
    num_readers.update(schedule.outputs)
    steps: list[ScheduledKernel | None] = []
    maker: dict[str, int] = {}
    for step in schedule.kernels:
        index = maker.get(step.reads[0]) if step.reads else None
        before = steps[index] if index is not None else None
        if index is not None and before is not None and num_readers[before.writes] == 1:
            kernel = _append(before.kernel, step)
            if kernel is not None:
                steps[index] = replace(
                    before,
                    kernel=kernel,
                    writes=step.writes,
                    num_repeated_bias=_num_repeated_bias(before, step, kernel),
                )
                maker[step.writes] = index
                continue
            if _is_own_padding(before.kernel, step.kernel):
                kernel = replace(step.kernel, inputs=(*before.kernel.inputs, *step.kernel.inputs[1:]))
                step = replace(
                    step,
                    kernel=kernel,
                    reads=(*before.reads, *step.reads[1:]),
                    reads_as=(*before.read_shapes, *step.read_shapes[1:]),
                )
                steps[index] = None
        maker[step.writes] = len(steps)
        steps.append(step)
    return replace(schedule, kernels=tuple(step for step in steps if step is not None))


def _num_repeated_bias(before: ScheduledKernel, after: ScheduledKernel, fused: Kernel) -> int:
    """Elements of the bias of two fused kernels that are stored with another kernel already."""
    num_repeated = before.num_repeated_bias + after.num_repeated_bias
    num_before = before.kernel.num_bias + after.kernel.num_bias
    if fused.num_bias == num_before or after.kernel.num_bias == 0:
        return min(num_repeated, fused.num_bias)  # they lie side by side
    return fused.num_bias if num_repeated == num_before else 0  # one was folded into the other


def _without_quantisation(schedule: Schedule) -> Schedule:
    renamed: dict[str, str] = {}
    steps = []
    for step in schedule.kernels:
        if step.kernel.op == "unary" and step.kernel.function in ("quantize", "dequantize"):
            renamed[step.writes] = renamed.get(step.reads[0], step.reads[0])
        else:
            steps.append(replace(step, reads=tuple(renamed.get(name, name) for name in step.reads)))
    outputs = frozenset(renamed.get(name, name) for name in schedule.outputs)
    shapes = {renamed.get(name, name): shape for name, shape in schedule.output_shapes.items()}
    return replace(schedule, kernels=tuple(steps), outputs=outputs, output_shapes=shapes)


def _append(before: Kernel, step: ScheduledKernel) -> Kernel | None:
    """`before` with `step` fused behind it, or None if they do not fuse."""
    after = step.kernel
    if len(after.inputs) != 1 or ACTIVATIONS.intersection(before.epilogue):
        return None
    if after.op == "unary" and after.function in ACTIVATIONS:
        takes = before.kind in ("conv", "gemm", "pool", "norm") or before.op == "sum"
        if not takes or prod(after.inputs[0]) != prod(before.output):
            return None
        return replace(
            before, epilogue=(*before.epilogue, after.function), num_bias=before.num_bias + after.num_bias
        )
    if not step.channel_axes or not _same_channels(before, step):
        return None
    if before.kind in ("conv", "gemm") and before.num_weights:
        shifts = after.op in ("batchnorm", "sum", "sub")
        return replace(before, num_bias=_num_channels(before) if shifts else before.num_bias)
    if before.op in ("batchnorm", "groupnorm") and after.op != "batchnorm":
        return before
    if before.kind == "pool" and after.op == "batchnorm":
        return replace(before, epilogue=(*before.epilogue, "bn"), num_bias=before.num_bias + after.num_bias)
    return None


def _channel_axis(kernel: Kernel) -> int:
    return len(kernel.output) - 1 if kernel.kind == "gemm" else 1


def _num_channels(kernel: Kernel) -> int:
    return kernel.output[_channel_axis(kernel)]


def _same_channels(before: Kernel, step: ScheduledKernel) -> bool:
    """Whether `step` scales the channels of `before`, seen through a view perhaps."""
    axis, shape = _channel_axis(before), step.kernel.inputs[0]
    if axis not in step.channel_axes or prod(shape) != prod(before.output):
        return False
    if before.kind == "gemm":
        return len(shape) == len(before.output) and shape[-1] == before.output[-1]
    return shape[:2] == before.output[:2]


def _is_own_padding(pad: Kernel, conv: Kernel) -> bool:
    return (
        pad.op == "copy"
        and pad.function == "pad"
        and conv.op == "conv"
        and pad.output == conv.inputs[0]
        and pad.inputs[0][:2] == pad.output[:2]
        and all(before <= after for before, after in zip(pad.inputs[0], pad.output, strict=True))
    )
