"""`dsonas-hw compare`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from dsonas_hw.cli.common import json_option, print_json, say

if TYPE_CHECKING:
    from dsonas_hw.report.table import Table

EXAMPLES = """\b
Examples:
  dsonas-hw compare runs/cifar10-1 runs/cifar10-3ms
  dsonas-hw compare runs/* studies/hand-made --out comparison.html
  dsonas-hw compare runs/digits-1 studies/codesign --json
"""
SHOWN = (
    "network", "accuracy", "accuracy_std", "latency_ms", "latency_source", "flops", "mac", "params", "budget",
    "verdict", "device",
)  # fmt: skip
"""Columns in a terminal; the page and JSON have all."""


@click.command(epilog=EXAMPLES)
@click.argument("paths", metavar="RUN|STUDY...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("comparison.html"),
    show_default=True,
    help="Page to write.",
)
@json_option
def command(paths: tuple[Path, ...], out: Path, as_json: bool) -> None:
    """Put networks side by side: accuracy, costs and verdicts, as a table and as a page.

    A run is one network; a folder of runs, as derive writes for several limits, is all of them. A study is a
    row per variant and budget: of `study hand-made` the hand-made families and the random networks beside
    what was searched; of `study codesign` each network on the devices that it was found for. Beside a latency
    stands whether it was measured, and ~ before one that was not.
    """
    from dsonas_hw.report.compare import compare, compare_table
    from dsonas_hw.report.compare_page import write_comparison

    rows, remarks = compare(paths)
    write_comparison(out, rows, remarks)
    table = compare_table(rows)
    if as_json:
        print_json({"networks": table.to_records(), "remarks": remarks, "report": str(out)})
        return
    for line in _lines(table):
        click.echo(line)
    for remark in remarks:
        say(remark)
    say(f"page: {out}")


def _lines(table: Table) -> list[str]:
    """The columns for a terminal that say something, aligned."""
    from dsonas_hw.report.numbers import NONE

    cells = [[column.heading for column in table.shown_columns], *table.texts()]
    shown = [
        [row[i].rjust(width) if column.numeric else row[i].ljust(width) for row in cells]
        for i, column in enumerate(table.columns)
        if column.key in SHOWN and any(row[i] not in ("", NONE) for row in cells[1:])
        for width in [max(len(row[i]) for row in cells)]
    ]
    return ["  ".join(row).rstrip() for row in zip(*shown, strict=True)]
