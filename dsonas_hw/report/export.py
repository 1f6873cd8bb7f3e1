"""Figures, drawings and tables as files: SVG and PNG of what is seen, CSV and JSON of what is in it."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from dsonas_hw.architecture.architecture import Architecture
from dsonas_hw.files import atomic_write, write_json, write_text
from dsonas_hw.report.chart import Chart
from dsonas_hw.report.draw import draw_block
from dsonas_hw.report.draw_network import draw_architecture, drawn_blocks
from dsonas_hw.report.table import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PNG_DPI = 200


def write_figure_file(directory: Path, name: str, figure: Figure) -> list[Path]:
    """NAME.svg and NAME.png; text in the SVG stays text, and no date makes two runs differ.

    Raises:
        RunError: the folder cannot be written.
    """
    import matplotlib as mpl

    svg, png = directory / f"{name}.svg", directory / f"{name}.png"
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}), atomic_write(svg) as file:
        figure.savefig(file, format="svg", metadata={"Date": None}, bbox_inches="tight")
    write_png(png, figure)
    return [svg, png]


def write_png(path: Path, figure: Figure) -> None:
    """One PNG, sharp enough to print."""
    with atomic_write(path) as file:
        figure.savefig(file, format="png", dpi=PNG_DPI, bbox_inches="tight")


def write_drawings(directory: Path, architecture: Architecture, *, name: str, block_name: str) -> list[Path]:
    """The whole network (JSON: the architecture itself) and each of its blocks, as SVG and PNG.

    Raises:
        RunError: the folder cannot be written.
    """
    from dsonas_hw.report.draw_figure import drawing_figure

    drawings = {name: draw_architecture(architecture)}
    for number, (_, block, conv) in enumerate(drawn_blocks(architecture), start=1):
        drawing = draw_block(architecture.space, block, shortcut_conv=conv)
        drawings[f"{block_name}-{number:02d}"] = drawing
    paths = [directory / f"{name}.json"]
    write_json(paths[0], architecture.to_json())
    for stem, drawing in drawings.items():
        svg, png = directory / f"{stem}.svg", directory / f"{stem}.png"
        write_text(svg, drawing)
        write_png(png, drawing_figure(drawing))
        paths += [svg, png]
    return paths


def write_chart_data(directory: Path, chart: Chart) -> list[Path]:
    """NAME.csv (series, x, y) and NAME.json (the same with axes, units and marks)."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["series", "x", "y"])
    for series in chart.series:
        writer.writerows(
            [series.name, x, "" if y is None else y] for x, y in zip(series.x, series.y, strict=True)
        )
    csv_path, json_path = directory / f"{chart.name}.csv", directory / f"{chart.name}.json"
    write_text(csv_path, buffer.getvalue())
    write_json(
        json_path,
        {
            "title": chart.title,
            "x": chart.x.label,
            "y": chart.y.label,
            "series": [{"name": s.name, "x": list(s.x), "y": list(s.y)} for s in chart.series],
            "marks": [{"axis": m.axis, "value": m.value, "label": m.label} for m in chart.marks],
        },
    )
    return [csv_path, json_path]


def write_tables(directory: Path, tables: Iterable[Table]) -> list[Path]:
    """NAME.csv and NAME.json of every table; keys carry units, empty is "not known"."""
    paths = []
    for table in tables:
        csv_path, json_path = directory / f"{table.name}.csv", directory / f"{table.name}.json"
        write_text(csv_path, table.to_csv())
        write_json(json_path, table.to_records())
        paths += [csv_path, json_path]
    return paths
