"""Charts as matplotlib figures: what notebooks, files and (by `chart_svg`) pages show."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from dsonas_hw.report.chart import PALETTE, Axis, Chart, Mark, Series
from dsonas_hw.report.chart_labels import Dot, place_names
from dsonas_hw.report.numbers import THIN, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation

SIZE_INCHES = (5.0, 3.5)
"""As wide, in points, as a phone is in pixels: letters are read there at their own size."""
_TEXT, _SMALL = 10.5, 10.0
"""Sizes of letters, in points."""
_INK, _QUIET, _LINE, _PAPER = (PALETTE[name] for name in ("ink", "quiet", "line", "paper"))
_BEHIND = {"facecolor": _PAPER, "edgecolor": "none", "pad": 0.6, "alpha": 0.75}
"""Under a label, so that lines do not cross it out."""


def chart_figure(chart: Chart) -> Figure:
    """Draw one chart: grey grid lines, direct labels, no frame.

    The artist of series i has the gid `series-i`, with a marker for each of `drawn_points` in their order.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE_INCHES, layout="constrained")
    axes = figure.subplots()
    for position, series in enumerate(chart.series):
        _plot(axes, chart, series, gid=f"series-{position}")
    for mark in chart.marks:
        line = axes.axvline if mark.axis == "x" else axes.axhline
        line(mark.value, color=_INK, linewidth=0.8, linestyle=(0, (3, 3)), alpha=0.7)
    _leave_room(axes, chart)
    _scale(axes, "x", chart.x)
    _scale(axes, "y", chart.y)
    axes.set_xlabel(chart.x.label, fontsize=_TEXT, loc="right", color=_QUIET)
    axes.set_title(chart.y.label, fontsize=_TEXT, loc="left", color=_QUIET, pad=22 if _upright(chart) else 9)
    if chart.legend:
        from matplotlib.lines import Line2D

        handles = [Line2D([], [], color=PALETTE.get(c, c), label=name) for name, c in chart.legend]
        columns = max(1, min(len(handles), 62 // (max(len(name) for name, _ in chart.legend) + 5)))
        figure.legend(
            handles=handles, loc="outside lower left", ncols=columns, fontsize=_SMALL, frameon=False,
            labelcolor=_INK, handlelength=1.2, columnspacing=1.2,
        )  # fmt: skip
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(PALETTE["muted"])
    axes.tick_params(left=False, bottom=False, labelsize=_SMALL, colors=_QUIET)
    axes.grid(axis="y", color=_LINE, linewidth=0.8)
    axes.set_axisbelow(True)
    _label(figure, axes, chart)
    return figure


def drawn_points(chart: Chart, series: Series) -> list[int]:
    """Positions of the points that are drawn: no holes, and nothing below zero on a logarithmic axis."""
    return [
        i
        for i, (x, y) in enumerate(zip(series.x, series.y, strict=True))
        if y is not None and (x > 0 or not chart.x.log) and (y > 0 or not chart.y.log)
    ]


def tick_text(axis: Axis, value: float) -> str:
    """A tick's label: %, or a short number."""
    if axis.percent:
        return f"{100 * value:.4g}{THIN}%"
    return short(value).replace("-", "−") if value < 0 else short(value)


def spread_apart(values: Sequence[float], *, distance: float, limit: float) -> list[float]:
    """Ascending values, moved so that neighbours are `distance` apart and none is above `limit`."""
    moved = list(values)
    for i in range(1, len(moved)):
        moved[i] = max(moved[i], moved[i - 1] + distance)
    if moved and moved[-1] > limit:
        moved[-1] = limit
        for i in range(len(moved) - 2, -1, -1):
            moved[i] = min(moved[i], moved[i + 1] - distance)
    return moved


def _plot(axes: Axes, chart: Chart, series: Series, *, gid: str) -> None:
    drawn = set(drawn_points(chart, series))
    values = [y if i in drawn and y is not None else math.nan for i, y in enumerate(series.y)]
    style: dict[str, Any] = {"color": PALETTE.get(series.colour, series.colour), "alpha": series.opacity}
    if series.kind in ("points", "front") or len(drawn) == 1:
        style |= {"marker": "o", "markersize": 1.5 * series.size, "markeredgewidth": 0}
        if series.hollow:
            style |= {"markerfacecolor": "none", "markeredgewidth": 1.6}
    if series.kind == "points":
        style["linestyle"] = "none"
    else:
        style |= {"linewidth": 0.8 * series.width, "linestyle": "--" if series.dashed else "-"}
    stairs = "steps-post" if series.kind == "step" else "default"
    axes.plot(series.x, values, drawstyle=stairs, gid=gid, clip_on=False, **style)


def _scale(axes: Axes, which: str, spec: Axis) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    axis = axes.xaxis if which == "x" else axes.yaxis
    if spec.log:
        (axes.set_xscale if which == "x" else axes.set_yscale)("log")
        low, high = axes.get_xlim() if which == "x" else axes.get_ylim()
        axis.set_major_locator(LogLocator(subs=(1.0,) if high > 1500 * low else (1.0, 2.0, 5.0)))
        axis.set_minor_locator(NullLocator())
    else:
        axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10], integer=spec.whole, min_n_ticks=2))
    axis.set_major_formatter(FuncFormatter(lambda value, _: tick_text(spec, value)))
    (axes.set_xlim if which == "x" else axes.set_ylim)(spec.low, spec.high)


def _leave_room(axes: Axes, chart: Chart) -> None:
    """Widen the axes to the right for the names at the ends of lines and of level marks."""
    names = [series.name for series in chart.series if series.label and series.kind != "points"]
    names += [mark.label for mark in chart.marks if mark.axis == "y"]
    if names and not chart.x.log:
        low, high = axes.get_xlim()
        axes.set_xlim(low, high + (high - low) * 0.021 * max(map(len, names)))


# -- labels ------------------------------------------------------------------------------------------------


def _upright(chart: Chart) -> list[Mark]:
    return sorted((m for m in chart.marks if m.axis == "x"), key=lambda m: m.value)


def _label(figure: Figure, axes: Axes, chart: Chart) -> None:
    """Names of marks, lines and points; placed, in points, once everything else has its place."""
    labelled = [series for series in chart.series if series.label or series.names]
    if not (labelled or chart.marks):
        return
    figure.draw_without_rendering()
    canvas = _Canvas(figure, axes)
    canvas.label_upright(_upright(chart))
    canvas.label_ends(chart)
    if any(series.names or series.kind == "points" for series in labelled):
        canvas.name_points(chart)


class _Canvas:
    """Axes whose final place is known, in points from the figure's left upper corner."""

    def __init__(self, figure: Figure, axes: Axes) -> None:
        self.axes, self.per_point = axes, figure.dpi / 72
        self.height = figure.bbox.height / self.per_point
        frame = axes.get_window_extent()
        self.left, self.right = frame.x0 / self.per_point, frame.x1 / self.per_point
        self.top, self.bottom = (self.height - y / self.per_point for y in (frame.y1, frame.y0))
        self.end = figure.bbox.width / self.per_point - 2

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Where data stand."""
        right, up = self.axes.transData.transform((x, y)) / self.per_point
        return float(right), self.height - float(up)

    def write(self, text: str, x: float, y: float, **style: Any) -> Annotation:
        style = {"fontsize": _SMALL, "color": _INK, "va": "center", "bbox": _BEHIND, **style}
        at = (x, self.height - y)
        written = self.axes.annotate(text, at, xycoords="figure points", annotation_clip=False, **style)
        written.set_in_layout(False)
        return written

    def label_upright(self, marks: Sequence[Mark]) -> None:
        """Above the frame, moved apart where they would overlap."""
        room = max((6.0 * len(mark.label) for mark in marks), default=0.0)
        wanted = [max(self.place(m.value, self.axes.get_ylim()[0])[0], self.left + room / 2) for m in marks]
        moved = spread_apart(wanted, distance=room + 4, limit=self.end - room / 2)
        for mark, x in zip(marks, moved, strict=True):
            self.write(mark.label, x, self.top - 8, ha="center", gid="mark-label")

    def label_ends(self, chart: Chart) -> None:
        """Names of lines at their ends and of level marks on the right, none over another."""
        ends: list[tuple[float, str, dict[str, Any]]] = []
        for series in chart.series:
            if series.label and series.kind != "points" and (drawn := drawn_points(chart, series)):
                x, y = self.place(series.x[drawn[-1]], series.y[drawn[-1]] or 0.0)
                colour = PALETTE.get(series.colour, series.colour)
                style: dict[str, Any] = {"x": x + 5, "ha": "left", "color": colour, "fontweight": "bold"}
                ends.append((y, series.name, style))
        for mark in (m for m in chart.marks if m.axis == "y"):
            y = self.place(self.axes.get_xlim()[0], mark.value)[1] - 6
            ends.append((y, mark.label, {"x": self.right, "ha": "right"}))
        ends.sort(key=lambda end: end[0])
        moved = spread_apart([y for y, _, _ in ends], distance=12.5, limit=self.bottom - 5)
        for y, (_, name, style) in zip(moved, ends, strict=True):
            self.write(name, y=y, **style)

    def name_points(self, chart: Chart) -> None:
        """The names of points, beside them: they cover neither each other nor points nor dashed lines."""
        named: list[tuple[Dot, str]] = []
        others: list[tuple[Dot, str]] = []
        for series in chart.series:
            ids = drawn_points(chart, series)
            at = [self.place(series.x[i], series.y[i] or 0.0) for i in ids]
            texts = [series.names[i] if series.names else "" for i in ids]
            if series.label and series.kind == "points" and texts:
                texts[-1] = series.name
            if series.dashed:
                at = [_between(a, b, part / 8) for a, b in pairwise(at) for part in range(9)]
                texts = [""] * len(at)
            colour = PALETTE.get(series.colour, series.colour) if series.label else _INK
            for (x, y), text in zip(at, texts, strict=True):
                dot = Dot(x=x, y=y, radius=0.75 * series.size, name=text)
                (named if text else others).append((dot, colour))
        dots = [dot for dot, _ in (*named, *others)]
        places = place_names(dots, height=8.0, character=7.5, right=self.end, bottom=self.bottom - 2)
        align = {"start": "left", "middle": "center", "end": "right"}
        for (dot, colour), place in zip(named, places, strict=True):
            self.write(
                dot.name, dot.x + place.dx, dot.y + place.dy, ha=align[place.anchor], va="baseline",
                color=colour, bbox=None, fontweight="normal" if colour == _INK else "bold",
            )  # fmt: skip


def _between(a: tuple[float, float], b: tuple[float, float], part: float) -> tuple[float, float]:
    return a[0] + part * (b[0] - a[0]), a[1] + part * (b[1] - a[1])
