"""From a configuration to what a run works on: images, search space, costs of the target, budgets."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dsonas_hw.architecture.costs import TargetCosts
from dsonas_hw.architecture.fit import check_feasible
from dsonas_hw.budget import METRICS, Budget, Metric
from dsonas_hw.config import DeviceConfig, RunConfig, space_options
from dsonas_hw.cost.model import CostModel
from dsonas_hw.device.spec import LOCAL
from dsonas_hw.errors import ProfileError
from dsonas_hw.measure.energy import energy_unknown
from dsonas_hw.profile.profile_space import complete_table
from dsonas_hw.runtime.registry import get_runtime
from dsonas_hw.space.space import SearchSpace
from dsonas_hw.target import Target

if TYPE_CHECKING:
    from dsonas_hw.architecture.architecture import Architecture
    from dsonas_hw.train.fitted import Choice, OverBudget

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Task:
    """What every stage of a run needs, made from its configuration."""

    config: RunConfig
    space: SearchSpace
    target: TargetCosts
    budgets: tuple[Budget, ...]


def needed_metrics(config: RunConfig) -> tuple[Metric, ...]:
    """The metrics that steer a search: those of its budgets, and what γ goes by."""
    names = {budget.name for budget in config.budgets}
    if config.search.is_by_cost:
        names.add(config.search.adaptive_cost or "")
    return tuple(metric for metric in METRICS if metric in names)


def check_meter(target: Target, needs: Collection[Metric]) -> None:
    """Refuse energy of this machine's CPU where nothing meters it, before anything is measured.

    Raises:
        ProfileError: in one line.
    """
    if "energy" in needs and target.device == LOCAL and get_runtime(target.runtime).meter is None:
        raise ProfileError(energy_unknown(target))


def target_costs(
    target: DeviceConfig,
    *,
    profiles_directory: Path | None = None,
    needs: Collection[Metric] = (),
    profile_options: str = "",
) -> TargetCosts:
    """Costs on a target; without a profile of it, latency and energy are unknown.

    needs: metrics whose lack is an error.
    profile_options: of `dsonas-hw profile`, for the space in question; for messages.

    Raises:
        ProfileError: the device has no profile that tells what is needed; says what to do about it.
        DeviceError: no such device.
    """
    from dsonas_hw.profile.open import open_cost_model, resolve_target

    where = resolve_target(target)
    check_meter(where, needs)
    model: CostModel | None = None
    try:
        model = open_cost_model(where, profiles_directory=profiles_directory, profile_options=profile_options)
    except ProfileError:
        if needs:
            raise
    if model is not None and (reasons := [reason for metric in needs if (reason := model.why_not(metric))]):
        raise ProfileError(reasons[0])
    return TargetCosts(model, target=where)


def prepare_task(
    config: RunConfig,
    space: SearchSpace,
    *,
    profiles_directory: Path | None = None,
    say: Callable[[str], None] = _log.warning,
) -> Task:
    """Costs and budgets of a run, checked before any training.

    If a metric steers the run and this machine's table lacks kernels of the space, they are measured first.

    Raises:
        BudgetError: budgets that no network of the space can meet.
        ProfileError: the device has no profile that tells the metrics that are budgeted.
        DeviceError: no such device.
    """
    needs = needed_metrics(config)
    target = target_costs(
        config.target,
        profiles_directory=profiles_directory,
        needs=needs,
        profile_options=space_options(config),
    )
    if needs and target.cost_model is not None:
        model = complete_table(space, target.cost_model, say=say)
        target = TargetCosts(model)
    budgets = config.budgets
    check_feasible(space, budgets, target)
    return Task(config=config, space=space, target=target, budgets=budgets)


def fit_to_folder(config: RunConfig, *, given: Collection[str]) -> tuple[RunConfig, tuple[Choice, ...]]:
    """Return a configuration fitted to its images in folders (`train.fitted`), and what was chosen why.

    given: fields that the user has set.

    Raises:
        DataError: the dataset is none of folder:PATH, or its images cannot be used.
    """
    from dsonas_hw.train.fitted import MachineFacts, fit_to_images
    from dsonas_hw.train.images import image_facts
    from dsonas_hw.train.loop import resolve_train_device
    from dsonas_hw.train.memory import free_memory_bytes

    images = image_facts(config.data)
    device = resolve_train_device(config.train_on)
    machine = MachineFacts(
        kind="CPU" if device.type == "cpu" else "GPU", free_bytes=free_memory_bytes(device)
    )
    return fit_to_images(config, images, machine, _rough_over_budget(config), given=given)


def _rough_over_budget(config: RunConfig) -> OverBudget:
    """Cost / limit before anything is measured; latencies of this machine's CPU are a usual server's."""
    from dsonas_hw.architecture.lower import lower
    from dsonas_hw.profile.open import resolve_target
    from dsonas_hw.profile.profiler import rough_seconds

    target = config.target
    where = resolve_target(target)
    is_local = where.device == LOCAL
    costs = TargetCosts(target=where)
    if not is_local and (needs := needed_metrics(config)):
        costs = target_costs(target, needs=needs)

    def over_budget(architecture: Architecture) -> float:
        ratio = 0.0
        for budget in config.budgets:
            if is_local and budget.name == "latency":
                kernels = lower(architecture)
                flops = sum(kernel.flops for kernel in kernels) * target.batch_size / target.threads
                cost: float | None = 1000 * rough_seconds(flops, len(kernels))
            else:
                cost = costs.cost(architecture, budget.quantity)
            ratio = max(ratio, (cost or 0.0) / budget.limit)
        return ratio

    return over_budget
