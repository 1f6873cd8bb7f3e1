"""Successive halving: who goes on, what it costs, and that a stopped one ends as if it had not been."""

from __future__ import annotations

import random
from typing import Any

import pytest

from dsonas_hw.config import build_config, load_preset, overlay, preset_names
from dsonas_hw.search.halving import halve, plan_rounds, selection_effort


def test_the_rounds_halve_the_networks_and_double_the_epochs() -> None:
    rounds = plan_rounds(8, 1)
    assert [(r.num_networks, r.epochs, r.new_epochs) for r in rounds] == [(8, 1, 1), (4, 2, 1), (2, 4, 2)]
    assert [r.num_networks for r in plan_rounds(5, 3)] == [5, 3, 2]
    assert plan_rounds(1, 1) == ()


class Trainings:
    """Networks that score what they are worth, nearer and nearer with the epochs."""

    def __init__(self, number: int, seed: int = 0) -> None:
        self.worth = random.Random(seed).sample(range(100), number)
        self.epochs = dict.fromkeys(range(number), 0)
        self.rows: list[dict[str, Any]] = []

    def score(self, index: int, epochs: int) -> float:
        self.epochs[index] = epochs
        return self.worth[index] / 100 * (1 - 0.5**epochs)


@pytest.mark.parametrize("number", [1, 2, 3, 5, 8, 13])
def test_the_best_is_left_and_the_effort_is_as_planned(number: int) -> None:
    trainings = Trainings(number)
    order = halve(number, 1, trainings.score)
    assert sorted(order) == list(range(number))
    assert order[0] == max(range(number), key=lambda i: trainings.worth[i])
    planned = sum(r.num_networks * r.new_epochs for r in plan_rounds(number, 1))
    assert sum(trainings.epochs.values()) == planned


def test_a_finalist_that_does_not_hold_gives_its_place_to_the_next() -> None:
    trainings = Trainings(8)
    ranked = sorted(range(8), key=lambda i: -trainings.worth[i])
    refused = set(ranked[:2])
    asked: list[int] = []

    def holds(index: int) -> bool:
        asked.append(index)
        return index not in refused

    order = halve(8, 1, trainings.score, holds=holds)
    assert order[0] == ranked[2]
    assert not refused & set(order)
    assert len(asked) == len(set(asked)) == 4
    assert halve(8, 1, trainings.score, holds=lambda index: False) == []
    assert halve(1, 1, trainings.score, holds=lambda index: False) == []


@pytest.mark.parametrize("stopped_after", range(15))
def test_what_was_scored_is_not_scored_again(stopped_after: int) -> None:
    whole, rows = Trainings(8), []
    order = halve(8, 1, whole.score, on_score=rows.append)
    again, more = Trainings(8), list(rows[:stopped_after])
    assert halve(8, 1, again.score, known=rows[:stopped_after], on_score=more.append) == order
    assert more == rows


@pytest.mark.parametrize("preset", preset_names())
def test_the_selection_of_every_preset_is_small_against_its_retraining(preset: str) -> None:
    config = build_config(load_preset(preset))
    effort = selection_effort(config)
    assert effort <= (1.0 if config.retrain.epochs < 100 else 0.1)
    if preset in ("cifar10", "cifar10-full", "imagenet", "release"):
        assert config.select.candidates == 0 == effort  # as the paper: one network, by its width


def test_the_effort_counts_images() -> None:
    changes = {"select": {"candidates": 8, "epochs": 3}, "retrain": {"epochs": 12}}
    config = build_config(overlay(load_preset("digits"), changes))
    assert selection_effort(config) == 3 * (8 + 4 + 2 * 2) / 2 / 12
