"""γ for every λ of the supernet, from what is alive and costs: Eq. 9, Eq. 10, marginal, or the release's."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dsonas_hw.architecture.architecture import Architecture, complete_architecture
from dsonas_hw.architecture.costs import CostName, TargetCosts
from dsonas_hw.architecture.fit import budget_ratio
from dsonas_hw.architecture.graph import BlockSegment, block_segments
from dsonas_hw.budget import LIMITABLE, Budget
from dsonas_hw.config import Adaptive
from dsonas_hw.cost.gamma import adaptive_gamma_per_block, adaptive_gamma_per_operation
from dsonas_hw.search.marginal import marginal_gamma
from dsonas_hw.search.release_gamma import release_flops_gamma, release_mac_gamma
from dsonas_hw.space.space import SearchSpace


def gamma_cost(space: SearchSpace, budgets: Sequence[Budget], target: TargetCosts, *, width: int) -> CostName:
    """Return the cost that γ goes by unless one is set: that of the tightest budget.

    width: the deployment width that is searched for. The tightest budget is the one that the complete network
    exceeds most there. Without budgets it is `mac`, as in the paper's Eq. 10.
    """
    complete = complete_architecture(space, width=width)
    if not budgets:
        return "mac"
    tightest = max(budgets, key=lambda budget: budget_ratio(complete, [budget], target))
    # Memory is activations, which `mac` counts edge by edge; a peak is nobody's in particular.
    return tightest.name if LIMITABLE[tightest.name].adds_up else "mac"


def relative_gamma(
    architecture: Architecture, target: TargetCosts, *, adaptive: Adaptive, cost: CostName
) -> Tensor:
    """γ of every λ for a global γ of 1.

    architecture: what is alive now, at the deployment width.
    Returns shape (num_lambda_sets, num_edges), in the order of `SearchSpace.edges`. An operation's γ applies
    to all its incoming edges and to its edge into the output. In the share space, where one λ scales the same
    edge of every block, the costs of the blocks are added. An operation that is free by itself (a pooling has
    no flops) is charged at its edge into the output with the branch of the 1×1 convolution that it needs
    there: with γ at zero it could never die, and no budget would be reached.
    """
    space = architecture.space
    shape = (space.num_lambda_sets, len(space.edges))
    match adaptive:
        case "none":
            return torch.ones(shape)
        case "block":
            return _gamma_per_block(architecture, target, cost)[:, None].expand(shape).clone()
        case "operation":
            return _gamma_per_operation(architecture, target, cost)
        case "marginal":
            return marginal_gamma(architecture, target, cost)
        case "release-flops":
            per_set = torch.tensor([release_flops_gamma(space, b) for b in architecture.searched_blocks])
            return per_set[:, None].expand(shape).clone()
        case "release-mac":
            return torch.tensor(release_mac_gamma(space)).expand(shape).clone()


def _gamma_per_block(architecture: Architecture, target: TargetCosts, cost: CostName) -> Tensor:
    def block_costs(network: Architecture) -> list[float]:
        costs = [[target.block_cost(segment, cost)] for segment in block_segments(network)]
        return [row[0] for row in _per_set(network.space.share, costs)]

    complete = complete_architecture(architecture.space, width=architecture.width)
    return torch.tensor(adaptive_gamma_per_block(block_costs(architecture), block_costs(complete), gamma=1.0))


def _gamma_per_operation(architecture: Architecture, target: TargetCosts, cost: CostName) -> Tensor:
    space = architecture.space
    complete = complete_architecture(space, width=architecture.width)
    gammas = torch.tensor(
        adaptive_gamma_per_operation(
            _node_costs(architecture, target, cost), _node_costs(complete, target, cost), gamma=1.0
        )
    )
    output = space.num_nodes + 1
    columns = [space.num_nodes + s - 1 if t == output else t - 1 for s, t in space.edges]
    return gammas[:, torch.tensor(columns)]


def _node_costs(architecture: Architecture, target: TargetCosts, cost: CostName) -> list[list[float]]:
    """Per λ set, what the edges into each operation are charged with, then what its output edge is."""
    space = architecture.space

    def operation_cost(segment: BlockSegment, node: int) -> float:
        return target.operation_cost(segment, node, cost)

    def output_edge_cost(segment: BlockSegment, node: int) -> float:
        return operation_cost(segment, node) or target.branch_cost(segment, cost)

    costs = [
        [
            cost_of(segment, node) if segment.block.inputs[node - 1] else 0.0
            for cost_of in (operation_cost, output_edge_cost)
            for node in range(1, space.num_nodes + 1)
        ]
        for segment in block_segments(architecture)
    ]
    return _per_set(space.share, costs)


def _per_set(share: bool, per_block: list[list[float]]) -> list[list[float]]:
    """Costs per λ set: one set per block, or (share) one for all, its costs the sum over blocks."""
    return [[sum(column) for column in zip(*per_block, strict=True)]] if share else per_block
