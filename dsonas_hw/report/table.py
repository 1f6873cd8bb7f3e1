"""A table as plain data, rendered as HTML, CSV and JSON from the same rows."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from typing import Any

from dsonas_hw.report.numbers import NONE

Cell = str | float | int | bool | None


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column: its key in files, its heading on a page, and how its values are written there."""

    key: str
    """With the unit, as everywhere: `latency_ms`."""
    heading: str
    numeric: bool = True
    text: Callable[[Any], str] | None = None
    """Value → text on the page; None: as it is."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of cells in the order of the columns."""

    name: str
    """Stem of its files."""
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    row_headings: bool = True
    """The first cell of a row names it."""
    heat: bool = False
    """Numbers are counts: a cell is coloured by its part of the row's sum."""

    def to_records(self) -> list[dict[str, Cell]]:
        """One dictionary per row, keys with units."""
        keys = [column.key for column in self.columns]
        return [dict(zip(keys, row, strict=True)) for row in self.rows]

    def to_csv(self) -> str:
        """RFC 4180; an empty field is "not known"."""
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow([column.key for column in self.columns])
        for row in self.rows:
            writer.writerow(["" if cell is None else cell for cell in row])
        return buffer.getvalue()

    def to_html(self, *, sortable: bool = False) -> str:
        """A `<table>` with caption and header cells, everything escaped.

        sortable: by every column, once the page's script is there.
        """
        head = "".join(
            f'<th scope="col"{_numeric(column)}>{escape(column.heading)}</th>' for column in self.columns
        )
        body = "".join(f"<tr>{self._row_html(row, with_values=sortable)}</tr>" for row in self.rows)
        return (
            f'<div class="scroll"><table{" data-sortable" if sortable else ""}'
            f"{' class=heat' if self.heat else ''}><caption>{escape(self.caption)}</caption>"
            f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
        )

    def _repr_html_(self) -> str:
        """How a notebook shows it."""
        return self.to_html()

    def _row_html(self, row: tuple[Cell, ...], *, with_values: bool) -> str:
        cells = []
        total = sum(cell for cell in row if isinstance(cell, int | float)) or 1
        for position, (column, cell) in enumerate(zip(self.columns, row, strict=True)):
            text = (column.text or _as_it_is)(cell)
            is_heading = position == 0 and self.row_headings
            tag, scope = ("th", ' scope="row"') if is_heading else ("td", "")
            number = "" if cell is None else escape(str(cell))
            value = f' data-value="{number}"' if with_values and column.numeric else ""
            if self.heat and column.numeric and cell:
                value += f' style="--part:{100 * float(cell) / total:.0f}%"'
            cells.append(f"<{tag}{scope}{_numeric(column)}{value}>{escape(text)}</{tag}>")
        return "".join(cells)

    def to_pandas(self) -> Any:
        """The rows as a pandas data frame.

        Raises:
            MissingDependencyError: pandas is not installed.
        """
        from dsonas_hw.errors import require

        return require("pandas", extra="notebook", purpose="to_pandas()").DataFrame(self.to_records())


def _as_it_is(cell: Cell) -> str:
    return NONE if cell is None else str(cell)


def _numeric(column: Column) -> str:
    return ' class="num"' if column.numeric else ""
