"""Random architectures of random search spaces: what a profile, a search or a user could ask for."""

from __future__ import annotations

import random

from dsonas_hw.architecture.architecture import Architecture
from dsonas_hw.architecture.sample import random_architecture
from dsonas_hw.space.operations import OPERATIONS
from dsonas_hw.space.space import STEMS, SearchSpace

WIDTHS = range(2, 65, 2)
STAGES = ((1,), (2,), (1, 1), (2, 1), (1, 2), (2, 2), (1, 1, 1))
SIDES = (8, 9, 12, 13, 16)
PAPER = SearchSpace().operations


def draw_architecture(index: int) -> tuple[Architecture, int]:
    """An architecture and a batch size; every stem, width and operation has its turn."""
    rng = random.Random(f"architecture {index}")
    stem = STEMS[index % len(STEMS)]
    every, some = tuple(OPERATIONS), tuple(rng.sample(list(OPERATIONS), rng.randint(1, 4)))
    operations = (PAPER, some, every)[index % 3]
    side = rng.choice(SIDES) * (2 if stem == "imagenet" else 1)
    space = SearchSpace(
        levels=rng.randint(1, 2 if operations == every else 4),
        operations=operations,
        stages=rng.choice(STAGES),
        channels=8,
        stem=stem,
        input_shape=(rng.choice((1, 2, 3)), side, side + rng.choice((0, 3))),
        num_classes=rng.choice((2, 10, 37)),
        share=rng.random() < 0.5,
        stage_shortcut=rng.random() < 0.3,
        width_step=2,
        max_width=WIDTHS[-1],
    )
    width = WIDTHS[index // 6 % len(WIDTHS)]
    return random_architecture(space, rng, width=width), rng.choice((1, 1, 2, 3))
