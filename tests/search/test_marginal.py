"""γ by marginal cost: what the network costs less without an edge, whoever hangs on it."""

from __future__ import annotations

import random

import pytest
import torch

from dsonas_hw.architecture.architecture import Architecture, close_block, complete_architecture
from dsonas_hw.architecture.costs import CostName, TargetCosts
from dsonas_hw.architecture.lower import lower
from dsonas_hw.architecture.sample import random_architecture
from dsonas_hw.search.adaptive import relative_gamma
from dsonas_hw.search.marginal import edge_savings
from dsonas_hw.space.space import SearchSpace

TARGET = TargetCosts()
FULL = SearchSpace(levels=2, stages=(1, 2), channels=8, input_shape=(3, 16, 16), share=False)
SHARE = SearchSpace(levels=2, stages=(1, 2), channels=8, input_shape=(3, 16, 16))


def edges_of(architecture: Architecture, number: int) -> set[tuple[int, int]]:
    space, block = architecture.space, architecture.blocks[number]
    inner = {(s, t) for t in block.nodes for s in block.inputs[t - 1]}
    return inner | {(s, space.num_nodes + 1) for s in block.output}


def cost_with(architecture: Architecture, number: int, edges: set[tuple[int, int]], cost: CostName) -> int:
    space, blocks = architecture.space, list(architecture.blocks)
    for index in range(space.num_blocks) if space.share else [number]:
        blocks[index] = close_block(space, edges)
    network = Architecture(space=space, blocks=tuple(blocks), width=architecture.width)
    return sum(getattr(kernel, cost) for kernel in lower(network))


@pytest.mark.parametrize("space", [FULL, SHARE], ids=["full", "share"])
@pytest.mark.parametrize("cost", ["flops", "mac"])
def test_a_saving_is_the_difference_of_two_networks(space: SearchSpace, cost: CostName) -> None:
    architecture = random_architecture(space, random.Random(1))
    savings = edge_savings(architecture, TARGET, cost)
    assert len(savings) == space.num_lambda_sets
    for number, row in enumerate(savings):
        alive = edges_of(architecture, number)
        for edge, saving in zip(space.edges, row, strict=True):
            with_it, without = (
                cost_with(architecture, number, edges, cost) for edges in (alive | {edge}, alive - {edge})
            )
            assert saving == with_it - without, edge


def test_the_last_edge_of_a_block_bears_the_whole_block() -> None:
    output = FULL.num_nodes + 1
    chain = close_block(FULL, [(0, 1), (1, output)])
    architecture = Architecture(space=FULL, blocks=(chain, *complete_architecture(FULL).blocks[1:]), width=8)
    empty = cost_with(architecture, 0, set(), "mac")
    row = dict(zip(FULL.edges, edge_savings(architecture, TARGET, "mac")[0], strict=True))
    whole = cost_with(architecture, 0, {(0, 1), (1, output)}, "mac") - empty
    assert row[0, 1] == row[1, output] == whole
    gamma = relative_gamma(architecture, TARGET, adaptive="marginal", cost="mac")
    assert gamma[0, FULL.edges.index((0, 1))] == 1.0  # nothing else saves as much


@pytest.mark.parametrize("space", [FULL, SHARE], ids=["full", "share"])
def test_gamma_lies_between_a_half_and_one(space: SearchSpace) -> None:
    architecture = random_architecture(space, random.Random(2))
    gamma = relative_gamma(architecture, TARGET, adaptive="marginal", cost="flops")
    assert gamma.shape == (space.num_lambda_sets, len(space.edges))
    assert gamma.max() == 1.0
    assert bool((gamma >= 0.5).all())
    savings = torch.tensor(edge_savings(architecture, TARGET, "flops"))
    assert bool((gamma[savings <= 0] == 0.5).all())
