"""Candidates: points of the path at the widths that fill the budgets. Nothing here trains or measures.

    point × width ─▶ used = max(counted cost / limit, correction · predicted latency / limit)

Shared accuracy was scored at the search's own width, so it ranks only candidates of one width. Of any width,
a network is surely worse than another that is at least as wide, has at least its edges and multiply-adds and
costs no more.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from dsonas_hw.architecture.architecture import Architecture
from dsonas_hw.architecture.costs import TargetCosts
from dsonas_hw.architecture.fit import LOOK_AHEAD, budget_ratio, fit_width
from dsonas_hw.budget import Budget
from dsonas_hw.search.path import PathPoint

WELL_FILLED = 0.95
"""A network should use at least this fraction of its tightest budget."""
NARROWEST = 1 / 3
"""Of the widest width, or the searched one: of equal cost, much narrower networks were the worse ones
(docs/results.md)."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A point of the path at one width."""

    point: PathPoint
    architecture: Architecture
    counted: float
    """Tightest counted cost / limit."""
    timed: float
    """Tightest predicted cost / limit of those that only a device tells; 0: none is budgeted."""
    accuracy: float | None
    """Shared accuracy of the point, or of the last scored before it; None: none was scored."""
    flops: int
    num_edges: int

    def used(self, correction: float = 1.0) -> float:
        """Return the tightest cost / limit if predicted costs are off by a factor of `correction`."""
        return max(self.counted, self.timed * correction)

    @property
    def rank(self) -> tuple[float, float]:
        """Among candidates of one width that fill the budgets the larger is the better."""
        return (-1.0 if self.accuracy is None else self.accuracy, self.flops)


def list_candidates(
    points: Sequence[PathPoint],
    budgets: Sequence[Budget],
    target: TargetCosts,
    *,
    least: float = WELL_FILLED,
    most: float = 1.0,
) -> list[Candidate]:
    """Return each point at every width at which it uses `least` to `most` of the budgets.

    Of a point that no width brings into that range, the widest below it is listed: so an empty list says that
    no point meets the budgets. A width is left out where a wider network of the point costs no more, as with
    channels that do not fill a vector, and so are collapsed points.

    Raises:
        BudgetError: the target has no model for one of the budgeted costs.
    """
    limits = [replace(budget, limit=budget.limit * most) for budget in budgets]
    found: list[Candidate] = []
    accuracy: float | None = None
    for point in points:
        accuracy = accuracy if point.accuracy is None else point.accuracy
        if point.architecture.is_collapsed:
            continue
        fit = fit_width(point.architecture, limits, target)
        if fit is None:
            continue
        narrower = [w for w in point.architecture.space.widths() if w <= fit.architecture.width]
        num_below, cheapest = 0, math.inf
        for width in reversed(narrower):
            candidate = _candidate(point, width, accuracy, budgets, target)
            used = candidate.used()
            fills = used >= least or width == fit.architecture.width
            if fills and used <= most and used < cheapest:
                found.append(candidate)
            num_below, cheapest = num_below + (used < least), min(used, cheapest)
            if num_below > LOOK_AHEAD:  # latency has steps: narrower may be slower
                break
    return found


def _candidate(
    point: PathPoint, width: int, accuracy: float | None, budgets: Sequence[Budget], target: TargetCosts
) -> Candidate:
    architecture = point.architecture.with_width(width)
    flops = target.cost(architecture, "flops")
    assert flops is not None, "flops are counted on every target"
    return Candidate(
        point=point,
        architecture=architecture,
        counted=budget_ratio(architecture, [b for b in budgets if not b.metric], target),
        timed=budget_ratio(architecture, [b for b in budgets if b.metric], target),
        accuracy=accuracy,
        flops=int(flops),
        num_edges=architecture.num_edges,
    )


def dominates(a: Candidate, b: Candidate, correction: float = 1.0) -> bool:
    """Whether `a` is surely the better network: it costs no more than `b`, and

    - of one width, both filling the budget: it has at least the shared accuracy, or
    - it is at least as wide, has at least the edges and multiply-adds, and of one width the shared accuracy.
    """
    cheaper = b.used(correction) - a.used(correction)
    gains: list[float] = [
        a.architecture.width - b.architecture.width,
        a.num_edges - b.num_edges,
        a.flops - b.flops,
    ]
    if gains[0] == 0 and a.accuracy is not None and b.accuracy is not None:
        gains.append(a.accuracy - b.accuracy)
        if min(a.used(correction), b.used(correction)) >= WELL_FILLED:
            gains = gains[-1:]
    return min(cheaper, *gains) >= 0 and max(cheaper, *gains) > 0


def undominated(candidate: Candidate, others: Iterable[Candidate], correction: float = 1.0) -> Candidate:
    """Return the candidate, or what is left after going from it to ever better ones that dominate it.

    correction: by what predicted costs are off, see `Candidate.used`.
    """
    others = list(others)
    for _ in others:
        better = [other for other in others if dominates(other, candidate, correction)]
        if not better:
            break
        candidate = max(better, key=lambda other: (other.flops, other.rank))
    return candidate
