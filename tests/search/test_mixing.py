"""The sums of a block, written for speed, are those of Eq. 3 and 4, and so are their gradients."""

from __future__ import annotations

import weakref

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from dsonas_hw.search.mixing import Mixing

LEVELS = (2, 1, 3)
NUM_NODES = sum(LEVELS)
SHAPE = (2, 3, 4, 5)
"""Batch, channels, height, width."""


def operation(node: int, z: Tensor) -> Tensor:
    """A different function for each node, of mixed sign."""
    return z * (0.5 + 0.3 * node) - 0.1 * node


def mixed(x: Tensor, lam: Tensor, merge: Tensor) -> Tensor:
    mixing, first = Mixing(x, lam, NUM_NODES), 0
    for nodes in LEVELS:
        inputs = mixing.inputs_of(nodes)
        mixing.add([operation(first + i, z) for i, z in enumerate(inputs)])
        first += nodes
    return mixing.merge(merge)


def plain(x: Tensor, lam: Tensor, merge: Tensor) -> Tensor:
    outputs, first = [x], 0
    for nodes in LEVELS:
        inputs = [
            torch.stack([lam[n, s] * outputs[s] for s in range(1 + first)]).sum(0)
            for n in range(first, first + nodes)
        ]
        outputs += [F.relu(operation(first + i, z)) for i, z in enumerate(inputs)]
        first += nodes
    return torch.stack(
        [torch.einsum("bchw,cd->bdhw", h, w) for h, w in zip(outputs[1:], merge, strict=True)]
    ).sum(0)


def arguments(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(SHAPE, generator=generator, dtype=dtype).to(memory_format=torch.channels_last)
    lam = torch.rand(NUM_NODES, 1 + NUM_NODES, generator=generator, dtype=dtype)
    first = 0
    for nodes in LEVELS:
        lam[first : first + nodes, 1 + first :] = 0.0
        first += nodes
    merge = torch.randn(NUM_NODES, SHAPE[1], SHAPE[1], generator=generator, dtype=dtype)
    return x.requires_grad_(), lam.requires_grad_(), merge.requires_grad_()


def test_sums_and_gradients_are_the_plain_ones() -> None:
    found, expected = arguments(), arguments()
    weights = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for function, inputs in ((mixed, found), (plain, expected)):
        out = function(*inputs)
        (out * weights).sum().backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(mixed(*found), plain(*expected))
    edges = expected[1].detach() > 0
    for name, a, b in zip(("x", "lam", "merge"), found, expected, strict=True):
        assert a.grad is not None
        assert b.grad is not None
        torch.testing.assert_close(
            a.grad[edges] if name == "lam" else a.grad, b.grad[edges] if name == "lam" else b.grad
        )


@pytest.mark.parametrize("wanted", [0, 1, 2])
def test_one_gradient_alone_is_the_same(wanted: int) -> None:
    inputs = arguments()
    (all_of_them,) = torch.autograd.grad(mixed(*inputs).square().sum(), inputs[wanted : wanted + 1])
    alone = tuple(t.detach().requires_grad_(i == wanted) for i, t in enumerate(arguments()))
    (found,) = torch.autograd.grad(mixed(*alone).square().sum(), alone[wanted : wanted + 1])
    assert torch.equal(found, all_of_them)


def test_under_autocast_buffers_are_bfloat16_and_gradients_float32() -> None:
    x, lam, merge = arguments(torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = mixed(x, lam, merge)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), mixed(x, lam, merge), rtol=0.1, atol=0.3)
    out.float().square().sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert lam.grad is not None
    assert merge.grad is not None
    assert {x.grad.dtype, lam.grad.dtype, merge.grad.dtype} == {torch.float32}


def test_a_pass_leaves_nothing_behind() -> None:
    # The graph holds the buffers; nothing that they hold may hold the graph.
    x, lam, merge = arguments()
    mixing = Mixing(x, lam, NUM_NODES)
    for nodes in LEVELS:
        mixing.add(mixing.inputs_of(nodes))
    out = mixing.merge(merge)
    alive = weakref.ref(mixing)
    del mixing, out
    assert alive() is None
