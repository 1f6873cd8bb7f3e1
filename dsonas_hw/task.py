"""From a configuration to what a run works on: images, search space, costs of the target, budgets."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dsonas_hw.architecture.costs import TargetCosts
from dsonas_hw.architecture.fit import check_feasible
from dsonas_hw.budget import Budget
from dsonas_hw.config import DeviceConfig, RunConfig, space_options
from dsonas_hw.cost.model import LatencyModel
from dsonas_hw.errors import ProfileError
from dsonas_hw.profile.profile_space import complete_table
from dsonas_hw.space.space import SearchSpace

if TYPE_CHECKING:
    pass

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Task:
    """What every stage of a run needs, made from its configuration."""

    config: RunConfig
    space: SearchSpace
    target: TargetCosts
    budgets: tuple[Budget, ...]


def needs_latency(config: RunConfig) -> bool:
    """Whether the search is steered by latency: a latency budget, or γ by latency."""
    steered = (
        config.search.adaptive in ("block", "operation", "marginal")
        and config.search.adaptive_cost == "latency"
    )
    return steered or any(budget.name == "latency" for budget in config.budgets)


def target_costs(
    target: DeviceConfig,
    *,
    profiles_directory: Path | None = None,
    needs_latency: bool = False,
    profile_options: str = "",
) -> TargetCosts:
    """Costs on a target; without a profile of it, latency is unknown.

    needs_latency: then a missing profile is an error.
    profile_options: of `dsonas-hw profile`, for the space in question; for messages.

    Raises:
        ProfileError: latency is needed and the device has no profile; names the command that makes one.
        DeviceError: no such device.
    """
    from dsonas_hw.profile.open import open_latency_model, resolve_target

    model: LatencyModel | None = None
    try:
        model = open_latency_model(
            resolve_target(target), profiles_directory=profiles_directory, profile_options=profile_options
        )
    except ProfileError:
        if needs_latency:
            raise
    return TargetCosts(model, batch_size=target.batch_size, precision=target.precision)


def prepare_task(
    config: RunConfig,
    space: SearchSpace,
    *,
    profiles_directory: Path | None = None,
    say: Callable[[str], None] = _log.warning,
) -> Task:
    """Costs and budgets of a run, checked before any training.

    If the run needs latencies and this machine's table lacks kernels of the space, they are measured first.

    Raises:
        BudgetError: budgets that no network of the space can meet.
        ProfileError: latency is needed and the device has no profile.
        DeviceError: no such device.
    """
    steered = needs_latency(config)
    target = target_costs(
        config.target,
        profiles_directory=profiles_directory,
        needs_latency=steered,
        profile_options=space_options(config),
    )
    if steered and target.latency_model is not None:
        model = complete_table(space, target.latency_model, say=say)
        target = TargetCosts(model, batch_size=target.batch_size, precision=target.precision)
    budgets = config.budgets
    check_feasible(space, budgets, target)
    return Task(config=config, space=space, target=target, budgets=budgets)
