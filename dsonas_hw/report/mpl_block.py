"""Blocks as matplotlib figures, from the same layout as the SVG."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dsonas_hw.architecture.architecture import Block
from dsonas_hw.report.draw import operation_colour, text_colour
from dsonas_hw.report.draw_geometry import BlockLayout, Box, Route
from dsonas_hw.report.draw_layout import lay_out_block
from dsonas_hw.space.space import INPUT_NODE, SearchSpace

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_INK, _QUIET = "#1d1d1f", "#62666d"


def block_figure(space: SearchSpace, block: Block, *, shortcut_conv: bool = False) -> Figure:
    """A block, drawn as `draw_block` draws it."""
    from matplotlib.figure import Figure

    layout = lay_out_block(space, block, shortcut_conv=shortcut_conv)
    figure = Figure(figsize=(layout.width / 80, layout.height / 80))
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_xlim(0, layout.width)
    axes.set_ylim(layout.height, 0)
    axes.set_aspect("equal")
    axes.axis("off")
    _draw_edges(axes, space, layout)
    for node, box in layout.nodes.items():
        colour = operation_colour(space.operation_of(node))
        _draw_box(
            axes,
            box,
            space.operation_of(node).label,
            radius=8,
            face=colour,
            ink=text_colour(colour),
            bold=True,
        )
    _draw_frame(axes, layout, block)
    for level, y in layout.levels:
        axes.text(4, y, f"level {level + 1}", fontsize=7, color=_QUIET, va="center")
    return figure


def _draw_edges(axes: Axes, space: SearchSpace, layout: BlockLayout) -> None:
    alpha = max(0.5, min(0.95, 1.1 - len(layout.edges) / 200))
    for (source, _), route in layout.edges.items():
        colour = _QUIET if source == INPUT_NODE else operation_colour(space.operation_of(source))
        _draw_route(axes, route, colour, alpha)


def _draw_frame(axes: Axes, layout: BlockLayout, block: Block) -> None:
    for route in (*layout.shortcut, *layout.stem):
        _draw_route(axes, route, _INK, 0.8)
    _draw_box(axes, layout.input, "input", radius=12)
    _draw_box(axes, layout.output, "output", radius=12)
    if layout.merge is None:
        axes.text(
            layout.input.x + 10,
            (layout.input.y + layout.output.y) / 2,
            "identity",
            fontsize=9,
            style="italic",
        )
    else:
        _draw_box(axes, layout.merge, "concat · conv 1×1" if len(block.output) > 1 else "conv 1×1", radius=6)
    if layout.plus is not None:
        _draw_box(axes, layout.plus, "+", radius=layout.plus.width / 2)
    if layout.shortcut_box is not None:
        _draw_box(axes, layout.shortcut_box, "1×1", radius=6)


def _draw_route(axes: Axes, route: Route, colour: str, alpha: float) -> None:
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path

    vertices, codes = [route.start], [Path.MOVETO]
    for segment in route.segments:
        points = list(zip(segment[::2], segment[1::2], strict=True))
        vertices += points
        codes += [Path.LINETO] if len(points) == 1 else [Path.CURVE4] * 3
    path = Path(vertices, [int(code) for code in codes])
    axes.add_patch(
        FancyArrowPatch(
            path=path, arrowstyle="->,head_length=2.5,head_width=1.6", color=colour, alpha=alpha,
            linewidth=1.1, shrinkA=0, shrinkB=0,
        )
    )  # fmt: skip


def _draw_box(
    axes: Axes,
    box: Box,
    label: str,
    *,
    radius: float,
    face: str = "#ffffff",
    ink: str = _INK,
    bold: bool = False,
) -> None:
    from matplotlib.patches import FancyBboxPatch

    axes.add_patch(
        FancyBboxPatch(
            (box.x - box.width / 2, box.top), box.width, box.height,
            boxstyle=f"round,pad=0,rounding_size={min(radius, box.height / 2, box.width / 2)}",
            facecolor=face, edgecolor=face if bold else _INK, linewidth=0.9, zorder=3,
        )
    )  # fmt: skip
    axes.text(
        box.x, box.y, label, fontsize=8.5, color=ink, ha="center", va="center", zorder=4,
        fontweight="bold" if bold else "normal",
    )  # fmt: skip
