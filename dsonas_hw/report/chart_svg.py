"""A matplotlib figure as part of a page: in the page's font and colours, its points found by their ids."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET
from functools import lru_cache

from dsonas_hw.report.chart import PALETTE, Chart
from dsonas_hw.report.chart_figure import chart_figure, drawn_points

_SVG = "{http://www.w3.org/2000/svg}"
_LINK = "{http://www.w3.org/1999/xlink}href"
_NAMES = {value: name for name, value in PALETTE.items()}


@lru_cache(maxsize=64)
def chart_svg(chart: Chart) -> str:
    """The chart as an `<svg>` element that scales with the page and follows its light and dark colours.

    A point of a series with `ids` carries `data-point`, one of a series with `hints` a `<title>`.
    """
    import matplotlib as mpl

    buffer = io.BytesIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": chart.name}):
        chart_figure(chart).savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    # Written by matplotlib here and now, so no stranger's XML.
    root = ET.fromstring(buffer.getvalue())
    for position, series in enumerate(chart.series):
        group = root.find(f".//{_SVG}g[@id='series-{position}']")
        markers = [] if group is None else group.findall(f".//{_SVG}use")
        for marker, i in zip(markers, drawn_points(chart, series), strict=False):  # a line has no markers
            if series.ids:
                marker.set("data-point", str(series.ids[i]))
            if series.hints:
                ET.SubElement(marker, f"{_SVG}title").text = series.hints[i]
    return _as_part(root, label=f"{chart.title}. {chart.caption}")


def _as_part(root: ET.Element, *, label: str) -> str:
    """The element without what would reach beyond it or is of no use there."""
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{_SVG}metadata", f"{_SVG}style", f"{_SVG}clipPath"):
                parent.remove(child)
    used = set()
    for element in root.iter():
        element.tag = element.tag.removeprefix(_SVG)
        if _LINK in element.attrib:
            element.set("href", element.attrib.pop(_LINK))
        used |= {match for value in element.attrib.values() for match in re.findall(r"#([a-z]\w{8,})", value)}
    for element in root.iter():
        if element.get("id") not in used:
            element.attrib.pop("id", None)
        for name in ("clip-path", "transform") if element.tag in ("text", "path", "g") else ():
            element.attrib.pop(name, None)
        for name in {"d", "x", "y", "style"} & element.attrib.keys():
            value = re.sub(r"(\.\d\d)\d+", r"\1", element.attrib[name]).replace(" \n", " ").strip()
            element.set(name, _page_style(value) if name == "style" else value)
    for name in ("width", "height", "version"):
        del root.attrib[name]
    root.attrib |= {"class": "chart", "role": "img", "aria-label": label}
    return re.sub(r">\s+<", "><", ET.tostring(root, encoding="unicode"))


def _page_style(style: str) -> str:
    """Colours of the palette become variables of the page, letters the page's."""
    style = re.sub(r"font-family:[^;]*;? ?|stroke-linejoin: \w+;? ?", "", style)
    return re.sub("#[0-9a-f]{6}", lambda found: _variable(found[0]), style)


def _variable(colour: str) -> str:
    return f"var(--{_NAMES[colour]},{colour})" if colour in _NAMES else colour
