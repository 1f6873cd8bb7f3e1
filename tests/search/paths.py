"""Paths as a search leaves them, drawn at random."""

from __future__ import annotations

import random

from dsonas_hw.architecture.architecture import Architecture, complete_architecture
from dsonas_hw.architecture.costs import TargetCosts
from dsonas_hw.architecture.sample import random_architecture
from dsonas_hw.search.path import PathPoint
from dsonas_hw.space.space import SearchSpace

SPACE = SearchSpace(levels=2, stages=(1, 1), channels=16, input_shape=(3, 8, 8), share=False)
SPACE_JSON = complete_architecture(SPACE).to_json()["space"]
TARGET = TargetCosts()


def point(architecture: Architecture, step: int = 0, accuracy: float | None = None) -> PathPoint:
    return PathPoint(
        step=step, epoch=step // 10, gamma=0.01 * step, architecture=architecture,
        costs=TARGET.costs(architecture), accuracy=accuracy,
    )  # fmt: skip


def falling_path() -> list[PathPoint]:
    """From the complete network down, as a search passes them."""
    drawn = [complete_architecture(SPACE)]
    drawn += [random_architecture(SPACE, random.Random(seed)) for seed in range(20)]
    drawn.sort(key=lambda a: -TARGET.costs(a).mac)
    return [point(a, step, 0.5 + 0.01 * step if step % 2 else None) for step, a in enumerate(drawn)]
