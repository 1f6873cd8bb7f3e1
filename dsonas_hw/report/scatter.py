"""Accuracy against a cost: the chart of a comparison and of a grid study, a dot for each network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dsonas_hw.report.chart import Axis, Chart, Series, spans
from dsonas_hw.report.numbers import COST_LABELS, COST_UNITS, cost_text, percent


@dataclass(frozen=True, kw_only=True)
class Dot:
    """A network."""

    cost: float
    accuracy: float
    text: str
    """What its hint begins with."""
    name: str = ""
    """Written beside it."""


def scatter(
    groups: Mapping[str, Sequence[Dot]],
    quantity: str,
    *,
    name: str,
    caption: str,
    colours: Mapping[str, str],
    faint: Sequence[str] = (),
    label: str = "",
) -> Chart:
    """The chart; colours: of each group, in the order they are drawn; label: instead of the cost's own."""
    label = label or COST_LABELS[quantity]
    costs = [dot.cost for dots in groups.values() for dot in dots]
    return Chart(
        name=f"{name}-{quantity.replace('_', '-')}",
        title=f"{label} against accuracy".capitalize(),
        caption=caption,
        x=Axis(label=f"{label}, {COST_UNITS[quantity]}", log=spans(costs, 12)),
        y=Axis(label="test accuracy", percent=True),
        series=tuple(
            Series(
                name=group, kind="points", colour=colour, size=4.5, opacity=0.6 if group in faint else 1.0,
                x=tuple(dot.cost for dot in groups[group]), y=tuple(dot.accuracy for dot in groups[group]),
                names=tuple(dot.name for dot in groups[group] if dot.name),
                hints=tuple(
                    f"{dot.text}: {cost_text(quantity, dot.cost)}, {percent(dot.accuracy, 2)}"
                    for dot in groups[group]
                ),
            )
            for group, colour in colours.items()
        ),
        legend=tuple(colours.items()),
    )  # fmt: skip
