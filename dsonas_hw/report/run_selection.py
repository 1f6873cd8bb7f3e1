"""The selection of a run: its candidates and what became of them, read from selection.jsonl."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dsonas_hw.errors import UserError
from dsonas_hw.files import read_json_lines
from dsonas_hw.report.fields import required, share
from dsonas_hw.report.numbers import percent
from dsonas_hw.report.table import Column, Table


@dataclass(frozen=True, kw_only=True)
class SelectionRow:
    """One candidate."""

    index: int
    step: int
    """λ steps of its point of the path."""
    width: int
    num_edges: int
    use: float
    """Of the tightest budget, as it was known when the candidate was chosen."""
    is_measured: bool
    shared_accuracy: float | None
    accuracies: tuple[tuple[int, float], ...] = ()
    """(epochs, accuracy on images of λ) of each round that it took part in."""
    is_chosen: bool = False


def load_selection(path: Path, notes: list[str]) -> tuple[SelectionRow, ...]:
    """Read the candidates of a run; a line that does not fit is left out and counted in `notes`."""
    try:
        rows = read_json_lines(path) if path.exists() else []
    except UserError as error:
        notes.append(f"{error}.")
        return ()
    found: dict[int, SelectionRow] = {}
    num_bad = 0
    for row in rows:
        try:
            _take(row, found)
        except (KeyError, TypeError, ValueError, OverflowError):
            num_bad += 1
    if num_bad:
        notes.append(f"{num_bad} lines of selection.jsonl cannot be read and are left out.")
    return tuple(found[index] for index in sorted(found))


def _take(row: dict[str, Any], found: dict[int, SelectionRow]) -> None:
    kind = row["kind"]
    if kind not in ("candidate", "score", "chosen"):
        return
    index = int(row["index"])
    if kind == "candidate":
        found[index] = SelectionRow(
            index=index,
            step=int(row["step"]),
            width=int(row["width"]),
            num_edges=int(row["num_edges"]),
            use=required(row["use"]),
            is_measured=bool(row["is_measured"]),
            shared_accuracy=share(row.get("shared_accuracy")),
        )
    elif kind == "score":
        score = (int(row["epochs"]), required(row["accuracy"]))
        found[index] = replace(found[index], accuracies=(*found[index].accuracies, score))
    else:  # one that is chosen later takes the place of one that missed when it was trained
        for other in tuple(found.values()):
            found[other.index] = replace(other, is_chosen=other.index == index)


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
            Column(key="candidate", heading="Candidate"),
            Column(key="step", heading="λ step"),
            Column(key="width", heading="Channels"),
            Column(key="num_edges", heading="Edges"),
            Column(key="budget_used", heading="Budget used", text=percent),
            Column(key="is_measured", heading="Measured", numeric=False, text=_yes_or_no),
            Column(key="shared_accuracy", heading="Shared accuracy", text=percent),
            *(
                Column(key=f"accuracy_{n}_epochs", heading=f"After {n} epoch{'s' * (n > 1)}", text=percent)
                for n in rounds
            ),
            Column(key="outcome", heading="Outcome", numeric=False),
        ),
        rows=tuple(
            (row.index + 1, row.step, row.width, row.num_edges, row.use, row.is_measured, row.shared_accuracy,
             *(dict(row.accuracies).get(n) for n in rounds), outcome(row))
            for row in rows
        ),
    )  # fmt: skip
