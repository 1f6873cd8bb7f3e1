"""The page of a comparison: the table, and accuracy against cost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dsonas_hw.files import write_text
from dsonas_hw.report.chart import Chart
from dsonas_hw.report.compare import HAND_MADE, RANDOM, SEARCHED, Row, compare_table
from dsonas_hw.report.numbers import count_of
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
    charts = [chart for quantity in ("latency_ms", "mac") if (chart := compare_chart(rows, quantity))]
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


def compare_chart(rows: Sequence[Row], quantity: str) -> Chart | None:
    """Accuracy against one cost; None where fewer than two networks have both."""
    known = [
        (row, cost, row.accuracy)
        for row in rows
        if (cost := row.latency_ms if quantity == "latency_ms" else row.costs.get(quantity)) is not None
        and row.accuracy is not None
    ]
    if len(known) < 2:
        return None
    groups: dict[str, list[Dot]] = {}
    for row, cost, accuracy in known:
        name = row.name if len(known) <= FEW else ""
        dot = Dot(cost=cost, accuracy=accuracy, text=f"{row.name} on {row.device}", name=name)
        groups.setdefault(row.kind, []).append(dot)
    return scatter(
        groups, quantity, name="comparison", caption="Each dot is a row of the table.",
        colours={kind: colour for kind, colour in COLOURS.items() if kind in groups},
    )  # fmt: skip
