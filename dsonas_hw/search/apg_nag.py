"""APG-NAG: accelerated proximal gradient in Nesterov's form (DSO-NAS, Eq. 6-8).

    λ  scales of the edges, ≥ 0           γ  L1 weight of each edge (`gamma`)
    ∇G gradient of the loss               η  step size (`lr`)
    v  velocity                           μ  momentum (`momentum`)

    z = λ − η·∇G(λ);   s = soft_threshold(z, η·γ);   v ← s − λ + μ·v;   λ ← s + μ·v

Zeros are exact: they come from the soft threshold and the clamp, never from a cut-off by magnitude.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


def soft_threshold(z: Tensor, threshold: Tensor) -> Tensor:
    """The proximal operator of the L1 norm: sign(z)·max(|z| − threshold, 0), elementwise."""
    return z.sign() * (z.abs() - threshold).clamp(min=0.0)


def apg_nag_step(
    lam: Tensor, velocity: Tensor, grad: Tensor, gamma: Tensor, *, lr: float, momentum: float
) -> tuple[Tensor, Tensor]:
    """One APG-NAG step (DSO-NAS, Eq. 6-8).

    lam, velocity, grad, gamma: one shape, elementwise; lam >= 0; gamma is the L1 weight of each edge.
    Returns the next lam, clamped to >= 0 as in the authors' release, and the next velocity.
    """
    prox = soft_threshold(lam - lr * grad, lr * gamma)
    velocity = prox - lam + momentum * velocity
    return (prox + momentum * velocity).clamp(min=0.0), velocity


class APGNAG(torch.optim.Optimizer):
    """APG-NAG as a PyTorch optimizer.

    A parameter group holds `gamma`, a list with one tensor per parameter (the L1 weight of each element,
    set by whoever knows the costs), and `alive`, a list of boolean masks (or None): elements that are not
    alive stay exactly zero, with their velocity.
    """

    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float = 0.1,
        momentum: float = 0.9,
        gamma: float = 1e-3,
    ) -> None:
        if lr <= 0.0 or not 0.0 <= momentum < 1.0 or gamma < 0.0:
            raise ValueError(f"need lr > 0, 0 <= momentum < 1, gamma >= 0, not {lr}, {momentum}, {gamma}")
        super().__init__(params, {"lr": lr, "momentum": momentum, "gamma": gamma, "alive": None})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters; a `gamma` that is a number holds for each of their elements."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        if isinstance(group["gamma"], float | int):
            group["gamma"] = [torch.full_like(p, group["gamma"]) for p in group["params"]]
        if group["alive"] is None:
            group["alive"] = [None for _ in group["params"]]

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for lam, gamma, alive in zip(group["params"], group["gamma"], group["alive"], strict=True):
                if lam.grad is None:
                    continue
                state = self.state[lam]
                velocity = state.get("velocity")
                if velocity is None:
                    velocity = torch.zeros_like(lam)
                new_lam, new_velocity = apg_nag_step(
                    lam, velocity, lam.grad, gamma, lr=group["lr"], momentum=group["momentum"]
                )
                if alive is not None:
                    new_lam, new_velocity = new_lam * alive, new_velocity * alive
                lam.copy_(new_lam)
                state["velocity"] = new_velocity
        return loss
