"""The path: every distinct architecture that a search passes, with its costs and accuracy.

λ only gets sparser in trend, so one search passes through networks of falling cost, as a lasso path does.
Any budget is served from a finished search: see `candidates`, `derive` and `selection`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dsonas_hw.architecture.architecture import Architecture, architecture_from_json
from dsonas_hw.architecture.costs import Costs
from dsonas_hw.errors import RunError, command_line
from dsonas_hw.run_directory import RunDirectory


@dataclass(frozen=True, kw_only=True)
class PathPoint:
    """One architecture of the path, at the deployment width."""

    step: int
    """λ steps taken when the search reached it."""
    epoch: int
    gamma: float
    architecture: Architecture
    costs: Costs
    accuracy: float | None
    """On images of the λ part, shared weights, batch norm over the batch; None: not scored."""

    def to_json(self) -> dict[str, Any]:
        """A line of path.jsonl; the space is in the run's config.yaml."""
        data = self.architecture.to_json()
        return {
            "step": self.step,
            "epoch": self.epoch,
            "gamma": self.gamma,
            "width": data["width"],
            "accuracy": self.accuracy,
            "costs": self.costs.to_dict(),
            "blocks": data["blocks"],
        }


def path_point_from_json(row: Mapping[str, Any], space_json: Mapping[str, Any], *, origin: str) -> PathPoint:
    """Read a line of path.jsonl.

    space_json: the `space` of `Architecture.to_json`.

    Raises:
        UserError: not such a line.
    """
    try:
        data = {"schema": 1, "width": row["width"], "space": space_json, "blocks": row["blocks"]}
        return PathPoint(
            step=int(row["step"]),
            epoch=int(row["epoch"]),
            gamma=float(row["gamma"]),
            architecture=architecture_from_json(data, origin=origin),
            costs=Costs(**row["costs"]),
            accuracy=None if row["accuracy"] is None else float(row["accuracy"]),
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise RunError(f"{origin} is not a line of a search path: {error}") from None


def load_path(run: RunDirectory, space_json: Mapping[str, Any]) -> list[PathPoint]:
    """Every point of a run's path.

    Raises:
        RunError: no search has been run here.
    """
    from dsonas_hw.files import read_json_lines

    path = run.log_path("path.jsonl")
    rows = read_json_lines(path)
    if not rows:
        raise RunError(f"{run.path} holds no search yet; run: {command_line('search', '--resume', run.path)}")
    return [path_point_from_json(r, space_json, origin=f"{path}, line {i}") for i, r in enumerate(rows, 1)]
