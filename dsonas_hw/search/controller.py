"""Landing on the budget: scales γ so that the cost follows a falling target, to the budget and beyond it.

    r  cost / limit of the tightest budget, at the deployment width; r₀ of the complete network, r₁ of the end
    target(t) = r₀^(1 − t/T) until T, the landing;  then r₁^((t − T) / (T₁ − T)) until T₁, and r₁ to the end

Beyond the budget the path holds networks of fewer edges that fill it when they are wider.

A λ step is tried with the present γ. Behind the target, γ grows; ahead of it, γ shrinks, and what is alive
is spared it. A step that would fall far below the target is taken with a smaller γ (bisection: fewer λ reach
zero), then without momentum, and else not at all. So cost falls along the target on any schedule, and no
burst of edges that die together overshoots the budget. Where a single death is a jump across the target (few
edges, each dear), it waits for a finer step, then for the target to come nearer to the other side.

Only what is alive is ever spared: a λ at zero keeps the whole γ (`BudgetController.gamma`), or every edge
with a useful gradient would come back whenever γ rests, and the cost would swing between r₀ and the target.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

END = 0.95
"""Share of the schedule after which the target falls no more."""
NUM_BISECTIONS = 10
MAX_PATIENCE = 25
"""Refused steps in a row (of a long schedule) after which a jump is taken if it ends nearer to the target."""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """How to take the λ step."""

    gamma: float
    """Of λ above zero; those at zero have the controller's own."""
    keep_momentum: bool
    take: bool


class BudgetController:
    """Chooses γ for each λ step. State is plain numbers: `state_dict` goes into a checkpoint."""

    def __init__(
        self,
        *,
        start_ratio: float,
        num_steps: int,
        gamma: float,
        landing: float = 0.7,
        end_ratio: float = 0.25,
        tolerance: float = 0.06,
    ) -> None:
        """
        start_ratio: r₀; num_steps: λ steps of the whole schedule; gamma: where γ starts.
        landing: share of the schedule after which the target is the budget itself.
        end_ratio: r₁, at most 1; the target is there after `END` of the schedule.
        tolerance: how far (in log) the cost may fall below the target in one step.
        """
        self.start_ratio = start_ratio
        self.num_landing = max(1, round(landing * num_steps))
        self.num_end = max(self.num_landing + 1, round(END * num_steps))
        self.end_ratio = end_ratio
        self.tolerance = tolerance
        self.patience = min(MAX_PATIENCE, num_steps // 30)
        self.growth = math.log(10.0) / max(1.0, 0.15 * num_steps)
        """γ grows tenfold in 15 % of the schedule while behind."""
        self.gamma = gamma
        self.num_refused = 0

    def target(self, step: int) -> float:
        """The ratio aimed at after `step` λ steps."""
        if self.start_ratio <= 1.0:
            return self.start_ratio
        if step <= self.num_landing:
            return math.exp(math.log(self.start_ratio) * (1.0 - step / self.num_landing))
        beyond = min(1.0, (step - self.num_landing) / (self.num_end - self.num_landing))
        return math.exp(math.log(self.end_ratio) * beyond)

    def has_ended(self, ratio: float) -> bool:
        """The end of the path is reached: λ may rest."""
        return ratio <= self.end_ratio

    def decide(self, step: int, ratio: float, ratio_after: Callable[[float, bool], float | None]) -> Decision:
        """Choose how to take λ step number `step`.

        ratio: r now. ratio_after: r if the step were taken with this γ, with or without momentum; None if
        the network would collapse.
        """
        target = self.target(step)
        behind = ratio > target
        before = self.gamma
        self.gamma *= math.exp(self.growth if behind else -self.growth)
        gamma = self.gamma if behind else 0.0
        lowest = min(target, ratio) * math.exp(-self.tolerance)

        def nearer(after: float | None) -> bool:
            return after is not None and abs(math.log(after / target)) < abs(math.log(ratio / target))

        def acceptable(after: float | None) -> bool:
            return after is not None and (after >= lowest or after >= ratio)

        if acceptable(ratio_after(gamma, behind)):
            self.num_refused = 0
            return Decision(gamma=gamma, keep_momentum=behind, take=True)
        self.gamma = before  # it is large enough, or would grow for as long as steps are refused
        low, high = None, 0.0  # the largest γ found that does not go too far, and the smallest that does
        if gamma > 0 and acceptable(ratio_after(0.0, False)):
            low, high = 0.0, gamma
            for _ in range(NUM_BISECTIONS):
                middle = (low + high) / 2
                low, high = (middle, high) if acceptable(ratio_after(middle, False)) else (low, middle)
        if self.num_refused >= self.patience and nearer(ratio_after(high, False)):
            self.num_refused = 0
            return Decision(gamma=high, keep_momentum=False, take=True)
        if low is None:
            self.num_refused += 1
            return Decision(gamma=0.0, keep_momentum=False, take=False)
        took = ratio_after(low, False)
        self.num_refused = 0 if took is not None and took < ratio else self.num_refused + 1
        return Decision(gamma=low, keep_momentum=False, take=True)

    def state_dict(self) -> dict[str, Any]:
        return {"gamma": self.gamma, "num_refused": self.num_refused}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.gamma, self.num_refused = float(state["gamma"]), int(state["num_refused"])
