"""Where λ go: a γ for every edge from what is alive and costs, its size from the budget, then APG-NAG.

γ of an edge = size · (Eq. 9 or Eq. 10 over the costs of what is alive)        `search.adaptive`
size: by the controller, so that the cost follows its target                   `search.controller`
λ ← APG-NAG with these γ (Eq. 6 to 8)                                          `search.apg_nag`
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from dsonas_hw.architecture.architecture import Architecture, Block
from dsonas_hw.architecture.costs import TargetCosts
from dsonas_hw.architecture.fit import budget_ratio
from dsonas_hw.budget import Budget
from dsonas_hw.config import SearchConfig
from dsonas_hw.search.adaptive import gamma_cost, relative_gamma
from dsonas_hw.search.apg_nag import APGNAG
from dsonas_hw.search.controller import BudgetController, Decision
from dsonas_hw.search.step import lambda_after
from dsonas_hw.search.supernet import Supernet


class Steering:
    """γ, the controller and APG-NAG of one search, and what is alive now."""

    def __init__(
        self,
        config: SearchConfig,
        supernet: Supernet,
        target: TargetCosts,
        budgets: Sequence[Budget],
        *,
        width: int,
        num_steps: int,
    ) -> None:
        """
        width: deployment width, at which costs are counted. num_steps: λ steps of the whole schedule.
        """
        self.config, self.supernet, self.target = config, supernet, target
        self.budgets, self.width = budgets, width
        self.gamma_cost = config.adaptive_cost or gamma_cost(supernet.space, budgets, target, width=width)
        """What Eq. 9 and 10 go by."""
        self.optimizer = APGNAG(
            [supernet.lam], lr=config.lam_lr, momentum=config.lam_momentum, gamma=config.gamma
        )
        self.blocks: tuple[Block, ...] = ()
        self.ratio = 0.0
        """Tightest cost / limit of what is alive; 0 without budgets."""
        self.relative_gamma = torch.ones_like(supernet.lam.detach())
        self.look()
        self.controller: BudgetController | None = None
        if config.gamma_control and budgets and self.ratio > 1.0:
            self.controller = BudgetController(
                start_ratio=self.ratio, num_steps=num_steps, gamma=config.gamma
            )

    @property
    def architecture(self) -> Architecture:
        """What is alive, at the deployment width."""
        return self.supernet.architecture(self.blocks, width=self.width)

    @property
    def gamma(self) -> float:
        """γ of an edge whose relative γ is one."""
        return self.controller.gamma if self.controller else self.config.gamma

    @property
    def has_ended(self) -> bool:
        """Whether the path is at its end: λ stay as they are, W trains on."""
        return self.controller is not None and self.controller.has_ended(self.ratio)

    def look(self) -> bool:
        """Count the cost and the γ of what is alive, if that has changed; return whether it has."""
        blocks = self.supernet.blocks_of(self.supernet.lam)
        if blocks == self.blocks:
            return False
        self.blocks = blocks
        architecture = self.architecture
        self.ratio = budget_ratio(architecture, self.budgets, self.target)
        self.relative_gamma = relative_gamma(
            architecture, self.target, adaptive=self.config.adaptive, cost=self.gamma_cost
        ).to(self.supernet.lam.device)
        return True

    def step(self, number: int) -> Decision:
        """Move λ by their gradient in `supernet.lam.grad`, as λ step `number` of the schedule."""
        decision = self._decide(number)
        lam = self.supernet.lam
        if not decision.keep_momentum:
            self.optimizer.state[lam].pop("velocity", None)
        self.optimizer.param_groups[0]["gamma"] = [self._gammas(decision.gamma)]
        self.optimizer.param_groups[0]["alive"] = [self.supernet.alive]
        if decision.take:
            self.optimizer.step()
        return decision

    def _decide(self, number: int) -> Decision:
        if self.controller is None:
            return Decision(gamma=self.config.gamma, keep_momentum=True, take=True)
        alive_now = self.supernet.lam.detach() > 0

        def ratio_after(gamma: float, keep_momentum: bool) -> float | None:
            after = lambda_after(
                self.supernet, self.optimizer, self._gammas(gamma), keep_momentum=keep_momentum
            )
            if torch.equal(after > 0, alive_now):
                return self.ratio
            blocks = self.supernet.blocks_of(after)
            if all(block.is_identity for block in blocks):
                return None
            return budget_ratio(
                self.supernet.architecture(blocks, width=self.width), self.budgets, self.target
            )

        return self.controller.decide(number, self.ratio, ratio_after)

    def _gammas(self, gamma: float) -> Tensor:
        """γ of every λ, for a global γ of those above zero."""
        at_zero = max(gamma, self.controller.gamma) if self.controller else gamma
        return self.relative_gamma * torch.where(self.supernet.lam.detach() > 0, gamma, at_zero)

    def state_dict(self) -> dict[str, Any]:
        return {
            "velocity": self.optimizer.state[self.supernet.lam].get("velocity"),
            "controller": self.controller.state_dict() if self.controller else None,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take what `state_dict` gave; the supernet has its λ already."""
        if state["velocity"] is not None:
            self.optimizer.state[self.supernet.lam]["velocity"] = state["velocity"].to(
                self.supernet.lam.device
            )
        if self.controller is not None and state["controller"] is not None:
            self.controller.load_state_dict(state["controller"])
        self.look()
