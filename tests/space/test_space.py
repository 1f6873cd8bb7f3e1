"""Sizes, numbering and edges of a search space."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsonas_hw.errors import UserError
from dsonas_hw.space.operations import OPERATIONS
from dsonas_hw.space.space import INPUT_NODE, SearchSpace

CIFAR = SearchSpace()
IMAGENET = SearchSpace(
    stages=(2, 2, 13, 6), channels=28, stem="imagenet", input_shape=(3, 224, 224), num_classes=1000
)


def test_a_complete_block_has_128_edges() -> None:
    # Level 1: 4 operations × 1 source; 2: 4 × 5; 3: 4 × 9; 4: 4 × 13; output: 16.
    assert len(CIFAR.edges) == 4 * (1 + 5 + 9 + 13) + 16 == 128
    assert len(set(CIFAR.edges)) == 128


def test_sizes_count_the_searched_lambdas() -> None:
    log2 = 0.30102999566398120
    assert CIFAR.log10_size() == pytest.approx(128 * log2)
    # The release has no λ on the 4 edges from the block input into level 1.
    assert SearchSpace(first_level_lambda=False).log10_size() == pytest.approx(124 * log2)
    assert SearchSpace(share=False).log10_size() == pytest.approx(24 * 128 * log2)


@st.composite
def spaces(draw: st.DrawFn) -> SearchSpace:
    names = draw(st.lists(st.sampled_from(sorted(OPERATIONS)), min_size=1, max_size=5, unique=True))
    return SearchSpace(
        levels=draw(st.integers(1, 5)),
        operations=tuple(names),
        stages=tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))),
        share=draw(st.booleans()),
    )


@given(spaces())
def test_numbering(space: SearchSpace) -> None:
    seen = []
    for level in range(space.levels):
        for index, name in enumerate(space.operations):
            node = space.node(level, index)
            seen.append(node)
            assert space.level_of(node) == level
            assert space.operation_of(node).name == name
            earlier = [space.node(m, n) for m in range(level) for n in range(len(space.operations))]
            assert list(space.sources(node)) == [INPUT_NODE, *earlier]
    assert seen == list(range(1, space.num_nodes + 1))


@given(spaces())
def test_edges_lead_from_every_earlier_node_and_from_every_node_to_the_output(space: SearchSpace) -> None:
    output = space.num_nodes + 1
    expected = {(s, t) for t in range(1, output) for s in space.sources(t)}
    expected |= {(s, output) for s in range(1, output)}
    assert set(space.edges) == expected
    assert len(space.edges) == len(expected)
    targets = [t for _, t in space.edges]
    assert targets == sorted(targets)


def test_resolutions() -> None:
    assert [CIFAR.resolution(stage) for stage in range(3)] == [(32, 32), (16, 16), (8, 8)]
    assert [IMAGENET.resolution(stage) for stage in range(4)] == [(56, 56), (28, 28), (14, 14), (7, 7)]
    odd = SearchSpace(input_shape=(1, 9, 30), stages=(1, 1, 1))
    assert [odd.resolution(stage) for stage in range(3)] == [(9, 30), (5, 15), (3, 8)]


def test_widths_go_in_steps_up_to_the_widest() -> None:
    assert list(CIFAR.widths()) == list(range(4, 193, 4))
    assert list(SearchSpace(channels=8, width_step=8, max_width=20).widths()) == [8, 16]


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"levels": 0}, "at least one level"),
        ({"operations": ()}, "at least one level, one operation"),
        ({"stages": ()}, "at least one level"),
        ({"stages": (2, 0)}, "must be positive"),
        ({"channels": 0}, "must be positive"),
        ({"num_classes": 1}, "num_classes at least 2"),
        ({"operations": ("sep3", "sep33")}, "unknown operation 'sep33'. Did you mean sep3"),
        ({"operations": ("sep3", "sep3")}, "listed twice"),
        ({"channels": 10, "width_step": 4}, "not a multiple of width_step"),
        ({"stem": "imagenet", "channels": 9, "width_step": 3}, "width_step must be even"),
        ({"stem": "mnist"}, "unknown stem 'mnist'"),
        ({"input_shape": (0, 8, 8)}, "have no pixels"),
        ({"input_shape": (3, 0, 8)}, "have no pixels"),
        ({"max_width": 2}, "max_width=2 is below width_step=4"),
        ({"max_width": -8}, "max_width=-8 is below width_step=4"),
    ],
)
def test_sizes_that_make_no_network_are_refused(sizes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        SearchSpace(**sizes)


def test_small_images_carry_many_stages_down_to_one_pixel() -> None:
    space = SearchSpace(input_shape=(1, 8, 8), stages=(1,) * 6)
    assert space.resolution(5) == (1, 1)
