"""The λ-weighted sums of a block (Eq. 3, 4) in both directions, without a copy that is not needed.

    L        elements of one activation, B·H·W·C, channels last
    outputs  (1 + nodes, L): the block input, then ReLU of every operation's output, filled level by level
    grads    (nodes, L): gradients of the operations' inputs, filled level by level, last level first
    lam      (nodes, 1 + nodes): λ of every edge, zero where there is none

    forward   inputs of a level    = lam[level, earlier] @ outputs[earlier]     one product for all its edges
    backward  gradient of a level  = lam[later, level]ᵀ @ grads[later]          one product, the same way back
              gradient of λ        = grads @ outputsᵀ

The block output is Σ outputs[n] @ merge[n], where merge holds λ·W of the 1×1 convolution: λ scales small
weights, not large activations. Stacking, splitting and joining activations would move each of them several
times; here operations read rows of one buffer and their ReLU writes rows of another.

The functions below run in the order of the block, chained by an empty tensor, and so backward in the reverse
order. What is shared between them lies in a `Mixing`, one for each pass through a block.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable


class Mixing:
    """One pass through one block: `start`, then `inputs_of` and `add` level by level, then `merge`."""

    def __init__(self, x: Tensor, lam: Tensor, num_nodes: int) -> None:
        """x: block input (B, C, H, W); lam: (nodes, 1 + nodes), see above."""
        kind = x.device.type
        self.dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        self.shape = torch.Size((x.shape[0], x.shape[2], x.shape[3], x.shape[1]))
        self.outputs: Tensor | None = x.new_empty(1 + num_nodes, self.shape.numel(), dtype=self.dtype)
        self.lam = lam.detach().to(self.dtype)
        self.grads: Tensor | None = None
        self.merged_grad: Tensor | None = None
        self.merge_weights: Tensor | None = None
        self.num_done = 0
        self.token: Tensor = _Start.apply(self, x, lam)

    def row(self, rows: Tensor, number: int) -> Tensor:
        """A row of a buffer as an activation, (B, C, H, W) in channels last."""
        return rows[number].view(self.shape).permute(0, 3, 1, 2)

    def inputs_of(self, nodes: int) -> list[Tensor]:
        """Inputs of the next level, which has so many nodes."""
        level = range(self.num_done, self.num_done + nodes)
        inputs: list[Tensor]
        self.token, *inputs = _Inputs.apply(self, self.token, level)
        return inputs

    def add(self, outputs: Sequence[Tensor]) -> None:
        """Take in what the operations of the level gave, before their ReLU."""
        rows = range(self.num_done, self.num_done + len(outputs))
        self.token = _Add.apply(self, self.token, rows, *outputs)
        self.num_done = rows.stop

    def merge(self, weights: Tensor) -> Tensor:
        """weights: (nodes, C, C out). Returns Σ outputs[n] @ weights[n], (B, C out, H, W)."""
        merged: Tensor = _Merge.apply(self, self.token, weights)
        del self.token  # it holds the graph, which holds this
        return merged.view(*self.shape[:3], -1).permute(0, 3, 1, 2)


def _token(x: Tensor) -> Tensor:
    return x.new_empty(0)


class _Start(Function):
    @staticmethod
    def forward(ctx: Any, mixing: Mixing, x: Tensor, lam: Tensor) -> Tensor:
        ctx.mixing, ctx.lam_dtype = mixing, lam.dtype
        ctx.set_materialize_grads(False)
        assert mixing.outputs is not None
        mixing.row(mixing.outputs, 0).copy_(x)
        return _token(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, token: None) -> tuple[None, Tensor | None, Tensor | None]:
        mixing: Mixing = ctx.mixing
        outputs, grads = mixing.outputs, mixing.grads
        assert outputs is not None
        assert grads is not None
        x_grad = lam_grad = None
        if ctx.needs_input_grad[1]:
            x_grad = mixing.row(mixing.lam[:, :1].T @ grads, 0)
        if ctx.needs_input_grad[2]:
            lam_grad = (grads @ outputs.T).to(ctx.lam_dtype)
        mixing.outputs = mixing.grads = mixing.merged_grad = mixing.merge_weights = None
        return None, x_grad, lam_grad


class _Inputs(Function):
    @staticmethod
    def forward(ctx: Any, mixing: Mixing, token: Tensor, nodes: range) -> tuple[Tensor, ...]:
        ctx.mixing, ctx.nodes = mixing, nodes
        ctx.set_materialize_grads(False)
        assert mixing.outputs is not None
        earlier = 1 + nodes.start
        inputs = mixing.lam[nodes.start : nodes.stop, :earlier] @ mixing.outputs[:earlier]
        return _token(token), *(mixing.row(inputs, i) for i in range(len(nodes)))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, token: None, *grads: Tensor | None) -> tuple[None, None, None]:
        mixing: Mixing = ctx.mixing
        assert mixing.grads is not None
        for node, grad in zip(ctx.nodes, grads, strict=True):
            if grad is None:
                mixing.grads[node].zero_()
            else:
                mixing.row(mixing.grads, node).copy_(grad)
        return None, None, None


class _Add(Function):
    @staticmethod
    def forward(ctx: Any, mixing: Mixing, token: Tensor, nodes: range, *outputs: Tensor) -> Tensor:
        ctx.mixing, ctx.nodes = mixing, nodes
        ctx.set_materialize_grads(False)
        assert mixing.outputs is not None
        for node, output in zip(nodes, outputs, strict=True):
            torch.clamp_min(output.to(mixing.dtype), 0.0, out=mixing.row(mixing.outputs, 1 + node))
        return _token(token)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, token: None) -> tuple[Tensor | None, ...]:
        mixing: Mixing = ctx.mixing
        outputs, grads, merged_grad = mixing.outputs, mixing.grads, mixing.merged_grad
        assert outputs is not None
        assert grads is not None
        assert merged_grad is not None
        assert mixing.merge_weights is not None
        nodes: range = ctx.nodes
        from_later = None
        if nodes.stop < len(grads):
            from_later = mixing.lam[nodes.stop :, 1 + nodes.start : 1 + nodes.stop].T @ grads[nodes.stop :]
        result: list[Tensor | None] = []
        for i, node in enumerate(nodes):
            weights = mixing.merge_weights[node].T
            if from_later is None:
                grad = merged_grad @ weights
            else:
                grad = from_later[i].view(-1, weights.shape[1]).addmm_(merged_grad, weights)
            after_relu = mixing.row(outputs, 1 + node)
            grad = grad.view(mixing.shape).permute(0, 3, 1, 2)
            result.append(torch.ops.aten.threshold_backward(grad, after_relu, 0.0))
        return None, None, None, *result


class _Merge(Function):
    @staticmethod
    def forward(ctx: Any, mixing: Mixing, token: Tensor, weights: Tensor) -> Tensor:
        ctx.mixing = mixing
        outputs, mixing.outputs = mixing.outputs, None
        assert outputs is not None
        ctx.weights_dtype = weights.dtype
        weights = weights.to(mixing.dtype)
        ctx.save_for_backward(outputs, weights)
        rows = outputs[1:].view(len(weights), -1, weights.shape[1])
        merged = rows[0] @ weights[0]
        for row, weight in zip(rows[1:], weights[1:], strict=True):
            merged.addmm_(row, weight)
        return merged

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, merged_grad: Tensor) -> tuple[None, None, Tensor | None]:
        mixing: Mixing = ctx.mixing
        outputs, weights = ctx.saved_tensors
        merged_grad = merged_grad.contiguous()
        mixing.outputs, mixing.merge_weights, mixing.merged_grad = outputs, weights, merged_grad
        mixing.grads = torch.empty_like(outputs[1:])
        weights_grad = None
        if ctx.needs_input_grad[2]:
            rows = outputs[1:].view(len(weights), -1, weights.shape[1])
            weights_grad = torch.stack([row.T @ merged_grad for row in rows]).to(ctx.weights_dtype)
        return None, None, weights_grad
