"""Charts as SVG for a page: small, no script, coloured by the page's style (`--accent`, `--ink`, …)."""

from __future__ import annotations

import math
from html import escape

from dsonas_hw.report.chart import PALETTE, Axis, Chart, Mark, Series, axis_ticks
from dsonas_hw.report.chart_labels import Dot, place_names
from dsonas_hw.report.numbers import THIN, short

WIDTH, HEIGHT = 480, 290
_CHARACTER = 6.4
"""Typical width of a character at 12 px."""


def chart_svg(chart: Chart, *, width: int = WIDTH, height: int = HEIGHT) -> str:
    """The chart as an `<svg>` element; scales with the page."""
    return _Plot(chart, width, height).svg()


class _Plot:
    """Pixel coordinates of one chart."""

    def __init__(self, chart: Chart, width: int, height: int) -> None:
        self.chart, self.width, self.height = chart, width, height
        self.x_limits, self.y_limits = chart.limits("x"), chart.limits("y")
        self.y_ticks = axis_ticks(chart.y, self.y_limits, max(3, height // 62))
        widest = max((len(tick_text(chart.y, t)) for t in self.y_ticks), default=1)
        labels = [s.name for s in chart.series if s.label and s.kind != "points"]
        self.left = 14 + widest * _CHARACTER
        self.right = width - 10 - max((len(name) * _CHARACTER + 6 for name in labels), default=4)
        self.top = 36.0 + (18.0 * self._legend_rows() if chart.legend else 0.0)
        self.bottom = height - 40.0
        room = max(2, int((self.right - self.left) // 64))
        self.x_ticks = axis_ticks(chart.x, self.x_limits, room)

    def svg(self) -> str:
        parts = [self._grid(), self._legend()]
        parts += [self._mark_line(mark) for mark in self.chart.marks]
        parts += [self._series(series) for series in self.chart.series]
        parts += self._mark_labels()
        parts += self._names()
        parts.append(self._end_labels())
        return (
            f'<svg class="chart" viewBox="0 0 {self.width} {self.height}" role="img" '
            f'aria-label="{escape(self.chart.title)}. {escape(self.chart.caption)}">{"".join(parts)}</svg>'
        )

    # -- coordinates -----------------------------------------------------------------------------------

    def px(self, value: float) -> float:
        return self.left + _position(value, self.x_limits, self.chart.x.log) * (self.right - self.left)

    def py(self, value: float) -> float:
        return self.bottom - _position(value, self.y_limits, self.chart.y.log) * (self.bottom - self.top)

    def _points(self, series: Series) -> list[tuple[float, float] | None]:
        """Pixels of every point; None where there is a hole (or zero on a logarithmic axis)."""
        found: list[tuple[float, float] | None] = []
        for x, y in zip(series.x, series.y, strict=True):
            lost = y is None or (self.chart.y.log and y <= 0) or (self.chart.x.log and x <= 0)
            found.append(None if lost or y is None else (self.px(x), self.py(y)))
        return found

    # -- parts -----------------------------------------------------------------------------------------

    def _grid(self) -> str:
        parts = [f'<text class="title" x="{self.left:.1f}" y="14">{escape(self.chart.y.label)}</text>']
        for tick in self.y_ticks:
            y = self.py(tick)
            parts.append(
                f'<line class="grid" x1="{self.left:.1f}" x2="{self.right:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'
                f'<text class="tick" x="{self.left - 6:.1f}" y="{y + 4:.1f}" text-anchor="end">'
                f"{tick_text(self.chart.y, tick)}</text>"
            )
        parts.append(
            f'<line class="base" x1="{self.left:.1f}" x2="{self.right:.1f}" y1="{self.bottom:.1f}" '
            f'y2="{self.bottom:.1f}"/>'
        )
        for tick in self.x_ticks:
            parts.append(
                f'<text class="tick" x="{self.px(tick):.1f}" y="{self.bottom + 16:.1f}" '
                f'text-anchor="middle">{tick_text(self.chart.x, tick)}</text>'
            )
        parts.append(
            f'<text class="title" x="{self.right:.1f}" y="{self.bottom + 34:.1f}" '
            f'text-anchor="end">{escape(self.chart.x.label)}</text>'
        )
        return "".join(parts)

    def _legend_rows(self) -> int:
        return 1 + max((row for _, _, row, _ in self._legend_places()), default=0)

    def _legend_places(self) -> list[tuple[str, str, int, float]]:
        places, x, row = [], self.left, 0
        for name, colour in self.chart.legend:
            room = 30 + len(name) * _CHARACTER
            if x + room > self.width and x > self.left:
                x, row = self.left, row + 1
            places.append((name, colour, row, x))
            x += room
        return places

    def _legend(self) -> str:
        return "".join(
            f'<line x1="{x:.1f}" x2="{x + 12:.1f}" y1="{30 + 18 * row}" y2="{30 + 18 * row}" '
            f'stroke-width="3" {_stroke(colour)}/>'
            f'<text class="tick" x="{x + 16:.1f}" y="{34 + 18 * row}">{escape(name)}</text>'
            for name, colour, row, x in self._legend_places()
        )

    def _mark_line(self, mark: Mark) -> str:
        if mark.axis == "x":
            x = self.px(mark.value)
            ends = (x, x, self.top, self.bottom)
        else:
            y = self.py(mark.value)
            ends = (self.left, self.right, y, y)
        return '<line class="mark" x1="{:.1f}" x2="{:.1f}" y1="{:.1f}" y2="{:.1f}"/>'.format(*ends)

    def _mark_labels(self) -> list[str]:
        """Above the chart or on its left, moved apart where they would overlap."""
        upright = sorted((m for m in self.chart.marks if m.axis == "x"), key=lambda m: self.px(m.value))
        level = sorted((m for m in self.chart.marks if m.axis == "y"), key=lambda m: self.py(m.value))
        room = max((len(m.label) * _CHARACTER for m in upright), default=0.0)
        places = [max(self.px(m.value), self.left + room / 2) for m in upright]
        xs = spread_apart(places, distance=room + 4, limit=self.width - room / 2)
        ys = spread_apart([self.py(m.value) - 5 for m in level], distance=13.0, limit=self.bottom - 3)
        return [
            *(_mark_label(m, x, self.top - 3, "middle") for m, x in zip(upright, xs, strict=True)),
            *(_mark_label(m, self.left + 5, y, "start") for m, y in zip(level, ys, strict=True)),
        ]

    def _names(self) -> list[str]:
        """The names of points, beside them."""
        dots = [
            Dot(x=point[0], y=point[1], radius=series.size, name=name)
            for series in self.chart.series
            if series.names
            for point, name in zip(self._points(series), series.names, strict=True)
            if point is not None
        ]
        right, bottom = float(self.width), self.bottom - 2
        places = place_names(dots, height=8.0, character=8.0, right=right, bottom=bottom)
        return [
            f'<text class="point-name" x="{dot.x + place.dx:.1f}" y="{dot.y + place.dy:.1f}" '
            f'text-anchor="{place.anchor}">{escape(dot.name)}</text>'
            for dot, place in zip(dots, places, strict=True)
        ]

    def _series(self, series: Series) -> str:
        points = self._points(series)
        parts = []
        if series.kind != "points":
            dash = ' stroke-dasharray="5 4"' if series.dashed else ""
            parts.append(
                f'<path d="{_line(points, stairs=series.kind == "step")}" fill="none" '
                f'stroke-width="{series.width:g}" stroke-linejoin="round" {_stroke(series.colour)}{dash}/>'
            )
        if series.kind in ("points", "front") or sum(p is not None for p in points) == 1:
            parts += [self._dot(series, i, point) for i, point in enumerate(points) if point is not None]
        opacity = f' opacity="{series.opacity:g}"' if series.opacity < 1 else ""
        return f"<g{opacity}>{''.join(parts)}</g>"

    def _dot(self, series: Series, index: int, point: tuple[float, float]) -> str:
        number = f' data-point="{series.ids[index]}"' if series.ids else ""
        hint = f"<title>{escape(series.hints[index])}</title>" if series.hints else ""
        paint = (
            f'fill="none" stroke-width="2.2" {_stroke(series.colour)}'
            if series.hollow
            else f'style="fill:{_colour(series.colour)}"'
        )
        return (
            f'<circle cx="{point[0]:.1f}" cy="{point[1]:.1f}" r="{series.size:g}" {paint}{number}>'
            f"{hint}</circle>"
        )

    def _end_labels(self) -> str:
        """Names beside the last dot, or at the right of the lines, moved apart where they would overlap."""
        parts, lines = [], []
        for series in self.chart.series:
            points = [p for p in self._points(series) if p is not None]
            if not series.label or not points:
                continue
            x, y = points[-1]
            if series.kind == "points":
                fits = x + series.size + 6 + len(series.name) * _CHARACTER < self.width
                shift = series.size + 5
                parts.append(
                    _end_label(series, x + shift if fits else x - shift, y, "start" if fits else "end")
                )
            else:
                lines.append((y, max(x, self.right) if x > self.right - 0.1 * self.width else x, series))
        lines.sort(key=lambda line: line[0])
        heights = spread_apart([y for y, _, _ in lines], distance=15.0, limit=self.bottom)
        parts += [
            _end_label(series, x + 6, y, "start") for y, (_, x, series) in zip(heights, lines, strict=True)
        ]
        return "".join(parts)


def spread_apart(values: list[float], *, distance: float, limit: float) -> list[float]:
    """Ascending values, moved so that neighbours are `distance` apart and none is above `limit`."""
    moved = list(values)
    for i in range(1, len(moved)):
        moved[i] = max(moved[i], moved[i - 1] + distance)
    if moved and moved[-1] > limit:
        moved[-1] = limit
        for i in range(len(moved) - 2, -1, -1):
            moved[i] = min(moved[i], moved[i + 1] - distance)
    return moved


def _mark_label(mark: Mark, x: float, y: float, anchor: str) -> str:
    return (
        f'<text class="mark-label" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(mark.label)}</text>'
    )


def _end_label(series: Series, x: float, y: float, anchor: str) -> str:
    return (
        f'<text class="series" x="{x:.1f}" y="{y + 4:.1f}" text-anchor="{anchor}" '
        f'style="fill:{_colour(series.colour)}">{escape(series.name)}</text>'
    )


def _position(value: float, limits: tuple[float, float], log: bool) -> float:
    low, high = limits
    if log:
        return math.log(max(value, low * 1e-3) / low) / math.log(high / low)
    return (value - low) / (high - low)


def tick_text(axis: Axis, value: float) -> str:
    """A tick's label: %, or a short number."""
    if axis.percent:
        return f"{100 * value:.4g}{THIN}%"
    return short(value).replace("-", "−") if value < 0 else short(value)


def _colour(name: str) -> str:
    return f"var(--{name},{PALETTE[name]})" if name in PALETTE else name


def _stroke(name: str) -> str:
    return f'style="stroke:{_colour(name)}"'


def _line(points: list[tuple[float, float] | None], *, stairs: bool) -> str:
    parts: list[str] = []
    pen_down = False
    for point in points:
        if point is None:
            pen_down = False
            continue
        x, y = point
        if not pen_down:
            parts.append(f"M{x:.1f} {y:.1f}")
        elif stairs:
            parts.append(f"H{x:.1f}V{y:.1f}")
        else:
            parts.append(f"L{x:.1f} {y:.1f}")
        pen_down = True
    return "".join(parts)
