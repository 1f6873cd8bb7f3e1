"""Reading a run directory for a report: whatever is there, and in words what is not.

The files may come from anyone, and the run may have stopped anywhere: a missing or damaged part becomes a
line of `notes`, never an exception. Only a directory without a readable configuration is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dsonas_hw.architecture.architecture import Architecture, Block, architecture_from_json
from dsonas_hw.budget import QUANTITIES, Budget
from dsonas_hw.config import RunConfig, load_config_file
from dsonas_hw.errors import UserError
from dsonas_hw.files import read_json, read_json_lines
from dsonas_hw.report.numbers import COST_LABELS, finite
from dsonas_hw.report.run_data import (
    BudgetResult,
    Derivation,
    EpochRow,
    LambdaRow,
    PathPoint,
    RunData,
    Validation,
)
from dsonas_hw.run_directory import RunDirectory
from dsonas_hw.space.space import SearchSpace

MAX_TEXT = 500


def load_run_data(run: RunDirectory) -> RunData:
    """Read a run.

    Raises:
        UserError: not a run directory, or a damaged configuration.
    """
    config = run.load_config()
    raw = load_config_file(run.config_path)
    versions = raw.get("versions")
    notes: list[str] = []
    architecture = _architecture(run.architecture_path, notes)
    space = architecture.space if architecture else _space(config, notes)
    return RunData(
        name=run.path.resolve().name,
        config=config,
        versions={_text(k): _text(v) for k, v in versions.items()} if isinstance(versions, dict) else {},
        config_text=run.config_path.read_text(encoding="utf-8"),
        space=space,
        architecture=architecture,
        derivation=_derivation(run.architecture_path, notes) if architecture else None,
        path=_path(run.log_path("path.jsonl"), space, notes),
        lam=_lambda(run.log_path("lambda.jsonl"), space, notes),
        epochs=_epochs(run.log_path("metrics.jsonl"), notes),
        validation=_validation(run.validation_path, notes),
        notes=tuple(notes),
    )


def _architecture(path: Path, notes: list[str]) -> Architecture | None:
    if not path.exists():
        notes.append("No architecture has been derived yet (there is no architecture.json).")
        return None
    try:
        return architecture_from_json(read_json(path), origin=path.name)
    except UserError as error:
        notes.append(f"The architecture cannot be read: {error}.")
        return None


def _derivation(path: Path, notes: list[str]) -> Derivation | None:
    try:
        raw = read_json(path).get("derived")
        if raw is None:
            return None
        step = finite(raw.get("step"))
        return Derivation(
            budgets=tuple(Budget(name=_budget_name(k), limit=_required(v)) for k, v in raw["limits"].items()),
            step=None if step is None else int(step),
            predicted=_costs(raw["predicted"]),
        )
    except (UserError, KeyError, TypeError, ValueError, AttributeError) as error:
        notes.append(f"How the architecture was derived cannot be read: {error}.")
        return None


def _space(config: RunConfig, notes: list[str]) -> SearchSpace | None:
    """The space as configured; image size and classes do not matter for drawing blocks."""
    sizes = config.space.model_dump()
    try:
        return SearchSpace(**sizes, input_shape=(3, 1024, 1024))
    except (UserError, TypeError) as error:
        notes.append(f"The search space cannot be rebuilt from the configuration: {error}.")
        return None


def _rows(path: Path, notes: list[str]) -> list[dict[str, Any]]:
    try:
        rows = read_json_lines(path)
    except UserError as error:
        notes.append(f"{error}.")
        return []
    if not rows:
        notes.append(f"{_WHAT[path.name]} (there is no {path.name}).")
    return rows


_WHAT = {
    "path.jsonl": "The search has not recorded any architecture yet",
    "lambda.jsonl": "The search has not recorded λ yet",
    "metrics.jsonl": "Nothing has been trained yet",
}


def _path(path: Path, space: SearchSpace | None, notes: list[str]) -> tuple[PathPoint, ...]:
    rows = _rows(path, notes)
    if space is None:
        return ()
    space_json = Architecture(
        space=space, blocks=(Block(inputs=(), output=()),) * space.num_blocks, width=1
    ).to_json()["space"]
    points, num_bad = [], 0
    for row in rows:
        try:
            points.append(_path_point(row, space_json))
        except (UserError, KeyError, TypeError, ValueError, AttributeError):
            num_bad += 1
    if num_bad:
        notes.append(f"{num_bad} lines of path.jsonl are not architectures of this space and are left out.")
    return tuple(points)


def _path_point(row: Mapping[str, Any], space_json: Mapping[str, Any]) -> PathPoint:
    data = {"schema": 1, "width": row["width"], "space": space_json, "blocks": row["blocks"]}
    return PathPoint(
        step=int(row["step"]),
        epoch=int(row["epoch"]),
        gamma=finite(row.get("gamma")),
        width=int(row["width"]),
        accuracy=_share(row.get("accuracy")),
        costs=_costs(row["costs"]),
        blocks=architecture_from_json(data).blocks,
    )


def _lambda(path: Path, space: SearchSpace | None, notes: list[str]) -> tuple[LambdaRow, ...]:
    found, num_bad = [], 0
    for row in _rows(path, notes):
        sets = row.get("lam")
        try:
            if not isinstance(sets, list) or (space and len(sets) != space.num_lambda_sets):
                raise ValueError("other λ sets")
            lam = tuple(tuple(_required(value) for value in values) for values in sets)
            if space and any(len(values) != len(space.edges) for values in lam):
                raise ValueError("other edges")
            found.append(LambdaRow(step=int(row["step"]), lam=lam))
        except (KeyError, TypeError, ValueError):
            num_bad += 1
    if num_bad:
        notes.append(f"{num_bad} lines of lambda.jsonl do not fit the search space and are left out.")
    return tuple(found)


def _costs(raw: Mapping[str, Any]) -> dict[str, float]:
    return {name: value for name in COST_LABELS if (value := finite(raw.get(name))) is not None}


def _budget_name(value: object) -> str:
    name = _text(value)
    if name not in QUANTITIES:
        raise ValueError(f"unknown budget {name!r}")
    return name


def _required(value: object) -> float:
    number = finite(value)
    if number is None:
        raise ValueError("not a number")
    return number


def _epochs(path: Path, notes: list[str]) -> tuple[EpochRow, ...]:
    found = []
    for row in _rows(path, notes):
        epoch = finite(row.get("epoch"))
        if epoch is None or row.get("stage") not in ("pretrain", "search", "retrain"):
            continue
        values = {_text(k): number for k, v in row.items() if (number := finite(v)) is not None}
        found.append(EpochRow(stage=row["stage"], epoch=int(epoch), values=values))
    if found and not any(row.stage == "retrain" for row in found):
        notes.append("The network has not been retrained yet.")
    return tuple(found)


def _validation(path: Path, notes: list[str]) -> Validation | None:
    if not path.exists():
        notes.append("The network has not been validated yet (there is no validation.json).")
        return None
    try:
        data = read_json(path)
        if not isinstance(data, dict):
            raise UserError(f"{path.name} is not an object")
        budgets = [_budget(row) for row in data.get("budgets", [])]
        return Validation(
            holds=data["holds"] is True,
            budgets=tuple(budgets),
            device=_text(data.get("device", "")),
            runtime=_text(data.get("runtime", "")),
            source=_text(data.get("source", "estimated")),
            max_abs_output_error=finite(data.get("max_abs_output_error")),
            raw=data,
        )
    except (UserError, KeyError, TypeError, ValueError, AttributeError) as error:
        notes.append(f"The validation cannot be read: {error}.")
        return None


def _budget(row: Mapping[str, Any]) -> BudgetResult:
    holds = row.get("holds")
    return BudgetResult(
        name=_budget_name(row["name"]),
        limit=_required(row["limit"]),
        predicted=finite(row.get("predicted")),
        measured=finite(row.get("measured")),
        holds=holds if isinstance(holds, bool) else None,
    )


def _share(value: object) -> float | None:
    number = finite(value)
    return number if number is not None and 0 <= number <= 1 else None


def _text(value: object) -> str:
    return str(value)[:MAX_TEXT]
