"""Drop-path: which edges, how deep, how often, and what it does to a sum."""

from __future__ import annotations

import pytest
import torch

from dsonas_hw.architecture.architecture import Architecture, close_block, complete_architecture
from dsonas_hw.space.space import SearchSpace
from dsonas_hw.train.drop_path import DropEdges, draw_drop_masks, find_drop_edges
from dsonas_hw.train.network import DerivedNetwork

SPACE = SearchSpace(levels=2, stages=(1, 1), channels=4, input_shape=(3, 8, 8), share=False)
EDGES = DropEdges(of_node={}, depths=(0.5, 1.0))


def test_edges_into_operations_of_two_inputs_and_branches_of_the_output() -> None:
    # Node 5 sums the input and node 1, node 6 has one input; two branches, and in the second block one.
    two = close_block(SPACE, [(0, 1), (0, 5), (1, 5), (0, 6), (5, 9), (6, 9)])
    one = close_block(SPACE, [(0, 2), (2, 9)])
    edges = find_drop_edges(Architecture(space=SPACE, blocks=(two, one), width=4))
    assert dict(edges.of_node) == {
        "stage1.block1.2_sep3.sum": range(0, 2),
        "stage1.block1.concat": range(2, 4),
        "stage2.block1.merge": range(4, 5),
    }
    # 2 levels × (2 blocks + 2 stages) + 2 = 10 levels; before the second block are a block and a reduction.
    assert edges.depths == pytest.approx([1 / 12] * 4 + [(2 * 2 + 1) / 12])


def test_identities_have_none() -> None:
    identity = close_block(SPACE, [])
    edges = find_drop_edges(Architecture(space=SPACE, blocks=(identity, identity), width=4))
    assert edges == DropEdges(of_node={}, depths=())


def test_depths_of_the_papers_network_are_the_releases() -> None:
    # Depth 110 in the release: (l + 1) / 112, where l = 4 · (blocks and reductions before), 9 a stage.
    edges = find_drop_edges(complete_architecture(SearchSpace()))
    per_block = 4 * (5 + 9 + 13) + 16
    assert len(edges.depths) == 24 * per_block
    assert edges.depths[0] == pytest.approx(1 / 112)
    assert edges.depths[8 * per_block] == pytest.approx((36 + 1) / 112)
    assert edges.depths[-1] == pytest.approx((72 + 7 * 4 + 1) / 112)
    assert list(edges.depths) == sorted(edges.depths)


def test_how_often_grows_with_depth_and_with_the_steps() -> None:
    masks = draw_drop_masks(EDGES, rate=0.5, progress=1.0, num_images=4000, name=(0, 0, 0))
    assert masks.shape == (2, 4000, 1, 1, 1)
    for mask, probability in zip(masks, (0.25, 0.5), strict=True):
        torch.testing.assert_close(mask.unique(), torch.tensor([0.0, 1 / (1 - probability)]))
        assert (mask == 0).float().mean().item() == pytest.approx(probability, abs=0.03)
        assert mask.mean().item() == pytest.approx(1.0, abs=0.05)  # the expectation stays
    early = draw_drop_masks(EDGES, rate=0.5, progress=0.1, num_images=4000, name=(0, 0, 0))
    assert (early[1] == 0).float().mean().item() == pytest.approx(0.05, abs=0.015)


def test_what_is_drawn_depends_on_the_position_alone() -> None:
    def draw(*name: int) -> torch.Tensor:
        return draw_drop_masks(EDGES, rate=0.5, progress=1.0, num_images=64, name=name)  # type: ignore[arg-type]

    first = draw(3, 1, 7)
    before = torch.get_rng_state()
    assert torch.equal(draw(3, 1, 7), first)
    assert torch.equal(torch.get_rng_state(), before)  # torch's own generator is left alone
    for other in ((4, 1, 7), (3, 2, 7), (3, 1, 8)):
        assert not torch.equal(draw(*other), first)
    assert not torch.equal(first[0] > 0, first[1] > 0)  # every edge for itself


def test_a_dropped_edge_is_out_of_its_sum() -> None:
    space = SearchSpace(levels=2, stages=(1,), channels=4, input_shape=(3, 8, 8))
    block = close_block(space, [(0, 1), (0, 5), (1, 5), (5, 9)])
    network = DerivedNetwork(Architecture(space=space, blocks=(block,), width=4)).eval()
    seen: list[torch.Tensor] = []
    network.layers["stage1/block1/2_sep3/sum"].register_forward_hook(
        lambda m, i, out: seen.append(out.clone())
    )
    network.layers["stem/conv"].register_forward_hook(lambda m, i, out: seen.append(out.clone()))
    images = torch.randn(2, 3, 8, 8)
    masks = torch.ones(3, 2, 1, 1, 1)
    with torch.no_grad():
        assert torch.equal(network.forward_with_auxiliary(images, masks)[0], network(images))
        seen.clear()
        masks[1, 0] = 0.0  # for the first image the edge from node 1 to node 5
        network.forward_with_auxiliary(images, masks)
    stem, total = seen
    assert torch.equal(total[0], stem[0])
    assert not torch.equal(total[1], stem[1])
