"""The kernels of a whole network in the order they run, and the activation memory that order needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod

from dsonas_hw.kernel.spec import Kernel, Shape


@dataclass(frozen=True, kw_only=True, slots=True)
class ScheduledKernel:
    """A kernel and the buffers it works on.

    A buffer is named by whoever wrote it. Views (reshape, flatten, …) write nothing: whoever reads a view
    names the buffer it looks into.
    """

    kernel: Kernel
    reads: tuple[str, ...]
    """Buffers of `kernel.inputs`, in that order; network inputs are buffers too."""
    writes: str
    channel_axes: frozenset[int] = frozenset()
    """Axes of the input along which this kernel is a constant scale and shift, so that a convolution
    (axis 1) or a linear layer (last axis) before it can absorb it. Empty: it is no such kernel."""
    reads_as: tuple[Shape, ...] = ()
    """Shapes under which the buffers of `reads` are seen, where those are not the first of `kernel.inputs`:
    a slice reads a region of its tensor, a pool takes a sequence for an image."""
    writes_as: Shape = ()
    """Shape of the tensor that is written, where it is not `kernel.output`."""
    written_as: str = ""
    """The operation of the file, where one kernel stands for several that a runtime tells apart."""
    num_repeated_weights: int = 0
    """Of the kernel's weights, elements that an earlier kernel has too: they are stored once."""
    num_repeated_bias: int = 0

    @property
    def read_shapes(self) -> tuple[Shape, ...]:
        """Shapes of the tensors that are read, one for each of `reads`."""
        return self.reads_as or self.kernel.inputs[: len(self.reads)]

    @property
    def written_shape(self) -> Shape:
        """Shape of the tensor that is written."""
        return self.writes_as or self.kernel.output


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """A network as a sequence of kernels over named buffers."""

    kernels: tuple[ScheduledKernel, ...]
    inputs: Mapping[str, Shape]
    """Buffers that exist before the first kernel runs."""
    outputs: frozenset[str]
    """Buffers that must still exist after the last kernel."""
    output_shapes: Mapping[str, Shape] = field(default_factory=dict)
    """Shapes in which the caller wants the outputs, where they are views of what was written."""


def peak_activation_elements(schedule: Schedule) -> int:
    """Return the elements of all activations that are alive together at the worst moment of one inference.

    While a kernel runs, its inputs, its output and every buffer that a later kernel (or the caller) still
    reads are alive. Nothing is computed in place, and weights and workspaces are not counted.
    """
    num_kernels = len(schedule.kernels)
    last_read = {name: num_kernels for name in schedule.outputs}
    for index, step in enumerate(schedule.kernels):
        for name in step.reads:
            last_read[name] = max(last_read.get(name, 0), index)

    sizes = {name: prod(shape) for name, shape in schedule.inputs.items()}
    alive = sum(sizes.values())
    peak = alive
    for index, step in enumerate(schedule.kernels):
        if step.writes not in sizes:
            sizes[step.writes] = prod(step.kernel.output)
            alive += sizes[step.writes]
        peak = max(peak, alive)
        for name in {*step.reads, step.writes}:
            if name in sizes and last_read.get(name, index) <= index:
                alive -= sizes.pop(name)
    return peak
