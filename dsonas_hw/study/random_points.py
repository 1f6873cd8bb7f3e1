"""Random architectures that fill a budget, as points of a path."""

from __future__ import annotations

import random

from dsonas_hw.architecture.architecture import Architecture
from dsonas_hw.architecture.sample import random_architecture
from dsonas_hw.errors import BudgetError
from dsonas_hw.search.candidates import WELL_FILLED
from dsonas_hw.search.derive import derive_architecture
from dsonas_hw.search.path import PathPoint
from dsonas_hw.task import Task

MAX_DRAWS = 10_000


def random_point(task: Task, *, seed: str, index: int, width: int | None = None) -> PathPoint:
    """Return random architecture number `index`: the first draw that fills the budget, at `width` if given.

    Raises:
        BudgetError: none of 10,000 draws does.
    """
    rng = random.Random(f"{seed}/{index}")
    for _ in range(MAX_DRAWS):
        point = point_of(random_architecture(task.space, rng), task)
        try:
            derived = derive_architecture([point], task.budgets, task.target)
        except BudgetError:
            continue
        if derived.ratio >= WELL_FILLED and width in (None, derived.architecture.width):
            return point
    at = "any width" if width is None else f"a width of {width} channels"
    raise BudgetError(
        f"none of {MAX_DRAWS} random architectures uses {WELL_FILLED:.0%} of the budget at {at}, in steps of "
        f"{task.space.width_step} channels; lower space.width_step"
    )


def point_of(architecture: Architecture, task: Task) -> PathPoint:
    """Return an architecture as the only point of a path."""
    return PathPoint(
        step=0, epoch=0, gamma=0.0, architecture=architecture, costs=task.target.costs(architecture),
        accuracy=None,
    )  # fmt: skip
