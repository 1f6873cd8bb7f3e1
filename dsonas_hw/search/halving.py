"""Successive halving: candidates are trained briefly, and the better half of them twice as long. Pure.

round     networks   epochs in all
  1          n          e
  2         n/2        2·e
  3         n/4        4·e
  …
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dsonas_hw.config import RunConfig, SelectConfig


@dataclass(frozen=True, kw_only=True)
class Round:
    """One round of a halving."""

    num_networks: int
    epochs: int
    """That each has been trained for at its end."""
    new_epochs: int
    """That each is trained for in it."""


def plan_rounds(num_networks: int, epochs: int) -> tuple[Round, ...]:
    """Return the rounds until one network is left; none if there is but one.

    epochs: of the first round.
    """
    rounds: list[Round] = []
    done = 0
    while num_networks > 1:
        rounds.append(Round(num_networks=num_networks, epochs=epochs, new_epochs=epochs - done))
        num_networks, done, epochs = math.ceil(num_networks / 2), epochs, 2 * epochs
    return tuple(rounds)


def selection_epochs(select: SelectConfig) -> int:
    """Return the epochs of all brief trainings of a selection together, over the images of W."""
    return sum(r.num_networks * r.new_epochs for r in plan_rounds(select.candidates, select.epochs))


def unhalved_epochs(select: SelectConfig) -> int:
    """Return the epochs of a network where all are trained for equally long: those of two rounds."""
    return 2 * select.epochs


def selection_effort(config: RunConfig) -> float:
    """Return the images that the brief trainings see, over those that the retraining sees."""
    w, lam = config.data.split_ratio
    return selection_epochs(config.select) * w / (w + lam) / config.retrain.epochs


Score = Callable[[int, int], float]
"""(index of a network, epochs in all) → its accuracy."""


def halve(
    num_networks: int,
    epochs: int,
    score: Score,
    *,
    holds: Callable[[int], bool] = lambda index: True,
    on_score: Callable[[Mapping[str, Any]], None] = lambda row: None,
    known: Sequence[Mapping[str, Any]] = (),
) -> list[int]:
    """Return the networks' indices from the best to the worst: by the round reached, then by accuracy.

    holds: asked of the finalists before the last round, and of who takes the place of one that does not;
        those are never among the result.
    known: rows of `on_score` that were logged before; these networks are not scored again.
    """
    scores = {(row["round"], row["index"]): float(row["accuracy"]) for row in known}
    standing = list(range(num_networks))
    rounds = plan_rounds(num_networks, epochs)
    if not rounds:
        return [index for index in standing if holds(index)]
    for number, part in enumerate(rounds, start=1):
        if number == len(rounds):
            standing = _with_finalists(standing, part.num_networks, holds)
        going_on, rest = standing[: part.num_networks], standing[part.num_networks :]
        for index in going_on:
            if (number, index) not in scores:
                accuracy = score(index, part.epochs)
                scores[number, index] = accuracy
                on_score({"round": number, "index": index, "epochs": part.epochs, "accuracy": accuracy})
        by_score = sorted((-scores[number, index], place) for place, index in enumerate(going_on))
        standing = [going_on[place] for _, place in by_score] + rest
    return standing


def _with_finalists(standing: Sequence[int], number: int, holds: Callable[[int], bool]) -> list[int]:
    """The same without those before the last finalist that do not hold."""
    held: list[int] = []
    for place, index in enumerate(standing):
        if len(held) == number:
            return held + list(standing[place:])
        if holds(index):
            held.append(index)
    return held
