"""Fitting a network to budgets: the width closes what the search leaves (the paper's width multiplier)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
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

IDEAL_COMPLETE_OVER_BUDGET = 8.0
"""Cost of the complete network / limit at the width to steer for: of equal cost, wide networks of few edges
were more accurate than narrow ones of many (docs/results.md)."""
EDGES_LEFT = 16
"""Edges with a λ that should be left to choose all the same; of fewer, the death of one is a jump in cost."""
CHEAPER_CHANNELS = 0.9
"""Times the cost of a channel: if a wider network's cost less, the narrower width leaves vectors unfilled."""
MOST_FIXED_OVER_BUDGET = 0.7
"""Cost of the network without any operation / limit above which too little is left to choose."""
LOOK_AHEAD = 4
"""Widths beyond the first that misses a budget that are tried all the same."""


@dataclass(frozen=True, kw_only=True)
class Fit:
    """An architecture at the widest width that holds every budget."""

    architecture: Architecture
    ratio: float
    """The tightest budget's cost / limit; at most 1."""


def budget_ratio(architecture: Architecture, budgets: Sequence[Budget], target: TargetCosts) -> float:
    """Return the largest cost / limit over the budgets; 0 if there is none.

    Raises:
        BudgetError: the target has no model for one of the budgeted costs.
    """
    ratio = 0.0
    for budget in budgets:
        cost = target.cost(architecture, budget.quantity)
        if cost is None:
            raise _cannot_steer(budget, target)
        ratio = max(ratio, cost / budget.limit)
    return ratio


def fit_width(architecture: Architecture, budgets: Sequence[Budget], target: TargetCosts) -> Fit | None:
    """Return the widest width of the space at which all budgets hold; None: not even the narrowest does.

    Counted costs grow with the width, and bisection finds it. Latency has steps, where a few more channels
    that fill a vector are faster: the next wider ones are tried too, until `LOOK_AHEAD` in a row miss.
    """
    widths = architecture.space.widths()
    ratios: dict[int, float] = {}

    def holds(index: int) -> bool:
        ratios[index] = budget_ratio(architecture.with_width(widths[index]), budgets, target)
        return ratios[index] <= 1.0

    widest = find_widest(len(widths), holds, look_ahead=LOOK_AHEAD)
    if widest is None:
        return None
    return Fit(architecture=architecture.with_width(widths[widest]), ratio=ratios[widest])


def find_widest(num_widths: int, holds: Callable[[int], bool], *, look_ahead: int) -> int | None:
    """Return the largest index that holds; None: not even the first does.

    Bisection finds where holding ends, if it ends once; so many more indices are tried behind the last that
    holds.
    """
    low, high = 0, num_widths  # below low they hold, from high on they do not
    while low < high:
        middle = (low + high) // 2
        if holds(middle):
            low = middle + 1
        else:
            high = middle
    ahead = low
    while ahead < min(low + look_ahead, num_widths):
        ahead += 1
        if holds(ahead - 1):
            low = ahead
    return low - 1 if low else None


def ideal_complete_over_budget(space: SearchSpace) -> float:
    """Cost of the complete network / limit at the width to steer for; less in a space of few edges."""
    num_lambdas = space.num_lambda_sets * len(space.edges)
    return min(IDEAL_COMPLETE_OVER_BUDGET, max(2.0, num_lambdas / EDGES_LEFT))


def choose_width(space: SearchSpace, budgets: Sequence[Budget], target: TargetCosts) -> int:
    """Return the deployment width to steer the search for, where the user has not set one.

    It is the width at which the complete network's cost is nearest, as a ratio, to
    `ideal_complete_over_budget` times the budget. Left out are widths at which stem, reductions and head,
    which no search prunes, use up the budget, and of the others those whose channels do not fill a vector, so
    that a channel of a wider network costs clearly less. Latency is not monotone in the width, so all are
    looked at.
    """
    if not budgets:
        return space.channels
    ideal = ideal_complete_over_budget(space)
    complete = complete_architecture(space)
    best, distance, cheapest = space.widths()[0], math.inf, math.inf
    for width in reversed(space.widths()):
        if budget_ratio(identity_architecture(space, width=width), budgets, target) > MOST_FIXED_OVER_BUDGET:
            continue
        over_budget = budget_ratio(complete.with_width(width), budgets, target)
        if over_budget / width > cheapest / CHEAPER_CHANNELS:
            continue
        cheapest = min(cheapest, over_budget / width)
        if abs(math.log(over_budget / ideal)) < distance:
            best, distance = width, abs(math.log(over_budget / ideal))
    return best


def check_feasible(space: SearchSpace, budgets: Sequence[Budget], target: TargetCosts) -> None:
    """Refuse budgets that no network of the space meets, before any training.

    The smallest network is every block an identity at the narrowest width; the largest is the complete one
    at the widest.

    Raises:
        BudgetError: names the budget, the reason and the feasible range.
    """
    for budget in budgets:
        low, high = _cost_range(space, budget, target)
        if budget.limit < low:
            smallest = format_quantity(budget.name, _four_digits(low, math.ceil))
            largest = format_quantity(budget.name, _four_digits(high, math.floor))
            raise BudgetError(
                f"budget {budget} is below the smallest network of this space; feasible: {smallest} to "
                f"{largest}"
            )


def find_loose(space: SearchSpace, budgets: Sequence[Budget], target: TargetCosts) -> list[str]:
    """Return a sentence for every budget that even the largest network of the space holds.

    Raises:
        BudgetError: a budgeted cost that this target cannot tell.
    """
    found = []
    for budget in budgets:
        _, high = _cost_range(space, budget, target)
        if budget.limit > high:
            largest = format_quantity(budget.name, _four_digits(high, math.floor))
            found.append(
                f"budget {budget} is above the largest network of this space, {largest}: it limits nothing, "
                f"and the largest is taken; --set space.max_width={2 * space.widths()[-1]} allows larger ones"
            )
    return found


def _cost_range(space: SearchSpace, budget: Budget, target: TargetCosts) -> tuple[float, float]:
    """What the smallest and the largest network of a space cost."""
    low = target.cost(identity_architecture(space, width=space.widths()[0]), budget.quantity)
    high = target.cost(complete_architecture(space, width=space.widths()[-1]), budget.quantity)
    if low is None or high is None:
        raise _cannot_steer(budget, target)
    return low, high


def _cannot_steer(budget: Budget, target: TargetCosts) -> BudgetError:
    assert budget.metric, "what is counted is known of every network"
    return BudgetError(f"budget {budget} cannot be steered by: {target.why_not(budget.metric)}")


def _four_digits(value: float, rounded: Callable[[float], int]) -> float:
    """`value` rounded up or down to the digits that are shown, so that what is shown can be typed."""
    if value <= 0:
        return value
    unit = 10.0 ** (math.floor(math.log10(value)) - 3)
    return rounded(value / unit) * unit
