"""Accuracy against a cost: the chart of a comparison and of a grid study, a dot for each network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dsonas_hw.report.chart import Axis, Chart, Series, spans


@dataclass(frozen=True, kw_only=True)
class Dot:
    """A network."""

    cost: float
    accuracy: float
    hint: str
    name: str = ""
    """Written beside it."""
    hollow: bool = False


def scatter(
    groups: Mapping[str, Sequence[Dot]],
    *,
    name: str,
    title: str,
    caption: str,
    cost: str,
    colours: Mapping[str, str],
    faint: Sequence[str] = (),
) -> Chart:
    """Return the chart; cost: what its axis says; colours: of each group, in the order they are drawn."""

    def series(group: str, hollow: bool) -> Series:
        dots = [dot for dot in groups[group] if dot.hollow == hollow]
        return Series(
            name=group, kind="points", colour=colours[group], size=4.5, hollow=hollow,
            opacity=0.6 if group in faint else 1.0,
            x=tuple(dot.cost for dot in dots), y=tuple(dot.accuracy for dot in dots),
            names=tuple(dot.name for dot in dots if dot.name), hints=tuple(dot.hint for dot in dots),
        )  # fmt: skip

    drawn = [series(group, hollow) for group in colours for hollow in (True, False)]
    return Chart(
        name=name,
        title=title,
        caption=caption,
        x=Axis(label=cost, log=spans([dot.cost for dots in groups.values() for dot in dots], 12)),
        y=Axis(label="test accuracy", percent=True),
        series=tuple(one for one in drawn if one.x),
        legend=tuple(colours.items()),
    )
