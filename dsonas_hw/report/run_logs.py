"""The logs of a run, read for a report: path.jsonl, lambda.jsonl, metrics.jsonl.

A line that does not fit is left out and counted in `notes`; see `run_load`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dsonas_hw.architecture.architecture import Architecture, Block, architecture_from_json
from dsonas_hw.report.fields import read_each, read_log, text
from dsonas_hw.report.numbers import finite
from dsonas_hw.report.run_data import EpochRow, LambdaRow, PathPoint
from dsonas_hw.space.space import SearchSpace


def load_path(path: Path, space: SearchSpace | None, notes: list[str]) -> tuple[PathPoint, ...]:
    """Every architecture that the search passed."""
    rows = read_log(path, notes, without="No architecture that a search passed is recorded here")
    if space is None:
        return ()
    empty = Architecture(space=space, blocks=(Block(inputs=(), output=()),) * space.num_blocks, width=1)
    frame = {"schema": 1, "space": empty.to_json()["space"]}

    def read(row: dict[str, Any]) -> PathPoint:
        found = architecture_from_json({**frame, "width": row["width"], "blocks": row["blocks"]})
        return PathPoint.model_validate({**row, "blocks": found.blocks})

    return read_each(rows, read, notes, "lines of path.jsonl are not architectures of this space")


def load_lambda(path: Path, space: SearchSpace | None, notes: list[str]) -> tuple[LambdaRow, ...]:
    """λ, epoch by epoch."""

    def read(row: dict[str, Any]) -> LambdaRow:
        found = LambdaRow.model_validate(row)
        if space and [len(values) for values in found.lam] != [len(space.edges)] * space.num_lambda_sets:
            raise ValueError("other edges")
        return found

    return read_each(
        read_log(path, notes, without="No λ is recorded here"),
        read,
        notes,
        "lines of lambda.jsonl do not fit the search space",
    )


def load_epochs(path: Path, notes: list[str]) -> tuple[EpochRow, ...]:
    """The epochs of every stage; of a stage that was done again, those of the last time."""
    stages: dict[str, list[EpochRow]] = {"pretrain": [], "search": [], "retrain": []}
    for row in read_log(path, notes, without="No training is recorded here"):
        epoch, stage = finite(row.get("epoch")), row.get("stage")
        if epoch is None or not isinstance(stage, str) or stage not in stages:
            continue
        rows = stages[stage]
        if rows and int(epoch) <= rows[-1].epoch:
            rows.clear()
        values = {key.removeprefix("train_"): value for key, value in row.items()}
        rows.append(EpochRow(stage=stage, epoch=int(epoch), values=values))
    return tuple(row for rows in stages.values() for row in rows)


def load_gamma_cost(path: Path) -> str:
    """What γ went by in the search; empty where no line tells."""
    rows = [row for row in read_log(path, []) if row.get("stage") == "search"]
    return text(rows[-1].get("gamma_cost")) if rows else ""
