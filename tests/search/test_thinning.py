"""Thinned points: some of the operations of a point of the path, each network once."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from paths import SPACE, point

from dsonas_hw.architecture.architecture import Architecture, Block, close_block
from dsonas_hw.architecture.sample import random_architecture, random_block
from dsonas_hw.search.thinning import MAX_OF_POINT, remove_operation, thin
from dsonas_hw.space.space import SearchSpace

SHARED = SearchSpace(levels=3, stages=(1, 1), channels=8, input_shape=(3, 8, 8), share=True)
OUT = SHARED.num_nodes + 1
SEP3, SEP5, AVG3, MAX3 = range(4)


def block_of(*edges: tuple[int, int]) -> Block:
    return close_block(SHARED, edges)


def of_block(block: Block, width: int = 8) -> Architecture:
    return Architecture(space=SHARED, blocks=(block,) * SHARED.num_blocks, width=width)


FIRST, SECOND, THIRD = SHARED.node(0, SEP3), SHARED.node(1, AVG3), SHARED.node(2, MAX3)
CHAIN = block_of((0, FIRST), (FIRST, SECOND), (SECOND, THIRD), (THIRD, OUT))


@pytest.mark.parametrize(
    ("node", "left"),
    [
        (FIRST, block_of((0, SECOND), (SECOND, THIRD), (THIRD, OUT))),
        (SECOND, block_of((0, FIRST), (FIRST, THIRD), (THIRD, OUT))),
        (THIRD, block_of((0, FIRST), (FIRST, SECOND), (SECOND, OUT))),
    ],
)
def test_what_read_an_operation_reads_what_it_read(node: int, left: Block) -> None:
    assert remove_operation(SHARED, CHAIN, node) == left


def test_a_block_without_its_only_operation_is_the_identity() -> None:
    assert remove_operation(SHARED, block_of((0, FIRST), (FIRST, OUT)), FIRST).is_identity


def test_the_end_of_a_path_goes_on_as_all_parts_of_a_chain() -> None:
    thinner = thin([point(of_block(CHAIN), 7, 0.5)])
    named = [sorted(SHARED.operation_of(n).name for n in p.architecture.blocks[0].nodes) for p in thinner]
    assert sorted(named) == [
        ["avg3"], ["avg3", "max3"], ["avg3", "sep3"], ["max3"], ["max3", "sep3"], ["sep3"],
    ]  # fmt: skip
    assert {(p.step, p.accuracy) for p in thinner} == {(7, None)}


def test_operations_on_other_levels_are_the_same_network() -> None:
    elsewhere = SHARED.node(1, SEP3)
    points = [
        point(of_block(block_of((0, FIRST), (FIRST, OUT))), 1, None),
        point(of_block(block_of((0, elsewhere), (elsewhere, THIRD), (THIRD, OUT))), 2, None),
    ]
    (found,) = thin(points)  # the max3 alone; the sep3 alone is on the path
    assert found.architecture.blocks[0].nodes == (THIRD,)


@pytest.mark.parametrize("space", [SPACE, SHARED], ids=["full", "share"])
def test_thinned_networks_have_some_of_a_points_operations(space: SearchSpace) -> None:
    rng = random.Random(0)
    points = [point(random_architecture(space, rng), step, 0.5) for step in range(5)]
    found = thin(points)
    assert found
    assert len({p.architecture for p in found} | {p.architecture for p in points}) == len(found) + 5
    for thinned in found:
        assert not thinned.architecture.is_collapsed
        parent = points[thinned.step].architecture
        pairs = list(zip(thinned.architecture.blocks, parent.blocks, strict=True))
        assert all(set(mine.nodes) <= set(of_parent.nodes) for mine, of_parent in pairs)
        assert any(mine.nodes != of_parent.nodes for mine, of_parent in pairs)


def test_no_point_has_too_many() -> None:
    space = replace(SHARED, levels=6, operations=("sep3", "sep5", "avg3", "max3"))
    block = random_block(space, random.Random(1))
    whole = Architecture(space=space, blocks=(block,) * space.num_blocks, width=8)
    assert 0 < len(thin([point(whole, 0, None)])) <= MAX_OF_POINT
