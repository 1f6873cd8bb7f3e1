"""The kernels that a runtime runs for one segment of a network, and the layout that it hands on.

Between two segments lies one buffer, read by the next segment only: whether it is in blocks
(`runtime.ort.layout`) is all that a segment has to know about those before it. So a network's kernels are
those of its segments in turn, each told the layout that the one before left.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from dsonas_hw.architecture.graph import BlockSegment, Segment
from dsonas_hw.architecture.schedule import segment_schedule
from dsonas_hw.kernel.spec import Kernel, Shape
from dsonas_hw.runtime.ort.layout import deployed_kernels

Deploy = Callable[..., tuple[Kernel, ...]]
"""`MeasuredLatency.deploy`: (schedule, *, blocked_inputs, is_part) → kernels."""


class DeployedSegment(NamedTuple):
    """What runs for a segment that reads its input in a certain layout."""

    kernels: tuple[Kernel, ...]
    leaves_blocked: bool
    """Whether its output is in blocks."""


def deploy_segment(
    segment: Segment, shape: Shape, deploy: Deploy, *, batch_size: int, fuse: bool, reads_blocked: bool
) -> DeployedSegment:
    """Follow the runtime through one segment.

    shape: (C, H, W) of what it reads.
    """
    schedule = segment_schedule(segment, shape, batch_size, fuse)
    kernels = deploy(schedule, blocked_inputs=reads_blocked, is_part=True)
    # A network's own output is reordered to plain at its end, if it is not plain already.
    as_output = deploy(schedule, blocked_inputs=reads_blocked, is_part=False)
    return DeployedSegment(kernels, leaves_blocked=len(as_output) > len(kernels))


@lru_cache(maxsize=65536)
def deploy_for_blocks(
    segment: Segment, shape: Shape, *, block_size: int, batch_size: int, reads_blocked: bool
) -> DeployedSegment:
    """The same for ONNX Runtime on a processor with blocks of this size (0: without); cached."""

    def deploy(schedule: object, **layout: bool) -> tuple[Kernel, ...]:
        return deployed_kernels(schedule, block_size=block_size, **layout)  # type: ignore[arg-type]

    return deploy_segment(
        segment, shape, deploy, batch_size=batch_size, fuse=True, reads_blocked=reads_blocked
    )


def output_shape(segment: Segment) -> Shape:
    """(C, H, W) that a segment hands on; of the head, what it reads."""
    if isinstance(segment, BlockSegment):
        return segment.shape
    nodes = list(segment.nodes("", ""))
    return nodes[-1].output_shape if len(nodes[-1].output_shape) == 3 else nodes[0].output_shape
