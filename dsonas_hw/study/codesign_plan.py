"""Planning a co-design study: whatever would fail later is refused before anything runs."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from dsonas_hw.config import DeviceConfig, build_config, overlay
from dsonas_hw.device.cpu import local_cpu
from dsonas_hw.device.spec import LOCAL, load_device
from dsonas_hw.errors import BudgetError, DeviceError, UserError
from dsonas_hw.study.check import check_limits
from dsonas_hw.study.codesign import Codesign, Pair, StudyDevice
from dsonas_hw.task import prepare_task
from dsonas_hw.train.images import space_of_config

MAX_PAIRS = 1000


def plan_codesign(
    devices: Sequence[str],
    budgets: Sequence[str],
    config: dict[str, Any],
    *,
    seeds: Sequence[int] = (0,),
    search_per_budget: bool = False,
    skip_infeasible: bool = False,
) -> Codesign:
    """Check everything that would fail later.

    devices: names or aliases. budgets: as `budget_levels` makes them. config: a preset overlaid by options.
    skip_infeasible: leave out devices × budgets that no network, or every network, of the space serves.

    Raises:
        DeviceError: an unknown device, or one named twice.
        BudgetError: a budget that does not fit a device's networks; says what would.
        ProfileError: a device that needs a profile has none.
    """
    if len(devices) * len(budgets) > MAX_PAIRS:
        raise UserError(f"{len(devices)} devices × {len(budgets)} budgets are more than {MAX_PAIRS} networks")
    base = overlay(config, {"budget": []})
    found = _look_up(devices, base)
    space = space_of_config(build_config(base))
    skipped: list[Pair] = []
    reasons: dict[str, str] = {}
    for device, budget in itertools.product(found, budgets):
        run = build_config(overlay(base, {"target": {"device": device.name}, "budget": [budget]}))
        try:
            check_limits(prepare_task(run, space))
        except BudgetError as error:
            skipped.append(Pair(device=device.name, budget=budget))
            reasons.setdefault(device.name, str(error))
    if skipped and not skip_infeasible:
        words = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
        raise BudgetError(f"{words}. Change the budgets, or leave such pairs out with --skip-infeasible")
    if len(skipped) == len(found) * len(budgets):
        raise BudgetError(f"no budget fits any device: {next(iter(reasons.values()))}")
    return Codesign(
        devices=found, budgets=tuple(budgets), seeds=tuple(seeds), search_per_budget=search_per_budget,
        config=base, skipped=tuple(skipped),
    )  # fmt: skip


def device_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return the devices' own names, for any of their names.

    Raises:
        DeviceError: an unknown device (names the close ones), or one named twice.
    """
    from dsonas_hw.profile.open import resolve

    found = [resolve(name, None)[0] for name in names]
    if twice := [name for name in found if found.count(name) > 1]:
        raise DeviceError(f"device {twice[0]} is listed twice in --devices")
    return tuple(found)


def _look_up(names: Sequence[str], config: dict[str, Any]) -> tuple[StudyDevice, ...]:
    from dsonas_hw.profile.open import open_cost_model, resolve_target

    devices = []
    for name in device_names(names):
        target = DeviceConfig(**{**config.get("target", {}), "device": name})
        model = open_cost_model(resolve_target(target))
        table = getattr(model, "table", None)
        errors = [check.error.mape for check in table.checks.values()] if table is not None else []
        devices.append(
            StudyDevice(
                name=name,
                title=local_cpu().title if name == LOCAL else load_device(name).title,
                runtime=model.target.runtime,
                source=model.source,
                is_here=_is_here(target),
                mean_error=sum(errors) / len(errors) if errors else None,
            )
        )
    return tuple(devices)


def _is_here(target: Any) -> bool:
    """Whether networks can be measured on it now."""
    from dsonas_hw.deploy.measure import find_target

    try:
        return find_target(target) is not None
    except DeviceError:
        return False
