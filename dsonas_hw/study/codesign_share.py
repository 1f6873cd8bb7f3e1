"""Sharing candidates between the devices of a co-design study: each is evaluated once, by a brief training.

    paths of all searches of a seed ─▶ slate per device × budget ─▶ distinct networks ─▶ accuracy of each
                                                                                             │
    derivation of a device × budget: the most accurate of all that hold there  ◀─────────────┘

So what was found for one device serves another where it is the better one there.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dsonas_hw.architecture.architecture import Architecture, architecture_from_json
from dsonas_hw.architecture.fit import budget_ratio
from dsonas_hw.config import RunConfig
from dsonas_hw.errors import BudgetError, UserError
from dsonas_hw.files import read_json
from dsonas_hw.run_directory import RunDirectory
from dsonas_hw.search.choose import points_of
from dsonas_hw.search.derive import Derived
from dsonas_hw.search.path import PathPoint, path_point_from_json
from dsonas_hw.search.slate import choose_slate
from dsonas_hw.task import Task, prepare_task
from dsonas_hw.train.identity import architecture_hash
from dsonas_hw.train.images import load_data, space_of_config


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """A candidate and what its brief training said."""

    point: PathPoint
    architecture: Architecture
    accuracy: float
    """On the images of λ."""


def candidates_of(
    searches: Sequence[RunDirectory], config: RunConfig, devices: Sequence[str], budgets: Sequence[str]
) -> dict[str, tuple[PathPoint, Architecture]]:
    """Return the distinct networks on the slates of all devices and budgets, by hash, from all paths.

    config: of the study, but for device and budget. A device and a budget that no network fits have none.
    """
    found: dict[str, tuple[PathPoint, Architecture]] = {}
    for device, budget in itertools.product(devices, budgets):
        target = config.target.model_copy(update={"device": device})
        try:
            task = prepare_task(
                config.model_copy(update={"target": target, "budget": (budget,)}), space_of_config(config)
            )
            points = [point for search in searches for point in points_of(search, task)]
            slate = choose_slate(points, task.budgets, task.target, number=config.select.candidates)
        except BudgetError:
            continue
        for entry in slate:
            network = entry.candidate.architecture
            found.setdefault(architecture_hash(network), (entry.candidate.point, network))
    return found


def evaluate_candidates(
    run: RunDirectory,
    searches: Sequence[RunDirectory],
    config: RunConfig,
    *,
    devices: Sequence[str],
    budgets: Sequence[str],
) -> dict[str, Any]:
    """Train every candidate briefly, once; goes on from what selection.jsonl of the run holds.

    Raises:
        Interrupted: by a signal, resumable.
    """
    from dsonas_hw.search.brief_training import BriefTraining
    from dsonas_hw.search.halving import unhalved_epochs
    from dsonas_hw.search.selection import LOG_NAME, selection_rows
    from dsonas_hw.train.loop import Interrupted, StopSignal, resolve_train_device
    from dsonas_hw.train.trainer import StoppedError

    candidates = candidates_of(searches, config, devices, budgets)
    epochs = unhalved_epochs(config.select)  # no halving over devices
    known = {row["network"]: float(row["accuracy"]) for row in selection_rows(run, "score")}
    training = BriefTraining(
        run, config, load_data(config), epochs=epochs, device=resolve_train_device(config.train_on)
    )
    with StopSignal() as stop:
        for index, (name, (_, architecture)) in enumerate(candidates.items()):
            if name in known:
                continue
            try:
                known[name] = training.score(index, architecture, epochs, stop=stop)
            except StoppedError:
                raise Interrupted("the study was interrupted; start it again to go on") from None
            run.log(LOG_NAME, {"kind": "score", "network": name, "accuracy": known[name]})
    training.forget()
    return {
        "candidates": [
            {"architecture": architecture.to_json(), "point": point.to_json(), "accuracy": known[name]}
            for name, (point, architecture) in candidates.items()
        ]
    }


def load_evaluated(path: Path) -> list[Evaluated]:
    """Read the result of an evaluation, best first.

    Raises:
        UserError: damaged.
    """
    raw = read_json(path)
    try:
        found = [
            Evaluated(
                point=path_point_from_json(row["point"], row["architecture"]["space"], origin=str(path)),
                architecture=architecture_from_json(row["architecture"], origin=str(path)),
                accuracy=float(row["accuracy"]),
            )
            for row in raw["candidates"]
        ]
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{path} is damaged; remove its directory") from None
    return sorted(found, key=lambda one: -one.accuracy)


def best_of(evaluated: Sequence[Evaluated], task: Task) -> Derived:
    """Return the most accurate network that holds a device's budgets; by a verdict where the device is here.

    Raises:
        BudgetError: none holds.
    """
    from dsonas_hw.deploy.select_measured import measured_use

    use = measured_use(task)
    for one in evaluated:
        ratio = budget_ratio(one.architecture, task.budgets, task.target)
        if ratio <= 1.0 and (use.verdict(one.architecture) or 0.0) <= 1.0:
            return Derived(
                architecture=one.architecture,
                point=one.point,
                ratio_before_fit=budget_ratio(one.point.architecture, task.budgets, task.target),
                ratio=ratio,
                costs=task.target.costs(one.architecture),
            )
    raise BudgetError(
        f"none of the {len(evaluated)} candidates of this study holds {', '.join(map(str, task.budgets))} on "
        f"{task.config.target.device}; allow more"
    )
