"""Fitting a network to budgets: the width closes what the search leaves (the paper's width multiplier)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dsonas_hw.architecture.architecture import (
    Architecture,
    complete_architecture,
    identity_architecture,
)
from dsonas_hw.architecture.costs import TargetCosts
from dsonas_hw.budget import Budget, format_quantity
from dsonas_hw.errors import BudgetError
from dsonas_hw.space.space import SearchSpace


@dataclass(frozen=True, kw_only=True)
class Fit:
    """An architecture at the widest width that holds every budget."""

    architecture: Architecture
    ratio: float
    """The tightest budget's cost / limit; at most 1."""


def budget_ratio(architecture: Architecture, budgets: Sequence[Budget], target: TargetCosts) -> float:
    """The largest cost / limit over the budgets; 0 if there is none.

    Raises:
        BudgetError: a budgeted cost that this target cannot tell.
    """
    ratio = 0.0
    for budget in budgets:
        cost = target.cost(architecture, budget.quantity)
        if cost is None:
            raise BudgetError(
                f"the {budget.name} budget cannot be steered: nothing here predicts {budget.quantity}"
            )
        ratio = max(ratio, cost / budget.limit)
    return ratio


def fit_width(architecture: Architecture, budgets: Sequence[Budget], target: TargetCosts) -> Fit | None:
    """The widest width of the space at which all budgets hold; None: not even the narrowest does.

    Costs grow with the width, but for steps in latency tables: widths are searched by bisection, then the
    next wider ones are tried while they hold.
    """
    widths = architecture.space.widths()
    low, high = 0, len(widths)  # widths[:low] hold, widths[high:] do not
    ratios: dict[int, float] = {}

    def holds(index: int) -> bool:
        ratios[index] = budget_ratio(architecture.with_width(widths[index]), budgets, target)
        return ratios[index] <= 1.0

    while low < high:
        middle = (low + high) // 2
        if holds(middle):
            low = middle + 1
        else:
            high = middle
    if low == 0:
        return None
    return Fit(architecture=architecture.with_width(widths[low - 1]), ratio=ratios[low - 1])


def check_feasible(space: SearchSpace, budgets: Sequence[Budget], target: TargetCosts, *, width: int) -> None:
    """Refuse budgets that no network of the space meets, or that every one does, before any training.

    width: the deployment width that the search is steered for. The smallest network is every block an
    identity at the narrowest width; the largest is the complete one at the widest.

    Raises:
        BudgetError: names the budget, the reason and the feasible range.
    """
    smallest = identity_architecture(space, width=space.widths()[0])
    largest = complete_architecture(space, width=space.widths()[-1])
    for budget in budgets:
        low, high = target.cost(smallest, budget.quantity), target.cost(largest, budget.quantity)
        if low is None or high is None:
            raise BudgetError(
                f"a {budget.name} budget cannot be steered by: nothing here predicts {budget.quantity}. "
                "Budgets that can: mac, flops, params, memory, and latency once the device has a profile"
            )
        feasible = f"feasible: {format_quantity(budget.name, low)} to {format_quantity(budget.name, high)}"
        if budget.limit < low:
            raise BudgetError(f"budget {budget} is below the smallest network of this space; {feasible}")
        if budget.limit > high:
            raise BudgetError(f"budget {budget} is above the largest network of this space; {feasible}")
