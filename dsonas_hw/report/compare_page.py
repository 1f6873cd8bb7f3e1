"""The page of a comparison: the table, and accuracy against cost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dsonas_hw.files import write_text
from dsonas_hw.report.chart import Axis, Chart, Series, spans
from dsonas_hw.report.compare import HAND_MADE, RANDOM, SEARCHED, Row, compare_table
from dsonas_hw.report.numbers import COST_LABELS, COST_UNITS, cost_text, count_of, percent
from dsonas_hw.report.page import write_page
from dsonas_hw.report.parts import Figures, Notes, Page, Part, Section

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
    points: dict[str, list[tuple[float, float, str, str]]] = {}
    for row in rows:
        cost = row.latency_ms if quantity == "latency_ms" else row.costs.get(quantity)
        if cost is not None and row.accuracy is not None:
            text = row.latency_text if quantity == "latency_ms" else cost_text(quantity, cost)
            hint = f"{row.name} on {row.device}: {text}, {percent(row.accuracy, 2)}"
            points.setdefault(row.kind, []).append((cost, row.accuracy, row.name, hint))
    costs = [cost for found in points.values() for cost, *_ in found]
    if len(costs) < 2:
        return None
    kinds = [kind for kind in COLOURS if kind in points]
    return Chart(
        name=f"comparison-{quantity.replace('_', '-')}",
        title=f"{COST_LABELS[quantity]} against accuracy".capitalize(),
        caption="Each dot is a row of the table.",
        x=Axis(label=f"{COST_LABELS[quantity]}, {COST_UNITS[quantity]}", log=spans(costs, 12)),
        y=Axis(label="test accuracy", percent=True),
        series=tuple(
            Series(
                name=kind, kind="points", colour=COLOURS[kind], size=4.5, x=tuple(p[0] for p in points[kind]),
                y=tuple(p[1] for p in points[kind]), hints=tuple(p[3] for p in points[kind]),
                names=tuple(p[2] for p in points[kind]) if len(costs) <= FEW else (),
            )
            for kind in kinds
        ),
        legend=tuple((kind, COLOURS[kind]) for kind in kinds),
    )  # fmt: skip
