"""A chart as plain data: axes and series, no pixels. Drawn by `chart_svg` and `chart_matplotlib`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar

T = TypeVar("T")
Kind = Literal["line", "step", "points", "front"]
"""line, staircase, dots, or dots joined by a line."""

#: Names that a `Series.colour` may use, with their value on a light page. The hues keep apart for every
#: kind of colour vision (Okabe and Ito); pages give them other values on dark.
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

    def limits(self, axis: Literal["x", "y"]) -> tuple[float, float]:
        """The axis' range: the data's and the marks', widened a little unless the axis says otherwise."""
        spec = self.x if axis == "x" else self.y
        values = [v for s in self.series for v in (s.x if axis == "x" else s.y) if v is not None]
        values += [mark.value for mark in self.marks if mark.axis == axis]
        if spec.log:
            values = [v for v in values if v > 0]
        return axis_limits(values, spec)


def axis_limits(values: Iterable[float], spec: Axis) -> tuple[float, float]:
    """Range of an axis over `values`; never empty, positive if logarithmic."""
    found = list(values) or [1.0]
    low, high = min(found), max(found)
    if spec.log:
        if low == high:
            low, high = low / 2, high * 2
        pad = (high / low) ** 0.05
        low, high = low / pad, high * pad
    else:
        if low == high:
            low, high = low - (abs(low) / 2 or 0.5), high + (abs(high) / 2 or 0.5)
        pad = (high - low) * 0.05
        low, high = low - pad, high + pad
    low = spec.low if spec.low is not None else low
    high = spec.high if spec.high is not None else high
    return (low, high) if high > low else (low, low + 1.0)


def nice_ticks(low: float, high: float, count: int = 5, *, whole: bool = False) -> list[float]:
    """Round numbers (1, 2, 2.5 or 5 times a power of ten) inside [low, high], about `count` of them."""
    raw = (high - low) / max(count, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1.0, 2.0, 2.5, 5.0, 10.0) if m * power >= raw * 0.75)
    if whole:
        step = max(1.0, float(math.ceil(step)) if step < 5 else step)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(i * step, 12 - math.floor(math.log10(step))) for i in range(first, last + 1)]


def axis_ticks(axis: Axis, limits: tuple[float, float], count: int = 5) -> list[float]:
    """Ticks of an axis between its limits."""
    return log_ticks(*limits) if axis.log else nice_ticks(*limits, count, whole=axis.whole)


def log_ticks(low: float, high: float) -> list[float]:
    """Ticks of a logarithmic axis: powers of ten, and 2 and 5 times them where there are few."""
    span = math.log10(high / low)
    steps = (1.0,) if span > 3.2 else (1.0, 2.0, 5.0) if span > 0.6 else ()
    if not steps:
        return [t for t in nice_ticks(low, high, 4) if t > 0]
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    ticks = [m * 10.0**p for p in range(first, last + 1) for m in steps]
    every = max(1, round(len(ticks) / 40))
    return [t for t in ticks[::every] if low <= t <= high]


def spans(values: Sequence[float], factor: float) -> bool:
    """Whether the values span more than `factor`, so that a logarithmic axis shows them better."""
    positive = [v for v in values if v > 0]
    return len(positive) == len(values) and len(positive) > 1 and max(positive) / min(positive) > factor


def thin(items: Sequence[T], count: int) -> list[T]:
    """At most `count` of the items, evenly, first and last among them."""
    if len(items) <= count:
        return list(items)
    return [items[round(i * (len(items) - 1) / (count - 1))] for i in range(count)]
