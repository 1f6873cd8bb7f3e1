"""Deriving by rule: the network of the path that serves budgets best, as costs and shared accuracy tell.

Nothing is trained; `search.selection` trains several briefly and knows better.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from dsonas_hw.architecture.architecture import Architecture
from dsonas_hw.architecture.costs import Costs, TargetCosts
from dsonas_hw.architecture.fit import budget_ratio
from dsonas_hw.budget import Budget
from dsonas_hw.errors import BudgetError
from dsonas_hw.search.candidates import NARROWEST, WELL_FILLED, Candidate, list_candidates, undominated
from dsonas_hw.search.path import PathPoint
from dsonas_hw.search.thinning import thin


@dataclass(frozen=True, kw_only=True)
class Derived:
    """The architecture that serves the budgets best, fitted, and the point of the path that it came from."""

    architecture: Architecture
    point: PathPoint
    ratio_before_fit: float
    """Tightest cost / limit at the deployment width that was searched for."""
    ratio: float
    """The same at the fitted width: at most 1."""
    costs: Costs


def serving_points(points: Sequence[PathPoint], *, gamma_control: bool) -> Sequence[PathPoint]:
    """Return the points that may serve a budget.

    All of them where γ was steered. With a constant γ, as in the paper, only the last architecture that the
    search reached: whatever the budget, the width alone is fitted to it.
    """
    return points if gamma_control else [p for p in points if not p.architecture.is_collapsed][-1:]


def derive_architecture(
    points: Sequence[PathPoint], budgets: Sequence[Budget], target: TargetCosts, *, shrink: float = 1.0
) -> Derived:
    """Serve budgets from a path.

    Of the candidates that use 95 % of the budgets, those nearest to the width that was searched for are
    taken, and of these the one of the best shared accuracy; if none uses so much, the one that uses most. It
    gives way to one that leaves more unused only if that one dominates it. Where a path of several points has
    none but much narrower ones, its points without some operations are candidates, too.

    shrink: every limit is multiplied by it, to leave room when a measurement has shown that costs are
    underestimated. Without budgets the last point is taken as it is.

    Raises:
        BudgetError: no point of the path can meet them, even at the narrowest width.
    """
    usable = [p for p in points if not p.architecture.is_collapsed]
    if not usable:
        raise BudgetError("every architecture of this path is collapsed; search again with a smaller gamma")
    if not budgets:
        last = usable[-1]
        return Derived(
            architecture=last.architecture, point=last, ratio_before_fit=0.0, ratio=0.0, costs=last.costs
        )
    limits = [replace(budget, limit=budget.limit * shrink) for budget in budgets]
    candidates = list_candidates(usable, limits, target, least=1.0)  # each point at its widest
    chosen = _choose(candidates) if candidates else None
    if len(usable) > 1 and (chosen is None or _is_narrow(chosen)):
        candidates += list_candidates(thin(usable), limits, target, least=1.0)
        chosen = _choose(candidates) if candidates else None
    if chosen is None:
        raise BudgetError(no_candidate(usable, limits, target))
    return as_derived(chosen, limits, target)


def _choose(candidates: Sequence[Candidate]) -> Candidate:
    def nearness(candidate: Candidate) -> tuple[float, ...]:
        searched = candidate.point.architecture.width
        return (-abs(math.log(candidate.architecture.width / searched)), *candidate.rank)

    full = [c for c in candidates if c.used() >= WELL_FILLED]
    chosen = max(full, key=nearness) if full else max(candidates, key=Candidate.used)
    return undominated(chosen, candidates)


def _is_narrow(candidate: Candidate) -> bool:
    return candidate.architecture.width < NARROWEST * candidate.point.architecture.width


def as_derived(candidate: Candidate, budgets: Sequence[Budget], target: TargetCosts) -> Derived:
    """Return a candidate as the network to go on with."""
    return Derived(
        architecture=candidate.architecture,
        point=candidate.point,
        ratio_before_fit=budget_ratio(candidate.point.architecture, budgets, target),
        ratio=candidate.used(),
        costs=target.costs(candidate.architecture),
    )


def no_candidate(points: Sequence[PathPoint], budgets: Sequence[Budget], target: TargetCosts) -> str:
    """Say that no point of a path meets the budgets, and how near it comes."""
    narrowest = points[0].architecture.space.widths()[0]
    nearest = min(budget_ratio(p.architecture.with_width(narrowest), budgets, target) for p in points)
    return (
        f"no architecture of this path meets {', '.join(map(str, budgets))}, even {narrowest} channels wide: "
        f"the nearest takes {nearest:.1%}; search with this budget, or longer (--set search.epochs=…)"
    )
