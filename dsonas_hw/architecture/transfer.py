"""Carrying a block into the network of another preset, as the paper does from CIFAR to ImageNet (4.3).

The block keeps its levels, operations and edges; stem, stages, widths and classes are the new network's.
"""

from __future__ import annotations

from dsonas_hw.architecture.architecture import Architecture, Block
from dsonas_hw.config import SpaceConfig
from dsonas_hw.errors import UserError
from dsonas_hw.space.space import SearchSpace


def choose_block(architecture: Architecture, number: int | None) -> Block:
    """Return block `number` (from 1, counted from the stem); None: the only one there is.

    Raises:
        UserError: no such block; one must be chosen; or nothing is left of it.
    """
    blocks = architecture.blocks
    if number is None and len(set(blocks)) > 1:
        raise UserError(
            f"the {len(blocks)} blocks of this architecture differ; "
            f"choose one with --block 1 to {len(blocks)}"
        )
    if number is not None and not 1 <= number <= len(blocks):
        raise UserError(f"there is no block {number}; choose one with --block 1 to {len(blocks)}")
    block = blocks[(number or 1) - 1]
    if block.is_identity:
        raise UserError(f"block {number or 1} is the identity: there is nothing to carry over")
    return block


def receiving_space(config: SpaceConfig, source: SearchSpace) -> SpaceConfig:
    """Return the space of the new network with blocks like the source's, one for all."""
    inner = {"levels": source.levels, "operations": source.operations, "share": True}
    return config.model_copy(update=inner)


def transfer_block(block: Block, space: SearchSpace, *, width: int) -> Architecture:
    """Return the network of `space` whose every block is `block`.

    space: with the levels and operations that the block was searched with (`receiving_space`).
    """
    return Architecture(space=space, blocks=(block,) * space.num_blocks, width=width)
