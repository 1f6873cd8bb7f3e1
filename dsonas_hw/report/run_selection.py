"""The selection of a run: its candidates and what became of them, read from selection.jsonl."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel

from dsonas_hw.report.fields import Fraction, Known, read_each, read_log
from dsonas_hw.report.numbers import percent
from dsonas_hw.report.table import Column, Table, numbers, words


class SelectionRow(BaseModel):
    """One candidate."""

    index: int
    step: int
    """λ steps of its point of the path."""
    width: int
    num_edges: int
    use: Known
    """Of the tightest budget, as it was known when the candidate was chosen."""
    is_measured: bool
    shared_accuracy: Fraction = None
    accuracies: tuple[tuple[int, float], ...] = ()
    """(epochs, accuracy on images of λ) of each round that it took part in."""
    is_chosen: bool = False


def load_selection(path: Path, notes: list[str]) -> tuple[SelectionRow, ...]:
    """Read the candidates of a run; a line that does not fit is left out and counted in `notes`."""
    found: dict[int, SelectionRow] = {}
    read_each(
        read_log(path, notes), lambda row: _take(row, found), notes, "lines of selection.jsonl cannot be read"
    )
    return tuple(found[index] for index in sorted(found))


def _take(row: dict[str, Any], found: dict[int, SelectionRow]) -> None:
    kind = row["kind"]
    if kind not in ("candidate", "score", "chosen"):
        return
    index = int(row["index"])
    if kind == "candidate":
        found[index] = SelectionRow.model_validate(row)
    elif kind == "score":
        score = (int(row["epochs"]), float(row["accuracy"]))
        found[index] = found[index].model_copy(update={"accuracies": (*found[index].accuracies, score)})
    else:  # one that is chosen later takes the place of one that missed when it was trained
        for other in tuple(found.values()):
            found[other.index] = other.model_copy(update={"is_chosen": other.index == index})


def _yes_or_no(value: bool) -> str:
    return "yes" if value else "no"


def selection_table(rows: tuple[SelectionRow, ...]) -> Table | None:
    """Return a row per candidate with its accuracy after each round; None: nothing was selected."""
    if not rows:
        return None
    rounds = sorted({epochs for row in rows for epochs, _ in row.accuracies})
    num_rounds = max(len(row.accuracies) for row in rows)

    def outcome(row: SelectionRow) -> str:
        if row.is_chosen:
            return "taken"
        if len(row.accuracies) < num_rounds:
            return f"out after round {len(row.accuracies)}" if row.accuracies else "not trained"
        return "second" if any(other.is_chosen for other in rows) else "in training"

    return Table(
        name="selection",
        caption="Candidates",
        sortable=True,
        columns=(
            *numbers(candidate="Candidate", step="λ step", width="Channels", num_edges="Edges"),
            *numbers(percent, budget_used="Budget used"),
            Column(key="is_measured", heading="Measured", numeric=False, text=_yes_or_no),
            *numbers(percent, shared_accuracy="Shared accuracy"),
            *(
                Column(key=f"accuracy_{n}_epochs", heading=f"After {n} epoch{'s' * (n > 1)}", text=percent)
                for n in rounds
            ),
            *words(outcome="Outcome"),
        ),
        rows=tuple(
            (row.index + 1, row.step, row.width, row.num_edges, row.use, row.is_measured, row.shared_accuracy,
             *(dict(row.accuracies).get(n) for n in rounds), outcome(row))
            for row in rows
        ),
    )  # fmt: skip
