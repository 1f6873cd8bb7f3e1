"""Networks to measure a device with: random architectures of a space, ready to run and to be predicted."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import cycle
from typing import TYPE_CHECKING

from dsonas_hw.architecture.onnx import model_bytes
from dsonas_hw.architecture.sample import random_architecture
from dsonas_hw.architecture.schedule import schedule_of
from dsonas_hw.space.space import SearchSpace

if TYPE_CHECKING:
    from dsonas_hw.measure.probe import Probe

MAX_PROBE_BLOCKS = 2
"""Blocks of a stage in the shallow ones of the networks that a profile is fitted on."""
SHALLOW_EVERY = 3


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
            build=partial(model_bytes, architecture, batch_size=batch_size, seed=index),
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
