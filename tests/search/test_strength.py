"""Strength: the loss says what a sum is worth, and what fades goes to nothing without a jump."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from dsonas_hw.architecture.sample import random_block
from dsonas_hw.search.strength import scale_by_strength
from dsonas_hw.search.supernet import Supernet
from dsonas_hw.space.space import SearchSpace

SPACE = SearchSpace(levels=3, stages=(1, 2), channels=4, input_shape=(3, 9, 8), share=False)
OUTPUT = SPACE.num_nodes + 1


def supernet(*, path_strength: bool) -> Supernet:
    torch.manual_seed(0)
    return Supernet(SPACE, path_strength=path_strength).train()


def images() -> Tensor:
    return torch.randn(8, *SPACE.input_shape, generator=torch.Generator().manual_seed(7))


def lam_gradient(net: Supernet) -> Tensor:
    labels = torch.arange(8) % SPACE.num_classes
    (gradient,) = torch.autograd.grad(F.cross_entropy(net(images()), labels), [net.lam])
    return gradient


@pytest.mark.parametrize("path_strength", [False, True])
def test_without_strength_no_sum_feels_its_scale(path_strength: bool) -> None:
    # Euler: Σ λ·∂G/∂λ over the edges into one node is the loss's derivative by their common (log) scale.
    net = supernet(path_strength=path_strength)
    net.lam.data.uniform_(0.5, 1.0)
    felt = net.lam.detach() * lam_gradient(net)
    targets = torch.tensor([t for _, t in SPACE.edges])
    by_scale = [float(felt[:, targets == t].sum(1).abs().max()) for t in range(1, OUTPUT + 1)]
    if path_strength:
        assert max(by_scale) > 1e-2
    else:  # what is left is batch norm's ε
        assert max(by_scale) < 2e-4 < 1e-2 < float(felt.abs().max())


def test_the_last_edge_of_a_block_has_a_gradient() -> None:
    for path_strength in (False, True):
        net = supernet(path_strength=path_strength)
        chain = torch.tensor([edge in {(0, 1), (1, OUTPUT)} for edge in SPACE.edges])
        net.lam.data[0] = chain.float()
        net.silence_dead(net.blocks_of(net.lam))
        gradient = lam_gradient(net)[0, chain].abs()
        assert bool((gradient > 1e-3).all()) if path_strength else bool((gradient < 1e-3).all())


def test_with_every_lambda_at_one_nothing_changes() -> None:
    plain, scaled = (supernet(path_strength=on) for on in (False, True))
    assert torch.equal(plain(images()), scaled(images()))


def test_a_block_fades_to_the_identity() -> None:
    net = supernet(path_strength=True)
    block = next(iter(net.blocks()))
    x = torch.randn(3, 4, 9, 8)
    distances = []
    for scale in (1.0, 0.1, 0.01):
        lam = torch.where(torch.tensor([t == OUTPUT for _, t in SPACE.edges]), scale, 1.0)
        distances.append(float((block(x, lam) - x).detach().abs().max()))
    assert distances[1] == pytest.approx(0.1 * distances[0], rel=0.02)
    assert distances[2] < 0.011 * distances[0]


def test_a_node_fades_to_nothing_with_the_edges_into_it() -> None:
    net = supernet(path_strength=True)
    block = next(iter(net.blocks()))
    block.operations["1"][-1].bias.data.fill_(0.5)  # a constant that batch norm would make of nothing
    x = torch.randn(3, 4, 9, 8)
    into, out_of = (torch.tensor([edge[i] == 1 for edge in SPACE.edges]) for i in (1, 0))
    without = block(x, torch.where(into | out_of, 0.0, 1.0)).detach()
    faded = block(x, torch.where(into, 1e-4, 1.0)).detach()
    torch.testing.assert_close(faded, without, rtol=1e-2, atol=1e-2)


def test_strength_is_the_largest_product_along_a_path() -> None:
    generator = torch.Generator().manual_seed(3)
    for seed in range(5):
        block = random_block(SPACE, random.Random(seed))
        lam = {edge: float(torch.rand((), generator=generator)) for edge in SPACE.edges}
        nodes = [0, *block.nodes]
        best = {0: 1.0}
        for node in (*block.nodes, OUTPUT):
            sources = block.output if node == OUTPUT else block.inputs[node - 1]
            best[node] = max(lam[s, node] * best[s] for s in sources)
        inner = torch.tensor(
            [[lam[s, t] if s in block.inputs[t - 1] else 0.0 for s in nodes] for t in block.nodes]
        )
        outer = torch.tensor([lam[s, OUTPUT] if s in block.output else 0.0 for s in block.nodes])
        levels = [sum(SPACE.level_of(n) == level for n in block.nodes) for level in range(SPACE.levels)]
        w_inner, w_outer, strength = scale_by_strength(inner, outer, [size for size in levels if size])
        assert strength.item() == pytest.approx(best[OUTPUT])
        sources_strength = torch.tensor([best[n] for n in nodes])
        torch.testing.assert_close(w_inner, inner * sources_strength)
        torch.testing.assert_close(w_outer, outer * sources_strength[1:])
