"""Boxes and routes: what the drawing of a block is made of, in pixels, y down."""

from __future__ import annotations

from dataclasses import dataclass

Point = tuple[float, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Box:
    """A rectangle by its centre."""

    x: float
    y: float
    width: float
    height: float

    @property
    def top(self) -> float:
        return self.y - self.height / 2

    @property
    def bottom(self) -> float:
        return self.y + self.height / 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Route:
    """The course of an edge: a start, then lines (x, y) and cubic curves (x1, y1, x2, y2, x, y)."""

    start: Point
    segments: tuple[tuple[float, ...], ...]

    @property
    def end(self) -> Point:
        x, y = self.segments[-1][-2:]
        return x, y


@dataclass(frozen=True, kw_only=True)
class BlockLayout:
    """The geometry of one block, in pixels, y down."""

    width: float
    height: float
    input: Box
    nodes: dict[int, Box]
    """Alive node → its box."""
    edges: dict[tuple[int, int], Route]
    """(source, target) → course; the output's edges end on `merge`."""
    merge: Box | None
    """Concat and 1×1; None for the identity."""
    plus: Box | None
    output: Box
    shortcut: tuple[Route, ...]
    """input → plus (identity: output), in two parts where a box stands between."""
    stem: tuple[Route, ...]
    """merge → plus → output."""
    shortcut_box: Box | None
    levels: tuple[tuple[int, float], ...]
    """(level from 0, y) of the rows shown."""


def spread(box: Box, count: int) -> list[float]:
    """`count` points along a side of a box, centred."""
    step = min(9.0, (box.width - 16) / max(count - 1, 1))
    return [box.x + step * (position - (count - 1) / 2) for position in range(count)]


def bend(start: Point, end: Point) -> tuple[float, ...]:
    """A curve that leaves and arrives vertically."""
    middle = (start[1] + end[1]) / 2
    return (start[0], middle, end[0], middle, *end)


def around(start: Point, x: float, end: Point, middle: Box | None) -> tuple[Route, ...]:
    """Out to the right, down (through a box), and back, with round corners."""
    r = 14.0
    k = r * 0.45
    there = ((x - r, start[1]), (x - k, start[1], x, start[1] + k, x, start[1] + r))
    back = ((x, end[1] - r), (x, end[1] - k, x - k, end[1], x - r, end[1]), end)
    if middle is None:
        return (Route(start=start, segments=(*there, *back)),)
    return (
        Route(start=start, segments=(*there, (x, middle.top))),
        Route(start=(x, middle.bottom), segments=back),
    )
