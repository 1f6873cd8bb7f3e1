"""Random architectures: the paper's baseline, and what a profile is checked on."""

from __future__ import annotations

import random

from dsonas_hw.architecture.architecture import Architecture, Block, build_architecture, close_block
from dsonas_hw.space.space import SearchSpace


def random_block(space: SearchSpace, rng: random.Random) -> Block:
    """Keep every edge with one probability, itself uniform in (0, 1); identities are drawn again."""
    while True:
        keep = rng.random()
        block = close_block(space, [edge for edge in space.edges if rng.random() < keep])
        if not block.is_identity:
            return block


def random_architecture(space: SearchSpace, rng: random.Random, *, width: int | None = None) -> Architecture:
    """Return one random block for all (share) or one per block (full), at `width` first-stage channels."""
    drawn = [random_block(space, rng) for _ in range(space.num_lambda_sets)]
    return build_architecture(space, drawn, width=width or space.channels)
