"""The kernels of an architecture, or of one of its segments, over named buffers."""

from __future__ import annotations

from functools import lru_cache

from dsonas_hw.architecture.architecture import Architecture
from dsonas_hw.architecture.graph import INPUT, Node, Segment, build_graph
from dsonas_hw.architecture.lower import lower_node
from dsonas_hw.kernel.network import Schedule, ScheduledKernel
from dsonas_hw.kernel.spec import Shape


def schedule_of(architecture: Architecture, *, batch_size: int = 1, fuse: bool = True) -> Schedule:
    """Return the kernels of an architecture over named buffers."""
    nodes = build_graph(architecture)
    return _schedule(nodes, architecture.space.input_shape, batch_size, fuse)


@lru_cache(maxsize=65536)
def segment_schedule(segment: Segment, input_shape: Shape, batch_size: int, fuse: bool) -> Schedule:
    """Return the same for one segment alone; an identity has no kernels.

    input_shape: (C, H, W) of what it reads.
    """
    return _schedule(list(segment.nodes("segment", INPUT)), input_shape, batch_size, fuse)


def _schedule(nodes: list[Node], input_shape: Shape, batch_size: int, fuse: bool) -> Schedule:
    steps = []
    for node in nodes:
        kernels = list(lower_node(node, batch_size, fuse=fuse))
        reads = node.inputs
        for position, kernel in enumerate(kernels):
            last = position == len(kernels) - 1
            writes = node.name if last else f"{node.name}/{position}"
            steps.append(ScheduledKernel(kernel=kernel, reads=reads, writes=writes))
            reads = (writes,)
    return Schedule(
        kernels=tuple(steps),
        inputs={INPUT: (batch_size, *input_shape)},
        outputs=frozenset({nodes[-1].name if nodes else INPUT}),
    )
