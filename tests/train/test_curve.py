"""A training that was too short is told from one that had levelled off."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dsonas_hw.run_directory import RunDirectory
from dsonas_hw.train.curve import guessing_accuracy, rise_at_end
from dsonas_hw.train.retrain import RetrainResult

RISING = [0.30, 0.34, 0.38, 0.42, 0.46, 0.50, 0.54, 0.58]


def test_the_rise_is_that_of_the_last_fifth_over_the_fifth_before() -> None:
    assert rise_at_end(RISING, RISING) == pytest.approx(0.08)  # (0.54 + 0.58 − 0.46 − 0.50) / 2
    assert rise_at_end([0.01 * n for n in range(60)], [None] * 60) == pytest.approx(0.12)  # 12 epochs of 60


@pytest.mark.parametrize(
    "accuracies",
    [
        [],
        [0.3, 0.5, 0.7],  # too few to compare
        [*RISING, *[0.6] * 10],  # level
        [*RISING, 0.8, 0.9, 0.995],  # all that can be had
        RISING[::-1],
    ],
)
def test_no_rise(accuracies: list[float]) -> None:
    assert rise_at_end(accuracies, [None] * len(accuracies)) is None


def test_where_the_test_has_levelled_off_nothing_is_advised() -> None:
    assert rise_at_end(RISING, [0.9] * 8) is None
    assert rise_at_end(RISING, [None, None, None, 0.4, None, None, None, 0.5]) is not None


def test_the_advice_is_a_command() -> None:
    level = RetrainResult(
        architecture="a", dataset="d", epochs=8, test_accuracy=0.5, test_error=0.5, num_params=1, seconds=1.0
    )
    assert level.advice(RunDirectory(Path("RUN"))) is None
    advice = replace(level, rise_at_end=0.08).advice(RunDirectory(Path("RUN")))
    assert advice is not None
    assert advice.endswith("; train longer: dsonas-hw retrain RUN --restart --epochs 16")
    guessed = replace(level, guessing_accuracy=0.5).advice(RunDirectory(Path("RUN")))
    assert guessed is not None
    assert guessed.startswith("nothing was learned")
    assert guessed.endswith("; check the images of each class, give more of them, or train longer: "
                            "dsonas-hw retrain RUN --restart --epochs 16")  # fmt: skip


def test_what_guessing_reaches() -> None:
    # Four classes of 30: 1/4 and three times √(1/4 · 3/4 / 120).
    assert guessing_accuracy([30, 30, 30, 30]) == pytest.approx(0.25 + 3 * 0.03953, abs=1e-4)
    assert guessing_accuracy([2, 1]) == 1.0
    assert guessing_accuracy([9000, 1000]) == pytest.approx(0.9 + 3 * 0.003)
