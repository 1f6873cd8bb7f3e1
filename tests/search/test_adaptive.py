"""γ of every λ: whose operation it is, what that costs now, in the share and the full space."""

from __future__ import annotations

import random
from typing import get_args

import pytest
import torch

from dsonas_hw.architecture.architecture import Architecture, Block, close_block, complete_architecture
from dsonas_hw.architecture.costs import CostName, TargetCosts
from dsonas_hw.architecture.graph import BlockSegment, list_segments
from dsonas_hw.architecture.sample import random_architecture
from dsonas_hw.config.models import Adaptive
from dsonas_hw.search.adaptive import relative_gamma
from dsonas_hw.space.space import SearchSpace

TARGET = TargetCosts()
FULL = SearchSpace(levels=2, stages=(1, 2), channels=8, input_shape=(3, 16, 16), share=False)
SHARE = SearchSpace(levels=2, stages=(1, 2), channels=8, input_shape=(3, 16, 16))
ONE_SHAPE = SearchSpace(stages=(1,), channels=96, input_shape=(3, 16, 16), share=False)


def owner(space: SearchSpace, edge: tuple[int, int]) -> int:
    """The operation whose cost an edge's γ has: the one it feeds, or the one it takes to the output."""
    source, target = edge
    return source if target == space.num_nodes + 1 else target


def segments_of(architecture: Architecture) -> list[BlockSegment]:
    return [s for _, s in list_segments(architecture) if isinstance(s, BlockSegment)]


def some(space: SearchSpace, seed: int = 0) -> Architecture:
    return random_architecture(space, random.Random(seed))


@pytest.mark.parametrize("adaptive", get_args(Adaptive))
def test_what_can_be_configured_has_a_gamma_on_every_edge_and_spares_none_for_ever(
    adaptive: Adaptive,
) -> None:
    gamma = relative_gamma(complete_architecture(FULL), TARGET, adaptive=adaptive, cost="mac")
    assert gamma.shape == (3, len(FULL.edges))
    assert bool((gamma > 0).all())
    assert bool(gamma.isfinite().all())


def test_plain_gamma_is_one_everywhere() -> None:
    gamma = relative_gamma(some(FULL), TARGET, adaptive="none", cost="mac")
    assert torch.equal(gamma, torch.ones(3, len(FULL.edges)))


def test_the_papers_ratios_on_every_edge() -> None:
    gamma = relative_gamma(complete_architecture(ONE_SHAPE), TARGET, adaptive="operation", cost="mac")
    expected = {"sep3": 0.986, "sep5": 1.0, "avg3": 0.447, "max3": 0.447}
    for edge, value in zip(ONE_SHAPE.edges, gamma[0].tolist(), strict=True):
        name = ONE_SHAPE.operation_of(owner(ONE_SHAPE, edge)).name
        assert value == pytest.approx(expected[name], abs=5e-4), edge


@pytest.mark.parametrize("cost", ["flops", "mac"])
@pytest.mark.parametrize("seed", range(3))
def test_eq_10_in_the_full_space(seed: int, cost: CostName) -> None:
    architecture = some(FULL, seed)
    segments = segments_of(architecture)
    costs = {
        (row, node): TARGET.operation_cost(segment, node, cost)
        for row, segment in enumerate(segments)
        for node in segment.block.nodes
    }
    largest = max(  # of the complete network: the maximum of Eq. 10 has no t
        TARGET.operation_cost(segment, node, cost)
        for segment in segments_of(complete_architecture(FULL))
        for node in segment.block.nodes
    )
    gamma = relative_gamma(architecture, TARGET, adaptive="operation", cost=cost)
    for row, segment in enumerate(segments):
        channels, height, width = segment.shape
        for edge, value in zip(FULL.edges, gamma[row].tolist(), strict=True):
            expected = costs.get((row, owner(FULL, edge)), 0.0)  # 0 where the operation is dead
            is_free_pool = expected == 0.0 and owner(FULL, edge) in segment.block.nodes
            if is_free_pool and edge[1] == FULL.num_nodes + 1:
                assert cost == "flops"
                expected = channels * channels * height * width  # its branch of the 1×1 convolution
            assert value == pytest.approx(expected / largest)


@pytest.mark.parametrize("seed", range(3))
def test_eq_10_in_the_share_space_adds_the_blocks(seed: int) -> None:
    architecture = some(SHARE, seed)
    segments = segments_of(architecture)
    costs = {
        node: sum(TARGET.operation_cost(segment, node, "mac") for segment in segments)
        for node in segments[0].block.nodes
    }
    complete = segments_of(complete_architecture(SHARE))
    largest = max(
        sum(TARGET.operation_cost(segment, node, "mac") for segment in complete)
        for node in complete[0].block.nodes
    )
    gamma = relative_gamma(architecture, TARGET, adaptive="operation", cost="mac")
    assert gamma.shape == (1, len(SHARE.edges))
    for edge, value in zip(SHARE.edges, gamma[0].tolist(), strict=True):
        assert value == pytest.approx(costs.get(owner(SHARE, edge), 0.0) / largest)


def test_pools_that_are_left_alone_keep_their_small_gamma() -> None:
    # At 16×16×96 a pool's mac is 0.447 of sep-conv 5×5's (DESIGN: the release's constant), dead or alive.
    pools = {node for node in range(1, 17) if ONE_SHAPE.operation_of(node).name in ("avg3", "max3")}
    block = without(ONE_SHAPE, set(range(1, 17)) - pools)
    only_pools = Architecture(space=ONE_SHAPE, blocks=(block,), width=96)
    gamma = relative_gamma(only_pools, TARGET, adaptive="operation", cost="mac")[0]
    assert gamma[ONE_SHAPE.edges.index((0, 3))].item() == pytest.approx(0.447, abs=5e-4)
    assert gamma.max().item() == pytest.approx(0.447, abs=5e-3)


def without(space: SearchSpace, nodes: set[int]) -> Block:
    return close_block(space, [(s, t) for s, t in space.edges if not {s, t} & nodes])


def test_eq_9_falls_as_the_edges_of_a_block_die() -> None:
    complete = complete_architecture(FULL)
    gamma = relative_gamma(complete, TARGET, adaptive="block", cost="flops")
    assert torch.equal(gamma, torch.ones_like(gamma))
    blocks = (without(FULL, {1, 2}), complete.blocks[1], close_block(FULL, ()))
    thinner = Architecture(space=FULL, blocks=blocks, width=complete.width)
    gamma = relative_gamma(thinner, TARGET, adaptive="block", cost="flops")
    now, before = segments_of(thinner), segments_of(complete)
    expected = [
        TARGET.block_cost(a, "flops") / TARGET.block_cost(b, "flops")
        for a, b in zip(now, before, strict=True)
    ]
    assert 0 < expected[0] < expected[1] == 1.0
    assert expected[2] == 0.0
    for row in range(3):
        assert gamma[row].tolist() == pytest.approx([expected[row]] * len(FULL.edges))


def test_eq_9_in_the_share_space_adds_the_blocks() -> None:
    complete = complete_architecture(SHARE)
    thinner = Architecture(space=SHARE, blocks=(without(SHARE, {2}),) * 3, width=complete.width)
    now, before = (sum(TARGET.block_cost(s, "mac") for s in segments_of(a)) for a in (thinner, complete))
    gamma = relative_gamma(thinner, TARGET, adaptive="block", cost="mac")
    assert gamma.shape == (1, len(SHARE.edges))
    assert gamma[0].tolist() == pytest.approx([now / before] * len(SHARE.edges))


def test_gamma_is_that_of_the_deployment_width() -> None:
    # At 1 channel a depthwise 5×5 is dear beside its pointwise; at 64 hardly.
    def sep3_over_sep5(width: int) -> float:
        gamma = relative_gamma(
            complete_architecture(FULL, width=width), TARGET, adaptive="operation", cost="flops"
        )
        return float(gamma[0, FULL.edges.index((0, 1))] / gamma[0, FULL.edges.index((0, 2))])

    assert sep3_over_sep5(4) == pytest.approx((9 + 4) / (25 + 4))
    assert sep3_over_sep5(64) == pytest.approx((9 + 64) / (25 + 64))
