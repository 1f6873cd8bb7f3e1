"""A chart as plain data: axes and series, no pixels. `chart_figure` draws it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar

T = TypeVar("T")
Kind = Literal["line", "step", "points", "front"]
"""line, staircase, dots, or dots joined by a line."""

#: Names that a `Series.colour` may use, with their value on paper. The hues keep apart for every kind of
#: colour vision (Okabe and Ito); on a page they are variables of the style, with other values on dark.
PALETTE: dict[str, str] = {
    "accent": "#0b62b5",
    "orange": "#c44f00",
    "green": "#007f5c",
    "pink": "#a23b72",
    "yellow": "#a87400",
    "sky": "#2b8fcb",
    "quiet": "#62666d",
    "muted": "#8a8f98",
    "ink": "#1d1d1f",
    "line": "#e2e4e8",
    "paper": "#ffffff",
}


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One axis; limits that are None follow the data."""

    label: str
    """What it shows and, after a comma, the unit."""
    percent: bool = False
    """Values are shares; ticks are written in %."""
    log: bool = False
    whole: bool = False
    """Values are counted: no tick between two numbers."""
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, kw_only=True)
class Series:
    """Points in the order they are joined. None in `y` is a hole."""

    name: str
    x: tuple[float, ...]
    y: tuple[float | None, ...]
    kind: Kind = "line"
    colour: str = "accent"
    """A name of `PALETTE`, or #rrggbb."""
    width: float = 1.8
    opacity: float = 1.0
    size: float = 3.2
    """Radius of dots."""
    dashed: bool = False
    hollow: bool = False
    label: bool = False
    """Write the name beside the last point."""
    ids: tuple[int, ...] = ()
    """One number per point, by which a page finds it again."""
    names: tuple[str, ...] = ()
    """One per point, written beside it."""
    hints: tuple[str, ...] = ()
    """One line of text per point, shown on hover."""


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A straight line across the chart, e.g. a budget."""

    axis: Literal["x", "y"]
    value: float
    label: str


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Everything a reader sees of one chart."""

    name: str
    """Stem of its files; a-z, 0-9 and -."""
    title: str
    caption: str
    """What to see in it; also its description for those who cannot see it."""
    x: Axis
    y: Axis
    series: tuple[Series, ...]
    marks: tuple[Mark, ...] = ()
    legend: tuple[tuple[str, str], ...] = field(default=())
    """(name, colour) of what is told apart by colour and not labelled directly."""


def spans(values: Sequence[float], factor: float) -> bool:
    """Whether the values span more than `factor`, so that a logarithmic axis shows them better."""
    positive = [v for v in values if v > 0]
    return len(positive) == len(values) and len(positive) > 1 and max(positive) / min(positive) > factor


def thin(items: Sequence[T], count: int) -> list[T]:
    """At most `count` of the items, evenly, first and last among them."""
    if len(items) <= count:
        return list(items)
    return [items[round(i * (len(items) - 1) / (count - 1))] for i in range(count)]
