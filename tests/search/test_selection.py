"""A selection on a tiny search: it takes a candidate, logs every step, and resumes bit for bit."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_search import TinyRun, tiny_config

from dsonas_hw.architecture.architecture import Architecture
from dsonas_hw.architecture.costs import TargetCosts
from dsonas_hw.errors import BudgetError, RunError, UserError
from dsonas_hw.run_directory import RunDirectory
from dsonas_hw.search.brief_training import BriefTraining
from dsonas_hw.search.derive import Derived
from dsonas_hw.search.selection import select_architecture, selection_rows
from dsonas_hw.task import Task
from dsonas_hw.train.loop import Interrupted, Progress


def nothing(*args: Any) -> None:
    """Measure nothing, report nothing."""


NUM_CANDIDATES = 4


class Selection:
    """Runs the selection of a copy of a finished search."""

    def __init__(self, searched: TinyRun, path: Path) -> None:
        shutil.copytree(searched.directory.path, path)
        self.run, self.searched = RunDirectory(path), searched
        config = searched.config
        self.task = Task(config=config, space=searched.space, target=TargetCosts(), budgets=config.budgets)

    def __call__(
        self, *, progress: Progress = nothing, verdict: Callable[[Architecture], float | None] = nothing
    ) -> Derived:
        return select_architecture(
            self.run, self.task, self.searched.dataset, self.searched.path(), device=torch.device("cpu"),
            measure=nothing, verdict=verdict, progress=progress,
        )  # fmt: skip


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    config = tiny_config(
        select={"candidates": NUM_CANDIDATES, "epochs": 1}, retrain={"batch_size": 16, "dropout": 0.2}
    )
    run = TinyRun(tmp_path_factory.mktemp("searched") / "run", config)
    run.run()
    return run


@pytest.fixture(scope="module")
def whole(searched: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> tuple[Selection, Derived]:
    selection = Selection(searched, tmp_path_factory.mktemp("whole") / "run")
    return selection, selection()


def test_a_candidate_is_taken_and_every_step_is_logged(whole: tuple[Selection, Derived]) -> None:
    selection, derived = whole
    candidates, scores = (selection_rows(selection.run, kind) for kind in ("candidate", "score"))
    (chosen,) = selection_rows(selection.run, "chosen")
    assert [row["index"] for row in candidates] == list(range(len(candidates)))
    assert len(candidates) == NUM_CANDIDATES
    assert all(row["use"] <= 1.0 for row in candidates)
    assert [(row["round"], row["epochs"]) for row in scores] == [(1, 1)] * NUM_CANDIDATES + [(2, 2)] * 2
    finalists = {row["index"]: row["accuracy"] for row in scores if row["round"] == 2}
    assert chosen["index"] == max(finalists, key=lambda index: finalists[index])
    assert candidates[chosen["index"]]["width"] == derived.architecture.width
    assert derived.ratio <= 1.0
    assert selection.run.list_checkpoints("select") == []


def test_test_images_are_never_seen(searched: TinyRun, tmp_path: Path, monkeypatch: Any) -> None:
    import dsonas_hw.search.brief_training as module

    seen: list[int] = []
    original = module.Trainer

    def spy(architecture: Any, dataset: Any, *args: Any, **options: Any) -> Any:
        assert len(dataset.train) + len(dataset.test) == len(searched.dataset.train)
        seen.append(len(dataset.test))
        return original(architecture, dataset, *args, **options)

    monkeypatch.setattr(module, "Trainer", spy)
    Selection(searched, tmp_path / "run")()
    assert seen


class KilledError(BaseException):
    """As if the process had been killed."""


@pytest.mark.parametrize("stop", ["kill", "signal"])
@pytest.mark.parametrize("report", [1, 3, 5])
def test_a_stopped_selection_ends_like_an_uninterrupted_one(
    searched: TinyRun, whole: tuple[Selection, Derived], tmp_path: Path, report: int, stop: str
) -> None:
    selection, count = Selection(searched, tmp_path / "run"), 0

    def interrupt(done: int, total: int, text: str) -> None:
        nonlocal count
        count += 1
        if count == report:
            if stop == "kill":
                raise KilledError
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises((KilledError, Interrupted), match=None if stop == "kill" else "go on with"):
        selection(progress=interrupt)
    assert selection().architecture == whole[1].architecture
    assert selection_rows(selection.run) == selection_rows(whole[0].run)


def test_batches_that_score_are_of_mixed_classes_though_images_lie_class_by_class(
    searched: TinyRun, tmp_path: Path
) -> None:
    """As files in folders do; batch norms by a batch of one class would make every network guess."""
    dataset = searched.dataset
    in_order = replace(dataset, train=dataset.train.take(dataset.train.labels.argsort(stable=True)))
    training = BriefTraining(
        RunDirectory(tmp_path), searched.config, in_order, epochs=1, device=torch.device("cpu")
    )
    labels = training.dataset.test.labels
    assert all(len(batch.unique()) > 4 for batch in labels.split(16) if len(batch) == 16)
    _, lam_images = in_order.split_for_search(searched.config.data.split_ratio, seed=searched.config.seed)
    assert torch.equal(lam_images.labels.sort().values, labels.sort().values)


def test_finalists_that_do_not_hold_are_passed_over(searched: TinyRun, tmp_path: Path) -> None:
    asked: list[Architecture] = []

    def only_the_third(architecture: Architecture) -> float | None:
        asked.append(architecture)
        return 1.2 if len(asked) < 3 else 0.9

    derived = Selection(searched, tmp_path / "run")(verdict=only_the_third)
    assert derived.architecture in asked[2:]
    with pytest.raises(BudgetError, match="none of the 4 candidates holds"):
        Selection(searched, tmp_path / "none")(verdict=lambda architecture: 1.2)


def test_one_that_misses_when_it_is_trained_gives_its_place_to_the_next(
    searched: TinyRun, tmp_path: Path
) -> None:
    selection = Selection(searched, tmp_path / "run")
    first = selection()
    second = selection(verdict=lambda architecture: 1.1 if architecture == first.architecture else 0.9)
    assert second.architecture != first.architecture
    chosen = [row["index"] for row in selection_rows(selection.run, "chosen")]
    assert len(set(chosen)) == len(chosen) == 2


def test_a_log_of_another_selection_is_refused(searched: TinyRun, tmp_path: Path) -> None:
    selection = Selection(searched, tmp_path / "run")
    selection.run.log("selection.jsonl", {"kind": "candidate", "index": 0, "width": 1})
    with pytest.raises(UserError, match="is of another selection; delete it"):
        selection()


def test_a_damaged_checkpoint_is_named(searched: TinyRun, tmp_path: Path) -> None:
    selection = Selection(searched, tmp_path / "run")
    selection.run.checkpoint_path("select", 0).write_bytes(b"no checkpoint")
    with pytest.raises(RunError, match=r"select-000000\.pt cannot be used; delete it"):
        selection()
