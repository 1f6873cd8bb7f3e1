"""Batch norm over the whole batch, also where its images are spread over processes.

    x      this rank's rows, (B, C, H, W)           R   ranks, with equally many rows
    n      B·H·W                                    x̂   (x − mean) · (variance + ε)^(−1/2)

Ranks exchange the mean and variance of their rows, which combine without cancellation, and going back the
sums of the gradient and of gradient·x̂. torch's SyncBatchNorm does the same, on GPUs only.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from dsonas_hw.train import distributed

_PIXELS = (0, 2, 3)


class BatchNorm(nn.BatchNorm2d):
    """torch's, unless several processes share the batch."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not distributed.shares_batches():
            return super().forward(x)
        y: Tensor
        y, mean, variance = _SharedBatchNorm.apply(x, self.weight, self.bias, self.eps)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        num = x.numel() // x.shape[1] * distributed.world_size()
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (num / (num - 1)), self.momentum)
        return y


@contextmanager
def fixed_statistics(module: nn.Module) -> Iterator[None]:
    """Inside, batch norms in training use the statistics of the batch and leave the running ones alone."""
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
        assert norm.num_batches_tracked is not None
        norm.num_batches_tracked = norm.num_batches_tracked.clone()
    try:
        yield
    finally:
        for norm, (momentum, counter) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, counter


class _SharedBatchNorm(Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        own_variance, own_mean = torch.var_mean(_exact(x), _PIXELS, correction=0)
        means, variances = distributed.gather(torch.stack([own_mean, own_variance])).unbind(1)
        mean = means.mean(0)
        variance = variances.mean(0) + (means - mean).square().mean(0)
        inverse = (variance + eps).rsqrt()
        ctx.save_for_backward(x, mean, inverse, weight)
        scale = inverse * weight
        y = torch.addcmul(_wide(bias - mean * scale), _exact(x), _wide(scale))
        ctx.mark_non_differentiable(mean, variance)
        return y.to(x.dtype, memory_format=torch.channels_last), mean, variance

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad: Tensor, _mean: Tensor, _variance: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, None]:
        x, mean, inverse, weight = ctx.saved_tensors
        grad = _exact(grad)
        normalised = (_exact(x) - _wide(mean)) * _wide(inverse)
        sums = torch.stack([grad.sum(_PIXELS), (grad * normalised).sum(_PIXELS)])
        bias_grad, weight_grad = sums.clone().unbind(0)
        num = x.numel() // x.shape[1] * distributed.world_size()
        first, second = (distributed.sum_(sums) / num).unbind(0)
        x_grad = (grad - _wide(first) - normalised * _wide(second)) * _wide(inverse * weight)
        return x_grad.to(x.dtype), weight_grad, bias_grad, None


def _exact(x: Tensor) -> Tensor:
    """At least float32."""
    return x if x.dtype == torch.float64 else x.float()


def _wide(values: Tensor) -> Tensor:
    """(C,) → (1, C, 1, 1)."""
    return values.view(1, -1, 1, 1)
