"""The logs of a run, read for a report: path.jsonl, lambda.jsonl, metrics.jsonl.

A line that does not fit is left out and counted in `notes`; see `run_load`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dsonas_hw.architecture.architecture import Architecture, Block, architecture_from_json
from dsonas_hw.errors import UserError
from dsonas_hw.files import read_json_lines
from dsonas_hw.report.fields import costs, required, share, text
from dsonas_hw.report.numbers import finite
from dsonas_hw.report.run_data import EpochRow, LambdaRow, PathPoint
from dsonas_hw.space.space import SearchSpace


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
    "path.jsonl": "No architecture that a search passed is recorded here",
    "lambda.jsonl": "No λ is recorded here",
    "metrics.jsonl": "No training is recorded here",
}


def load_path(path: Path, space: SearchSpace | None, notes: list[str]) -> tuple[PathPoint, ...]:
    """Every architecture that the search passed."""
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
        except (UserError, KeyError, TypeError, ValueError, AttributeError, OverflowError):
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
        accuracy=share(row.get("accuracy")),
        costs=costs(row["costs"]),
        blocks=architecture_from_json(data).blocks,
    )


def load_lambda(path: Path, space: SearchSpace | None, notes: list[str]) -> tuple[LambdaRow, ...]:
    """λ, epoch by epoch."""
    found, num_bad = [], 0
    for row in _rows(path, notes):
        sets = row.get("lam")
        try:
            if not isinstance(sets, list) or (space and len(sets) != space.num_lambda_sets):
                raise ValueError("other λ sets")
            lam = tuple(tuple(required(value) for value in values) for values in sets)
            if space and any(len(values) != len(space.edges) for values in lam):
                raise ValueError("other edges")
            found.append(LambdaRow(step=int(row["step"]), lam=lam))
        except (KeyError, TypeError, ValueError, OverflowError):
            num_bad += 1
    if num_bad:
        notes.append(f"{num_bad} lines of lambda.jsonl do not fit the search space and are left out.")
    return tuple(found)


def load_epochs(path: Path, notes: list[str]) -> tuple[EpochRow, ...]:
    """The epochs of every stage; of a stage that was done again, those of the last time."""
    stages: dict[str, list[EpochRow]] = {"pretrain": [], "search": [], "retrain": []}
    for row in _rows(path, notes):
        epoch, stage = finite(row.get("epoch")), row.get("stage")
        if epoch is None or not isinstance(stage, str) or stage not in stages:
            continue
        rows = stages[stage]
        if rows and int(epoch) <= rows[-1].epoch:
            rows.clear()
        values = {
            text(k).removeprefix("train_"): number
            for k, v in row.items()
            if (number := finite(v)) is not None
        }
        rows.append(EpochRow(stage=stage, epoch=int(epoch), values=values))
    return tuple(row for rows in stages.values() for row in rows)


def load_gamma_cost(path: Path) -> str:
    """What γ went by in the search; empty where no line tells."""
    try:
        rows = read_json_lines(path) if path.exists() else []
    except UserError:
        return ""
    found = [row.get("gamma_cost") for row in rows if row.get("stage") == "search"]
    return text(found[-1] or "") if found else ""
