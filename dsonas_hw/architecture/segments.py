"""The kernels that a runtime runs for one segment of a network, and the layout that it hands on.

Between two segments lies one buffer, read by the next segment only: whether it is in blocks
(`kernel.deployment`) is all that a segment has to know about those before it. So a network's kernels are
those of its segments in turn, each told the layout that the one before left.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from dsonas_hw.architecture.graph import BlockSegment, Segment
from dsonas_hw.architecture.schedule import segment_schedule
from dsonas_hw.kernel.deployment import Deployment
from dsonas_hw.kernel.spec import Kernel, Shape


class DeployedSegment(NamedTuple):
    """What runs for a segment that reads its input in a certain layout."""

    kernels: tuple[Kernel, ...]
    leaves_blocked: bool
    """Whether its output is in blocks."""


@lru_cache(maxsize=65536)
def deploy_segment(
    segment: Segment, shape: Shape, deployment: Deployment, *, batch_size: int, reads_blocked: bool
) -> DeployedSegment:
    """Follow the runtime through one segment; cached.

    shape: (C, H, W) of what it reads.
    """
    schedule = segment_schedule(segment, shape, batch_size, deployment.fuses)
    kernels = deployment.kernels(schedule, blocked_inputs=reads_blocked, is_part=True)
    # A network's own output is reordered to plain at its end, if it is not plain already.
    as_output = deployment.kernels(schedule, blocked_inputs=reads_blocked, is_part=False)
    return DeployedSegment(kernels, leaves_blocked=len(as_output) > len(kernels))


def output_shape(segment: Segment) -> Shape:
    """(C, H, W) that a segment hands on; of the head, what it reads."""
    if isinstance(segment, BlockSegment):
        return segment.shape
    nodes = list(segment.nodes("", ""))
    return nodes[-1].output_shape if len(nodes[-1].output_shape) == 3 else nodes[0].output_shape
