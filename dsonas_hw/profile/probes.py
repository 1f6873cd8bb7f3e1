"""Networks to measure a device with: random architectures of a space, ready to run and to be predicted."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import cycle
from typing import TYPE_CHECKING

from dsonas_hw.architecture.architecture import Architecture
from dsonas_hw.architecture.graph import INPUT, Node, Segment, build_graph
from dsonas_hw.architecture.lower import lower_node
from dsonas_hw.architecture.onnx import build_onnx_graph, random_weights
from dsonas_hw.architecture.sample import random_architecture
from dsonas_hw.kernel.network import Schedule, ScheduledKernel
from dsonas_hw.kernel.spec import Shape
from dsonas_hw.space.space import SearchSpace

if TYPE_CHECKING:
    from dsonas_hw.measure.probe import Probe

MAX_PROBE_BLOCKS = 2
"""Blocks of a stage in the shallow ones of the networks that a profile is fitted on."""
SHALLOW_EVERY = 3


def schedule_of(architecture: Architecture, *, batch_size: int = 1, fuse: bool = True) -> Schedule:
    """The kernels of an architecture over named buffers."""
    nodes = build_graph(architecture)
    return _schedule(nodes, architecture.space.input_shape, batch_size, fuse)


@lru_cache(maxsize=65536)
def segment_schedule(segment: Segment, input_shape: Shape, batch_size: int, fuse: bool) -> Schedule:
    """The same for one segment alone; input_shape: (C, H, W) of what it reads. An identity has no kernels."""
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


def model_bytes(architecture: Architecture, *, batch_size: int = 1, seed: int = 0) -> bytes:
    """The architecture as ONNX with random weights.

    No two tensors are equal, as after training: a runtime's optimiser merges what is.
    """
    nodes = build_graph(architecture)
    weights = random_weights(nodes, seed=seed)
    rng = random.Random(seed)
    for name, value in weights.items():
        if value.ndim == 1:
            weights[name] = value + value.dtype.type(0.02 * rng.random())
    model = build_onnx_graph(nodes, architecture.space.input_shape, weights, batch_size=batch_size)
    return bytes(model.SerializeToString())


def deployment_widths(space: SearchSpace) -> tuple[int, ...]:
    """Widths that networks of a space are likely to be deployed at: up to half as wide again as in search."""
    widest = min(space.widths()[-1], max(3 * space.channels // 2, 4 * space.width_step))
    return tuple(width for width in space.widths() if width <= widest)


def probe_widths(space: SearchSpace) -> tuple[int, ...]:
    """The grid of first-stage channels that a profile covers; what lies between is interpolated.

    Every deployment width up to 16, then in steps that grow; beyond, half as much again each time.
    """
    likely = deployment_widths(space)
    chosen: list[int] = []
    for width in space.widths():
        step = 1.0 if width <= 16 else 1.15 if width <= likely[-1] else 1.5
        last = width in (likely[-1], space.widths()[-1])
        if not chosen or last or width >= chosen[-1] * step:
            chosen.append(width)
    return tuple(chosen)


def probe_networks(
    space: SearchSpace,
    *,
    num_networks: int,
    widths: Sequence[int] | None = None,
    resolutions: Sequence[int] | None = None,
    batch_size: int = 1,
    seed: int = 0,
    held_out: bool = False,
    fuse: bool = True,
) -> Iterator[Probe]:
    """Random networks of a space.

    For fitting, one in three has one or two blocks a stage and any width of the grid: kernels of every size
    at a fraction of the time. The others, like all held-out ones, are what the space deploys: its own depth,
    and a likely width. Held-out ones come from another seed and have interpolated widths too.

    resolutions: heights (= widths) of input images; the space's own by default.
    fuse: False gives the kernels that an eager framework runs.
    """
    from dsonas_hw.device.fingerprint import short_hash
    from dsonas_hw.measure.probe import Probe

    kind = "check" if held_out else "fit"
    grid = tuple(widths) if widths else probe_widths(space)
    likely = deployment_widths(space)
    deployed = tuple(width for width in grid if width <= likely[-1]) or grid
    # Every width in turn, so that a short profile covers the grid.
    in_turn, deployed_in_turn = cycle(grid), cycle(deployed)
    for index in range(num_networks):
        rng = random.Random(f"{kind}-{seed}-{index}")
        drawn = replace(space, share=rng.random() < 0.5)
        if held_out:
            width = rng.choice(grid if widths else likely)
        elif index % SHALLOW_EVERY == 0:
            stages = tuple(min(count, rng.randint(1, MAX_PROBE_BLOCKS)) for count in space.stages)
            drawn, width = replace(drawn, stages=stages), next(in_turn)
        else:
            width = next(deployed_in_turn)
        if resolutions:
            side = rng.choice(list(resolutions))
            drawn = replace(drawn, input_shape=(space.input_shape[0], side, side))
        architecture = random_architecture(drawn, rng, width=width)
        content = short_hash(architecture.to_json())[:8]
        yield Probe(
            name=f"{kind}-{space_id(space)}-{seed}-{index}-{content}",
            build=lambda a=architecture, i=index: model_bytes(a, batch_size=batch_size, seed=i),  # type: ignore[misc]
            schedule=schedule_of(architecture, batch_size=batch_size, fuse=fuse),
        )


def space_id(space: SearchSpace) -> str:
    """Names the kernels of a space: equal for share and full, and for any number of classes."""
    from dsonas_hw.device.fingerprint import short_hash

    return short_hash(
        space.levels,
        space.operations,
        space.stages,
        space.channels,
        space.width_step,
        space.stem,
        space.input_shape,
    )[:8]
