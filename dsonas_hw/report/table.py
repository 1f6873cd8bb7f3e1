"""A table as plain data, rendered as HTML, CSV and JSON from the same rows."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from dsonas_hw.report.numbers import COST_LABELS, NONE, cost_text, plain

Scalar = str | float | int | bool | None


@dataclass(frozen=True, kw_only=True)
class Rich:
    """A cell of which a page shows more than the value."""

    text: str
    value: Scalar = None
    """What it is sorted by, and what files hold."""
    order: int | None = None
    """What it is sorted by instead."""
    small: tuple[str, ...] = ()
    """Lines below the text."""
    style: str = ""
    """Class of the cell: `own`, `miss`, `quiet` …"""
    href: str = ""
    """Where the text leads to."""
    svg: str = ""
    """Markup of a picture above the text."""
    fraction: float = 0.0
    """0 to 1: how deep the cell is coloured."""

    @property
    def plain(self) -> str:
        """The cell in a line of text."""
        text = self.text or "; ".join(self.small)
        return f"**{text}**" if self.style == "own" else text


Cell = Scalar | Rich


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column: its key in files, its heading on a page, and how its values are written there."""

    key: str
    """With the unit, as everywhere: `latency_ms`."""
    heading: str
    numeric: bool = True
    text: Callable[[Any], str] | None = None
    """Value → text on the page; None: as it is."""
    device: str = ""
    """The page's filter hides the column with this device."""
    hidden: bool = False
    """It is in files only."""

    def show(self, cell: Cell) -> Rich:
        """The cell as a page shows it."""
        if isinstance(cell, Rich):
            return cell
        text = self.text(cell) if self.text else NONE if cell is None else str(cell)
        return Rich(text=text, value=cell)


def words(**headings: str) -> list[Column]:
    """Columns of text: key → heading."""
    return [Column(key=key, heading=heading, numeric=False) for key, heading in headings.items()]


def numbers(text: Callable[[Any], str] | None = None, /, **headings: str) -> list[Column]:
    """Columns of numbers, all written by `text`: key → heading."""
    return [Column(key=key, heading=heading, text=text) for key, heading in headings.items()]


def values(*keys: str) -> list[Column]:
    """Columns of numbers that are headed by their keys."""
    return [Column(key=key, heading=key, text=plain) for key in keys]


def hidden(*keys: str) -> list[Column]:
    """Columns that are in files only."""
    return [Column(key=key, heading=key, hidden=True) for key in keys]


def costs(*quantities: str, text: Callable[[str, Any], str] = cost_text) -> list[Column]:
    """Columns of costs, each value with its unit: `flops`, `latency_ms` …"""
    return [Column(key=q, heading=COST_LABELS[q], text=partial(text, q)) for q in quantities]


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of cells in the order of the columns."""

    name: str
    """Stem of its files."""
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    style: str = ""
    """Class on a page."""
    sortable: bool = False
    """By every column, once the page's script is there."""
    ids: tuple[int, ...] = ()
    """One per row, as of `Series.ids`: pointing at the row shows what it stands for."""
    devices: tuple[str, ...] = ()
    """One per row, names apart by spaces: the page's filter hides the row when all of them are hidden."""

    @property
    def shown_columns(self) -> list[Column]:
        """Those of a page."""
        return [column for column in self.columns if not column.hidden]

    def shown(self) -> list[list[tuple[Column, Rich]]]:
        """Every row as a page shows it."""
        rows = (zip(self.columns, row, strict=True) for row in self.rows)
        return [[(c, c.show(cell)) for c, cell in row if not c.hidden] for row in rows]

    def texts(self) -> list[list[str]]:
        """The cells of every row as people read them."""
        return [[cell.text for _, cell in row] for row in self.shown()]

    def to_records(self) -> list[dict[str, Scalar]]:
        """One dictionary per row, keys with units."""
        keys = [column.key for column in self.columns]
        return [dict(zip(keys, map(_value, row), strict=True)) for row in self.rows]

    def to_csv(self) -> str:
        """RFC 4180; an empty field is "not known"."""
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow([column.key for column in self.columns])
        for row in self.rows:
            writer.writerow(["" if _value(cell) is None else _value(cell) for cell in row])
        return buffer.getvalue()

    def to_markdown(self) -> str:
        """What a page shows, as Markdown; columns without a value are left out."""
        shown = self.shown()
        numbers = [
            number
            for number, column in enumerate(self.shown_columns)
            if any(row[number][1].plain not in ("", NONE) for row in shown)
        ]
        columns = [self.shown_columns[number] for number in numbers]
        lines = [
            [column.heading for column in columns],
            ["---:" if column.numeric else "---" for column in columns],
            *([row[number][1].plain for number in numbers] for row in shown),
        ]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)

    def _repr_html_(self) -> str:
        """How a notebook shows it."""
        from dsonas_hw.report.page import render

        return render(self)

    def to_pandas(self) -> Any:
        """The rows as a pandas data frame.

        Raises:
            MissingDependencyError: pandas is not installed.
        """
        from dsonas_hw.errors import require

        return require("pandas", extra="notebook", purpose="to_pandas()").DataFrame(self.to_records())


def _value(cell: Cell) -> Scalar:
    return cell.value if isinstance(cell, Rich) else cell
