"""γ by marginal cost: what the deployed network's cost changes by when one edge goes, or comes back.

    saving(e) = cost(network with e) − cost(network without e)
    γ(e)      = (½ + ½ · max(0, saving(e)) / max over edges saving) · γ

A runtime fuses and reorders, so an edge costs what the whole network is faster by without it: an addend of
a sum, a branch of the concat, or all that hangs on its last edge. The half that every edge bears lets those
die that save nothing by themselves. So does the authors' release, which times the network without each edge
once an epoch; here the table predicts it, at every change of the set.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from dsonas_hw.architecture.architecture import Architecture, Block, close_block
from dsonas_hw.architecture.costs import CostName, TargetCosts
from dsonas_hw.budget import QUANTITIES

SHARE_OF_ALL = 0.5
"""γ of an edge that saves nothing, for a global γ of 1."""


def marginal_gamma(architecture: Architecture, target: TargetCosts, cost: CostName) -> Tensor:
    """γ of every λ for a global γ of 1, shape (num_lambda_sets, num_edges).

    architecture: what is alive now, at the deployment width.

    Raises:
        ProfileError: latency or energy is asked for, and the table lacks a kernel.
    """
    saved = torch.tensor(edge_savings(architecture, target, cost)).clamp(min=0.0)
    largest = float(saved.max())
    relative = saved / largest if largest > 0 else saved
    return SHARE_OF_ALL + (1.0 - SHARE_OF_ALL) * relative


def edge_savings(architecture: Architecture, target: TargetCosts, cost: CostName) -> list[list[float]]:
    """What the network's cost is lower by without each edge, per λ set, in the order of `SearchSpace.edges`.

    Of an edge that is not there, what the cost would be lower by if it were there and then went. In the share
    space an edge goes from every block at once.
    """
    space = architecture.space

    def cost_of(blocks: tuple[Block, ...]) -> float:
        value = target.cost(replace(architecture, blocks=blocks), QUANTITIES[cost])
        if value is None:
            raise ValueError(f"nothing here predicts {cost}")
        return value

    now = cost_of(architecture.blocks)
    rows: list[list[float]] = []
    for number in range(space.num_lambda_sets):
        block = architecture.blocks[number]
        alive = block.edges
        row: list[float] = []
        for edge in space.edges:
            changed = close_block(space, alive ^ {edge})
            if changed == block:
                row.append(0.0)
                continue
            if space.share:
                blocks = (changed,) * space.num_blocks
            else:
                blocks = (*architecture.blocks[:number], changed, *architecture.blocks[number + 1 :])
            row.append((now - cost_of(blocks)) * (1 if edge in alive else -1))
        rows.append(row)
    return rows
