"""What the test images were taken for by the trained network, as tables."""

from __future__ import annotations

from dsonas_hw.report.numbers import percent
from dsonas_hw.report.table import Cell, Column, Rich, Table, numbers, words
from dsonas_hw.train.confusion import Confusion


def class_table(confusion: Confusion) -> Table:
    """Accuracy of every class, and what its images are most often mistaken for."""

    def row(position: int, name: str) -> tuple[Cell, ...]:
        counts = confusion.counts[position]
        mistaken = [(n, other) for other, n in enumerate(counts) if other != position and n]
        num, other = max(mistaken, key=lambda one: one[0], default=(0, None))
        where = "" if other is None else f"{confusion.class_names[other]} ({num})"
        return name, sum(counts), confusion.accuracy_of(position), where

    return Table(
        name="classes",
        caption="Accuracy of every class on the test images",
        columns=(
            Column(key="class", heading="Class", numeric=False),
            *numbers(num_images="Images"),
            *numbers(percent, accuracy="Accuracy"),
            *words(mistaken_for="Most often mistaken for"),
        ),
        rows=tuple(row(position, name) for position, name in enumerate(confusion.class_names)),
        sortable=True,
    )


def confusion_table(confusion: Confusion) -> Table:
    """The number of test images by true class (rows) and by the class that the network told (columns)."""
    names = confusion.class_names
    return Table(
        name="confusion",
        caption="Test images by their class (rows) and by what they were taken for (columns)",
        columns=(
            Column(key="class", heading="", numeric=False),
            *(Column(key=name, heading=name) for name in names),
        ),
        rows=tuple(
            (name, *(Rich(text=str(n) if n else "·", value=n, fraction=n / max(sum(row), 1)) for n in row))
            for name, row in zip(names, confusion.counts, strict=True)
        ),
        style="heat",
    )
