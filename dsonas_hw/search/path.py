"""The path: every distinct architecture that a search passes, with its costs and accuracy.

λ only gets sparser in trend, so one search passes through networks of falling cost, as a lasso path does.
Any budget is served from a finished search: choose the point nearest to it, and let the width close the rest.
A search with a constant γ, as the paper's, has only its last architecture to serve.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dsonas_hw.architecture.architecture import Architecture, architecture_from_json
from dsonas_hw.architecture.costs import Costs, TargetCosts
from dsonas_hw.architecture.fit import budget_ratio, fit_width
from dsonas_hw.budget import Budget
from dsonas_hw.errors import BudgetError, RunError, command_line
from dsonas_hw.run_directory import RunDirectory

WELL_FILLED = 0.95
"""A fitted network should use at least this share of its budget."""
UNUSED_WEIGHT = 20.0
"""1 % of the budget less than that counts against a point as so many % that its cost is off the budget …"""
LARGEST_DETOUR = math.log(1.5)
"""… up to this: what was searched at one width says little of a network of a quite different one."""


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


@dataclass(frozen=True, kw_only=True)
class Derived:
    """The architecture that serves the budgets best, fitted, and the point of the path that it came from."""

    architecture: Architecture
    point: PathPoint
    ratio_before_fit: float
    """Tightest cost / limit at the deployment width."""
    ratio: float
    """The same at the fitted width: at most 1."""
    costs: Costs


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


def serving_points(points: Sequence[PathPoint], *, gamma_control: bool) -> Sequence[PathPoint]:
    """Return the points that may serve a budget.

    All of them where γ was steered. With a constant γ, as in the paper, only the last architecture that the
    search reached: whatever the budget, the width alone is fitted to it.
    """
    return points if gamma_control else [p for p in points if not p.architecture.is_collapsed][-1:]


def derive_architecture(
    points: Sequence[PathPoint], budgets: Sequence[Budget], target: TargetCosts, *, shrink: float = 1.0
) -> Derived:
    """Serve budgets from a path: the point nearest to them whose fitted width uses them well.

    shrink: every limit is multiplied by it, to leave room when a measurement has shown that the costs are
    told too low. Without budgets the last point is taken as it is.

    Raises:
        BudgetError: no point of the path can meet them, even at the narrowest width.
    """
    usable = [p for p in points if not p.architecture.is_collapsed]
    if not usable:
        raise BudgetError("every architecture of this path is collapsed; search again with a smaller gamma")
    if not budgets:
        last = usable[-1]
        return Derived(
            architecture=last.architecture, point=last, ratio_before_fit=0.0, ratio=0.0, costs=last.costs
        )
    limits = [Budget(name=b.name, limit=b.limit * shrink) for b in budgets]
    best: tuple[tuple[float, float], Derived] | None = None
    for point in usable:
        fit = fit_width(point.architecture, limits, target)
        if fit is None:
            continue
        before = budget_ratio(point.architecture, limits, target)
        unused = max(0.0, WELL_FILLED - fit.ratio)
        badness = abs(math.log(before)) + min(UNUSED_WEIGHT * unused, LARGEST_DETOUR)
        key = (badness, -(point.accuracy or 0.0))
        if best is None or key < best[0]:
            derived = Derived(
                architecture=fit.architecture,
                point=point,
                ratio_before_fit=before,
                ratio=fit.ratio,
                costs=point.costs,
            )
            best = (key, derived)
    if best is None:
        wanted, narrowest = ", ".join(map(str, budgets)), usable[-1].architecture.space.widths()[0]
        nearest = min(budget_ratio(p.architecture.with_width(narrowest), limits, target) for p in usable)
        raise BudgetError(
            f"no architecture of this path meets {wanted}, even {narrowest} channels wide: the nearest takes "
            f"{nearest:.1%}; search with this budget, or longer (--set search.epochs=…)"
        )
    derived = best[1]
    return Derived(
        architecture=derived.architecture,
        point=derived.point,
        ratio_before_fit=derived.ratio_before_fit,
        ratio=derived.ratio,
        costs=target.costs(derived.architecture),
    )
