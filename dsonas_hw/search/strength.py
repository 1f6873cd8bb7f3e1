"""How strongly the input of a block reaches its nodes, so that λ feel what a node, or the block, is worth.

A weighted sum goes through a batch norm before anything reads it, and batch norm undoes a common scale: for
the edges into one node (and for those into the output) Σ λ·∂G/∂λ = 0. The loss thus compares the edges of a
sum with each other and says nothing of the sum itself; the last edge left has no gradient at all, and γ takes
it, however useful the block is. A node and the block are therefore scaled by their *strength*:

    s(0) = 1                                the block's input
    w(n→t) = λ(n→t) · s(n)                  what the weighted sums use in place of λ
    s(t) = max over sources n of w(n→t)     the product of the λ along the strongest path to t
    block output = s(output) · ReLU(BN(…)) + input

With every λ at one all strengths are one. A λ that goes to zero takes what hangs on it to zero continuously,
up to the whole block, which then is the identity. An addition to the paper (`search.path_strength`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def scale_by_strength(
    inner: Tensor, outer: Tensor, level_sizes: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Weigh every edge by the strength of its source.

    inner: λ of the edges into nodes, (nodes, 1 + nodes), zero where there is none; outer: λ of those into the
        output, (nodes,); level_sizes: nodes of each level, in order.
    Returns w of both, in the same shapes, and the strength of the output, ().
    """
    strengths = inner.new_ones(1)
    rows: list[Tensor] = []
    for size in level_sizes:
        first, earlier = len(strengths) - 1, len(strengths)
        reached = inner[first : first + size, :earlier] * strengths
        rows.append(F.pad(reached, (0, inner.shape[1] - earlier)))
        strengths = torch.cat([strengths, reached.amax(1)])
    outer = outer * strengths[1:]
    return torch.cat(rows), outer, outer.amax()
