"""Selection: which network of a finished search is trained in full.

    path ─▶ slate: candidates of many widths that fill the budgets ─▶ halving: brief trainings ─▶ the winner

Every step is a line of selection.jsonl, and a selection that was stopped goes on from there:

    {"kind": "trial", …}      a network's latency beside others'         (`deploy.measured_use`)
    {"kind": "verdict", …}    a network measured against the budgets     (likewise)
    {"kind": "candidate", …}  a network of the slate
    {"kind": "score", …}      its accuracy at the end of a round
    {"kind": "chosen", …}     which one is taken
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from dsonas_hw.architecture.architecture import Architecture
from dsonas_hw.errors import BudgetError, UserError, command_line
from dsonas_hw.files import read_json_lines
from dsonas_hw.run_directory import RunDirectory
from dsonas_hw.search.brief_training import BriefTraining
from dsonas_hw.search.derive import Derived, as_derived
from dsonas_hw.search.halving import halve, plan_rounds
from dsonas_hw.search.path import PathPoint
from dsonas_hw.search.slate import Entry, MeasureUse, choose_slate
from dsonas_hw.task import Task
from dsonas_hw.train.data import Dataset
from dsonas_hw.train.loop import Interrupted, Progress, StopSignal
from dsonas_hw.train.trainer import StoppedError

LOG_NAME = "selection.jsonl"


def selection_rows(run: RunDirectory, kind: str | None = None) -> list[dict[str, Any]]:
    """Return what was logged of a run's selection, or the rows of one kind."""
    path = run.log_path(LOG_NAME)
    rows = read_json_lines(path) if path.exists() else []
    return [row for row in rows if kind in (None, row.get("kind"))]


def select_architecture(
    run: RunDirectory,
    task: Task,
    dataset: Dataset,
    points: Sequence[PathPoint],
    *,
    device: torch.device,
    measure: MeasureUse,
    verdict: Callable[[Architecture], float | None],
    progress: Progress,
) -> Derived:
    """Choose a network of the path by brief trainings; goes on from what selection.jsonl holds.

    measure: as in `slate.choose_slate`. verdict: what a network needs of its limits, by a full measurement;
        None where there is none. Finalists whose verdict is above 1 are passed over; those far below a timed
        limit by prediction are measured once they are trained.

    Raises:
        BudgetError: no candidate holds the budgets.
        Interrupted: by a signal, resumable.
        DivergedError: a brief training's loss is no longer a number.
    """
    select = task.config.select
    slate = choose_slate(points, task.budgets, task.target, number=select.candidates, measure=measure)
    _log_slate(run, slate)
    rounds = plan_rounds(len(slate), select.epochs)
    num_trainings, trainings_done = sum(part.num_networks for part in rounds), 0
    training = BriefTraining(
        run, task.config, dataset, epochs=rounds[-1].epochs if rounds else select.epochs, device=device
    )

    def holds(index: int) -> bool:
        entry = slate[index]
        need = verdict(entry.candidate.architecture) if entry.needs_verdict else None
        return need is None or need <= 1.0

    with StopSignal() as stop:

        def score(index: int, epochs: int) -> float:
            nonlocal trainings_done
            entry, base = slate[index], trainings_done

            def report(done: int, total: int) -> None:
                text = f"network {index + 1} of {len(slate)}, {entry.candidate.architecture.width} channels"
                progress(100 * base + 100 * done // total, 100 * num_trainings, text)

            report(0, 1)
            accuracy = training.score(index, entry.candidate.architecture, epochs, stop=stop, progress=report)
            trainings_done += 1
            return accuracy

        try:
            order = halve(
                len(slate), select.epochs, score, holds=holds, known=selection_rows(run, "score"),
                on_score=lambda row: run.log(LOG_NAME, {"kind": "score", **row}),
            )  # fmt: skip
        except StoppedError:
            raise Interrupted(
                f"selection interrupted; go on with: {command_line('select', run.path)}"
            ) from None
    if not order:
        raise BudgetError(
            f"none of the {len(slate)} candidates holds the budget when it is measured; allow more, or "
            "search again under a tighter budget"
        )
    if [row["index"] for row in selection_rows(run, "chosen")[-1:]] != order[:1]:
        run.log(LOG_NAME, {"kind": "chosen", "index": order[0], "order": order})
    training.forget()
    return as_derived(slate[order[0]].candidate, task.budgets, task.target)


def _log_slate(run: RunDirectory, slate: Sequence[Entry]) -> None:
    """Log the candidates that are not logged yet.

    Raises:
        UserError: other candidates are.
    """
    rows = [_candidate_row(index, entry) for index, entry in enumerate(slate)]
    known = selection_rows(run, "candidate")
    if known != rows[: len(known)]:
        raise UserError(f"{run.log_path(LOG_NAME)} is of another selection; delete it to select anew")
    for row in rows[len(known) :]:
        run.log(LOG_NAME, row)


def _candidate_row(index: int, entry: Entry) -> Mapping[str, Any]:
    candidate = entry.candidate
    architecture = candidate.architecture
    return {
        "kind": "candidate",
        "index": index,
        "step": candidate.point.step,
        "width": architecture.width,
        "num_edges": candidate.num_edges,
        "flops": candidate.flops,
        "predicted_use": candidate.used(),
        "use": entry.used,
        "is_measured": entry.is_measured,
        "shared_accuracy": candidate.accuracy,
    }
