"""The two alternating steps of a search: SGD on W, APG-NAG on λ, each on images of its own."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.amp import GradScaler
from torch.nn import functional as F

from dsonas_hw.config import SearchConfig
from dsonas_hw.search.apg_nag import APGNAG, apg_nag_step
from dsonas_hw.search.supernet import Supernet
from dsonas_hw.train.distributed import average_
from dsonas_hw.train.loop import autocast, loss_scaler

Batch = tuple[Tensor, Tensor]


def weight_step(
    supernet: Supernet,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    config: SearchConfig,
    scaler: GradScaler | None = None,
) -> tuple[Tensor, Tensor]:
    """One SGD step on W with λ fixed. Returns the loss and the logits of this process's images."""
    supernet.lam.requires_grad_(False)  # its gradient, which nobody reads here, would be computed
    try:
        loss, logits = _loss(supernet, batch, config)
    finally:
        supernet.lam.requires_grad_(True)
    weights = [p for group in optimizer.param_groups for p in group["params"]]
    optimizer.zero_grad(set_to_none=True)
    if scaler is None:
        scaler = loss_scaler(loss.device, "off")
    scaler.scale(loss).backward(inputs=weights)  # type: ignore[no-untyped-call]
    average_(p.grad for p in weights if p.grad is not None)
    scaler.unscale_(optimizer)
    torch.nn.utils.clip_grad_value_(weights, config.grad_clip)
    scaler.step(optimizer)
    scaler.update()
    return loss, logits


def lambda_gradient(
    supernet: Supernet, batch: Batch, config: SearchConfig, scaler: GradScaler | None = None
) -> Tensor:
    """∇G(λ) of the loss on images of the λ part; clipped it is left in `supernet.lam.grad`.

    One that is too large for float16 is not finite, and the next one is scaled less.
    """
    loss, _ = _loss(supernet, batch, config)
    if scaler is None:
        scaler = loss_scaler(loss.device, "off")
    (gradient,) = torch.autograd.grad(scaler.scale(loss), [supernet.lam])
    average_([gradient])
    if scaler.is_enabled():
        gradient /= scaler.get_scale()
        if not bool(torch.isfinite(gradient).all()):
            scaler.update(scaler.get_scale() * scaler.get_backoff_factor())
    supernet.lam.grad = gradient.clamp(-config.grad_clip, config.grad_clip)
    return gradient


def lambda_after(supernet: Supernet, optimizer: APGNAG, gamma: Tensor, *, keep_momentum: bool) -> Tensor:
    """λ as the next APG-NAG step would leave it, without taking it."""
    lam, group = supernet.lam.detach(), optimizer.param_groups[0]
    velocity: Tensor | None = optimizer.state[supernet.lam].get("velocity")
    if velocity is None or not keep_momentum:
        velocity = torch.zeros_like(lam)
    assert supernet.lam.grad is not None
    after, _ = apg_nag_step(
        lam, velocity, supernet.lam.grad, gamma, lr=group["lr"], momentum=group["momentum"]
    )
    return after * supernet.alive


def _loss(supernet: Supernet, batch: Batch, config: SearchConfig) -> tuple[Tensor, Tensor]:
    images, labels = batch
    with autocast(images.device, config.amp):
        logits = supernet(images)
        loss = F.cross_entropy(logits, labels)
    return loss, logits
