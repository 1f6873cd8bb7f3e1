"""Trying smaller networks until one holds: none is measured again, and what was trained is kept."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from dsonas_hw import pipeline as running
from dsonas_hw.architecture.architecture import Architecture, complete_architecture
from dsonas_hw.architecture.costs import TargetCosts
from dsonas_hw.config import build_config, load_preset
from dsonas_hw.deploy.validate import BudgetVerdict
from dsonas_hw.errors import BudgetError
from dsonas_hw.files import write_json
from dsonas_hw.pipeline import Outcome
from dsonas_hw.run_directory import RunDirectory
from dsonas_hw.space.space import SearchSpace
from dsonas_hw.task import Task

WIDEST = complete_architecture(SearchSpace(levels=1, stages=(1,), channels=32, input_shape=(1, 8, 8)))
LIMIT_MS = 1.0


class Answer:
    """What `_deploy_until_it_holds` reads of a validation."""

    def __init__(self, verdict: Any, measured: float, high: float) -> None:
        self.budgets = (
            BudgetVerdict(
                name="latency", limit=LIMIT_MS, predicted=None, measured=measured, verdict=verdict,
                holds={"holds": True, "missed": False}.get(verdict), statistic="p50", low=0.9 * measured,
                high=high,
            ),
        )  # fmt: skip
        self.missed = ("latency",) if verdict == "missed" else ()
        self.undecided = ("latency",) if verdict == "undecided" else ()


HOLDS, MISSED, UNDECIDED = (
    Answer("holds", 0.9, 0.95),
    Answer("missed", 1.2, 1.25),
    Answer("undecided", 0.98, 1.05),
)


class Pipeline:
    """Stands in for training and measuring: a network of a width gets the next answer."""

    def __init__(
        self, path: Path, answers: list[Answer], patch: pytest.MonkeyPatch, *, narrowest: int = 4
    ) -> None:
        self.run = RunDirectory(path)
        config = build_config(load_preset("digits"))
        self.run.create(config)
        self.task = Task(config=config, space=WIDEST.space, target=TargetCosts(), budgets=())
        self.answers, self.narrowest = iter(answers), narrowest
        self.validated: list[int] = []
        self.refused: list[list[int]] = []
        self.shrinks: list[float] = []
        self.said: list[str] = []
        self._save(WIDEST)
        patch.setattr(running, "deploy", self._deploy)
        patch.setattr(running, "derive_measured", self._derive)
        patch.setattr(running, "save_architecture", lambda run, derived, task: self._save(derived))

    def _save(self, architecture: Architecture) -> None:
        write_json(self.run.architecture_path, architecture.to_json())
        self.width = architecture.width

    def _deploy(self, *args: Any, **options: Any) -> Answer:
        self.validated.append(self.width)
        return next(self.answers)

    def _derive(self, *args: Any, shrink: float, refused: list[Architecture], **options: Any) -> Architecture:
        self.refused.append([architecture.width for architecture in refused])
        self.shrinks.append(shrink)
        if self.width // 2 < self.narrowest:
            raise BudgetError("no width is narrow enough")
        return WIDEST.with_width(self.width // 2)

    def __call__(self) -> Any:
        return running._deploy_until_it_holds(
            self.run, self.task, None, resume=False, say=self.said.append,  # type: ignore[arg-type]
            bar=lambda title: nullcontext(lambda done, total, text: None),
        )  # fmt: skip


def test_a_network_that_holds_is_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = Pipeline(tmp_path / "run", [HOLDS], monkeypatch)
    assert pipeline() == Outcome(validation=HOLDS, exhausted=False)
    assert pipeline.validated == [32]


@pytest.mark.parametrize("first", [MISSED, UNDECIDED])
def test_another_network_follows_one_that_does_not_hold(
    first: Answer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = Pipeline(tmp_path / "run", [first, HOLDS], monkeypatch)
    assert pipeline().validation is HOLDS
    assert pipeline.validated == [32, 16]
    assert pipeline.refused == [[32]]
    # By the upper end of the interval, and 3 % more.
    assert pipeline.shrinks == [pytest.approx(0.97 / (first.budgets[0].high or 0))]


def test_no_network_is_validated_twice_and_three_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = Pipeline(tmp_path / "run", [MISSED, UNDECIDED, UNDECIDED, HOLDS], monkeypatch)
    assert pipeline() == Outcome(validation=UNDECIDED, exhausted=False)
    assert pipeline.validated == [32, 16, 8]
    assert pipeline.refused == [[32], [32, 16]]


def test_where_nothing_is_smaller_the_verdict_stays_and_so_does_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = Pipeline(tmp_path / "run", [UNDECIDED], monkeypatch, narrowest=20)
    assert pipeline() == Outcome(validation=UNDECIDED, exhausted=True)
    assert pipeline.width == 32
    assert pipeline.said[-1] == "there is none: no width is narrow enough"
