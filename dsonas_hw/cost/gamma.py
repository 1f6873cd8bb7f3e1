"""Adaptive γ: how the costs of a device enter the search (DSO-NAS, Eq. 9 and 10).

Pure functions over numbers; any cost of a lookup table will do (flops, mac, latency, energy). Numerators are
costs of what is alive now, denominators those of the complete network: so γ falls as edges die.
"""

from __future__ import annotations

from collections.abc import Sequence


def adaptive_gamma_per_block(
    cost_now: Sequence[float], cost_complete: Sequence[float], *, gamma: float
) -> list[float]:
    """Eq. 9: γ_b = cost_b(t) / cost_b(complete block) · γ.

    cost_now, cost_complete: one per block, same unit.
    """
    return [
        gamma * now / complete if complete > 0 else 0.0
        for now, complete in zip(cost_now, cost_complete, strict=True)
    ]


def adaptive_gamma_per_operation(
    cost_now: Sequence[Sequence[float]], cost_complete: Sequence[Sequence[float]], *, gamma: float
) -> list[list[float]]:
    """Eq. 10: γ_(m,n) = cost_(m,n)(t) / max over the complete network · γ; the maximum has no t.

    cost_now, cost_complete: per block, per operation (node order), same unit; 0 for a dead operation.
    """
    largest = max((cost for block in cost_complete for cost in block), default=0.0)
    if largest <= 0:
        return [[0.0 for _ in block] for block in cost_now]
    return [[gamma * cost / largest for cost in block] for block in cost_now]
