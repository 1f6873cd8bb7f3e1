"""Drawings as matplotlib figures, from their SVG: of SVG it knows what `draw` and `draw_network` write."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dsonas_hw.report.chart import PALETTE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Affine2D

PIXELS_PER_INCH = 80.0
_INHERITED = ("fill", "stroke", "stroke-width", "font-size", "font-weight", "font-style", "text-anchor")


def drawing_figure(drawing: str) -> Figure:
    """A drawing of `draw_block` or `draw_architecture` as a figure, on white."""
    from matplotlib.figure import Figure
    from matplotlib.transforms import Affine2D

    root = ET.fromstring(drawing)
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    figure = Figure(figsize=(width / PIXELS_PER_INCH, height / PIXELS_PER_INCH))
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    axes.axis("off")
    _draw(axes, root, {}, 1.0, Affine2D())
    return figure


def _draw(axes: Axes, parent: ET.Element, outer: Mapping[str, str], opacity: float, to: Affine2D) -> None:
    style = {**outer, **{name: value for name, value in parent.attrib.items() if name in _INHERITED}}
    opacity *= float(parent.get("opacity", 1.0))
    to = _placed(parent.get("transform", ""), to)
    kind = parent.tag.rpartition("}")[2]
    if kind == "text":
        _write(axes, parent, style, opacity, to)
    elif kind in ("path", "rect", "circle"):
        from matplotlib.patches import PathPatch

        axes.add_patch(
            PathPatch(
                _outline(kind, parent.attrib).transformed(to),
                facecolor=_colour(style.get("fill", "none"), opacity * float(parent.get("fill-opacity", 1))),
                edgecolor=_colour(
                    style.get("stroke", "none"), opacity * float(parent.get("stroke-opacity", 1))
                ),
                linewidth=0.9 * float(style.get("stroke-width", 1)),
                capstyle="round",
            )
        )
    for child in parent:
        _draw(axes, child, style, opacity, to)


def _placed(transform: str, outer: Affine2D) -> Affine2D:
    """`translate(x y) scale(s)` before the transformation of what is around."""
    from matplotlib.transforms import Affine2D

    if not transform:
        return outer
    x, y, scale = map(float, re.findall(r"-?[\d.]+", transform))
    return Affine2D(outer.get_matrix() @ Affine2D().scale(scale).translate(x, y).get_matrix())


def _outline(kind: str, attributes: Mapping[str, str]) -> Any:
    """The path, in the drawing's pixels, of a shape."""
    from matplotlib.patches import BoxStyle
    from matplotlib.path import Path

    def number(name: str) -> float:
        return float(attributes.get(name, 0))

    if kind == "circle":
        return Path.circle((number("cx"), number("cy")), number("r"))
    if kind == "rect":
        x, y, width, height = map(number, ("x", "y", "width", "height"))
        return BoxStyle.Round(pad=0, rounding_size=number("rx"))(x, y, width, height, 1.0)
    vertices: list[tuple[float, float]] = []
    codes: list[int] = []
    for command, text in re.findall(r"([A-Za-z])([^A-Za-z]*)", attributes["d"]):
        numbers = [float(value) for value in re.findall(r"-?[\d.]+", text)]
        x, y = vertices[-1] if vertices else (0.0, 0.0)
        match command:
            case "H":
                points = [(numbers[0], y)]
            case "h":
                points = [(x + numbers[0], y)]
            case "v":
                points = [(x, y + numbers[0])]
            case "m" | "l":
                points = [(x + numbers[0], y + numbers[1])]
            case _:
                points = list(zip(numbers[::2], numbers[1::2], strict=True))
        code = {"M": Path.MOVETO, "m": Path.MOVETO, "C": Path.CURVE4}.get(command, Path.LINETO)
        vertices += points
        codes += [int(code)] * len(points)
    return Path(vertices, codes)


def _write(axes: Axes, element: ET.Element, style: Mapping[str, str], opacity: float, to: Affine2D) -> None:
    x, y = to.transform((float(element.attrib["x"]), float(element.attrib["y"])))
    scale = float(to.get_matrix()[0, 0])
    align = {"start": "left", "middle": "center", "end": "right"}
    axes.text(
        x, y, element.text or "", color=_colour(style.get("fill", "currentColor"), opacity),
        fontsize=72 / PIXELS_PER_INCH * scale * float(style["font-size"]), va="baseline",
        ha=align[style.get("text-anchor", "start")], style=style.get("font-style", "normal"),
        fontweight="bold" if "font-weight" in style else "normal", parse_math=False,
    )  # fmt: skip


def _colour(name: str, opacity: float) -> Any:
    return "none" if name == "none" else (PALETTE["ink"] if name == "currentColor" else name, opacity)
