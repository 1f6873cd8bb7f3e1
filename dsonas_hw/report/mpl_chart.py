"""Charts as matplotlib figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dsonas_hw.report.chart import PALETTE, Axis, Chart, Series, axis_ticks
from dsonas_hw.report.chart_labels import Dot, place_names
from dsonas_hw.report.chart_svg import tick_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_INK, _QUIET, _LINE = "#1d1d1f", "#62666d", "#e2e4e8"


def chart_figure(chart: Chart) -> Figure:
    """One chart; grey grid lines, direct labels, no frame."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.6, 3.6), layout="constrained")
    axes = figure.subplots()
    for series in chart.series:
        _plot(axes, series)
    for mark in chart.marks:
        line = axes.axvline if mark.axis == "x" else axes.axhline
        line(mark.value, color=_INK, linewidth=0.8, linestyle=(0, (3, 3)), alpha=0.7)
        where = {"x": (mark.value, 1.01), "y": (0.01, mark.value)}[mark.axis]
        transform = axes.get_xaxis_transform() if mark.axis == "x" else axes.get_yaxis_transform()
        axes.text(
            *where, mark.label, transform=transform, fontsize=8, va="bottom",
            ha="center" if mark.axis == "x" else "left",
        )  # fmt: skip
    _scale(axes, "x", chart.x, chart.limits("x"))
    _scale(axes, "y", chart.y, chart.limits("y"))
    if chart.legend:
        from matplotlib.lines import Line2D

        handles = [Line2D([], [], color=PALETTE.get(c, c), label=name) for name, c in chart.legend]
        figure.legend(handles=handles, loc="outside upper left", ncols=3, fontsize=8, frameon=False)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(length=0, labelsize=8, colors=_QUIET)
    axes.grid(axis="y", color=_LINE, linewidth=0.8)
    axes.set_axisbelow(True)
    _name_points(figure, axes, chart)
    return figure


def _plot(axes: Axes, series: Series) -> None:
    colour = PALETTE.get(series.colour, series.colour)
    values = [float("nan") if y is None else y for y in series.y]
    style: dict[str, Any] = {"color": colour, "alpha": series.opacity}
    if series.kind in ("points", "front"):
        style |= {"marker": "o", "markersize": 1.5 * series.size}
        if series.hollow:
            style |= {"markerfacecolor": "none", "markeredgewidth": 1.6}
    if series.kind == "points":
        style["linestyle"] = "none"
    else:
        style |= {"linewidth": 0.8 * series.width, "linestyle": "--" if series.dashed else "-"}
    axes.plot(series.x, values, drawstyle="steps-post" if series.kind == "step" else "default", **style)
    known = [(x, y) for x, y in zip(series.x, series.y, strict=True) if y is not None]
    if series.label and known:
        from matplotlib.patheffects import withStroke

        axes.annotate(
            series.name, known[-1], xytext=(6, 0), textcoords="offset points", color=colour, fontsize=8,
            fontweight="bold", va="center", annotation_clip=False,
            path_effects=[withStroke(linewidth=3, foreground="white")],
        )  # fmt: skip


def _name_points(figure: Figure, axes: Axes, chart: Chart) -> None:
    """The names of points, beside them; placed once everything else has its place."""
    named = [s for s in chart.series if s.names]
    if not named:
        return
    from matplotlib.patheffects import withStroke

    figure.draw_without_rendering()
    per_point = figure.dpi / 72
    points = [
        (x, y, name, series.size * 0.75)
        for series in named
        for x, y, name in zip(series.x, series.y, series.names, strict=True)
        if y is not None
    ]
    dots = []
    for x, y, name, radius in points:
        right, up = axes.transData.transform((x, y)) / per_point
        dots.append(Dot(x=float(right), y=-float(up), radius=radius, name=name))
    frame = axes.get_window_extent()
    right, bottom = float(frame.x1) / per_point + 8, -float(frame.y0) / per_point - 2
    places = place_names(dots, height=6.0, character=5.5, right=right, bottom=bottom)
    align = {"start": "left", "middle": "center", "end": "right"}
    for (x, y, name, _), place in zip(points, places, strict=True):
        axes.annotate(
            name, (x, y), xytext=(place.dx, -place.dy), textcoords="offset points", fontsize=7.5,
            ha=align[place.anchor], va="baseline", color=_INK, annotation_clip=False,
            path_effects=[withStroke(linewidth=2, foreground="white")],
        )  # fmt: skip


def _scale(axes: Axes, which: str, spec: Axis, limits: tuple[float, float]) -> None:
    ticks = axis_ticks(spec, limits)
    axis = axes.xaxis if which == "x" else axes.yaxis
    if spec.log:
        (axes.set_xscale if which == "x" else axes.set_yscale)("log")
        axis.set_minor_locator(_no_ticks())
    axis.set_ticks(ticks, labels=[tick_text(spec, tick) for tick in ticks])
    (axes.set_xlim if which == "x" else axes.set_ylim)(*limits)
    if which == "x":
        axes.set_xlabel(spec.label, fontsize=9, loc="right", color=_QUIET)
    else:
        axes.set_ylabel(spec.label, fontsize=9, loc="top", color=_QUIET)


def _no_ticks() -> Any:
    from matplotlib.ticker import NullLocator

    return NullLocator()
