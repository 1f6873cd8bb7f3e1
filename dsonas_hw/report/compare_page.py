"""The page of a comparison: the table, and accuracy against cost."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from dsonas_hw.files import write_text
from dsonas_hw.report.chart import Chart
from dsonas_hw.report.compare import HAND_MADE, RANDOM, SEARCHED, Row, compare_table
from dsonas_hw.report.numbers import COST_LABELS, COST_UNITS, count_of, percent
from dsonas_hw.report.page import write_page
from dsonas_hw.report.parts import Figures, Notes, Page, Part, Section
from dsonas_hw.report.scatter import Dot, scatter

COLOURS = {RANDOM: "muted", HAND_MADE: "orange", SEARCHED: "accent"}
"""By kind, in the order they are drawn."""
FEW = 12
"""Networks whose names stand beside their dots."""


def write_comparison(path: Path, rows: Sequence[Row], remarks: Sequence[str]) -> None:
    """Write the page.

    Raises:
        RunError: it cannot be written.
    """
    charts = compare_charts(rows)
    table, notes = compare_table(rows), Notes(heading="To know before comparing:", items=remarks)
    drawn: Part = Figures(items=charts) if charts else "No network is trained yet."
    page = Page(
        title=f"Comparison of {count_of(len(rows), 'network')}",
        kicker=count_of(len(rows), "network"),
        heading="Comparison",
        subtitle="",
        sections=[
            Section(id="networks", heading="Networks", parts=[table, notes]),
            Section(id="costs", heading="Cost against accuracy", parts=[drawn]),
        ],
    )
    write_text(path, write_page(page))


def compare_charts(rows: Sequence[Row]) -> list[Chart]:
    """Accuracy against memory access, and against the latency on each device, each dataset by itself."""
    devices = dict.fromkeys(row.device for row in rows)
    charts = []
    for dataset in dict.fromkeys(row.dataset for row in rows):
        same = [row for row in rows if row.dataset == dataset]
        images = "" if len(same) == len(rows) else f", {dataset}"
        for device in devices:
            there = [row for row in same if row.device == device]
            where = "" if len(devices) == 1 else f" on {device}"
            charts.append(_chart(there, "latency_ms", title=f"Latency{where} against accuracy{images}"))
        charts.append(_chart(same, "mac", title=f"Memory access against accuracy{images}"))
    return [chart for chart in charts if chart is not None]


def _chart(rows: Sequence[Row], quantity: str, *, title: str) -> Chart | None:
    """Accuracy against one cost; None where fewer than two networks have both."""
    points = [
        (row, cost, row.accuracy)
        for row in rows
        if (cost := row.cost(quantity)) is not None and row.accuracy is not None
    ]
    if len(points) < 2:
        return None
    groups: dict[str, list[Dot]] = {}
    for row, cost, accuracy in points:
        groups.setdefault(row.kind, []).append(
            Dot(
                cost=cost, accuracy=accuracy, hollow=not row.is_exact(quantity),
                hint=f"{row.name} on {row.device}: {row.text(quantity)}, {percent(accuracy, 2)}",
                name=row.name if len(points) <= FEW else "",
            )
        )  # fmt: skip
    hollow = "; hollow: not measured" if any(dot.hollow for dots in groups.values() for dot in dots) else ""
    return scatter(
        groups,
        name=re.sub(r"[^a-z0-9]+", "-", title.lower()),
        title=title,
        caption=f"Each dot is a row of the table{hollow}.",
        cost=f"{COST_LABELS[quantity]}, {COST_UNITS[quantity]}",
        colours={kind: colour for kind, colour in COLOURS.items() if kind in groups},
    )
