"""Charts: points stand where the axis says, labels keep apart, and a page finds every point again."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from itertools import combinations, pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dsonas_hw.report.chart import Axis, Chart, Mark, Series, spans, thin
from dsonas_hw.report.chart_figure import chart_figure, spread_apart
from dsonas_hw.report.chart_labels import Dot, Place, place_names
from dsonas_hw.report.chart_svg import chart_svg

SVG = "{http://www.w3.org/2000/svg}"


def chart(*series: Series, x: Axis | None = None, y: Axis | None = None, **rest: object) -> Chart:
    return Chart(
        name="c", title="A title", caption="A caption.", x=x or Axis(label="time, s"),
        y=y or Axis(label="size"), series=series, **rest,  # type: ignore[arg-type]
    )  # fmt: skip


def points(svg: str) -> list[tuple[float, float]]:
    """Where the dots of series with ids stand, y downwards."""
    uses = (use for use in ET.fromstring(svg).iter("use") if "data-point" in use.attrib)
    return [(float(use.attrib["x"]), float(use.attrib["y"])) for use in uses]


def test_points_stand_in_proportion() -> None:
    series = Series(name="s", x=(0, 1, 4), y=(0, 10, 40), kind="points", ids=(1, 2, 3))
    (x0, y0), (x1, y1), (x2, y2) = points(chart_svg(chart(series)))
    assert (x1 - x0) / (x2 - x0) == pytest.approx(0.25, abs=0.002)
    assert (y1 - y0) / (y2 - y0) == pytest.approx(0.25, abs=0.002)
    assert y2 < y0  # up is more


def test_logarithmic_axis_spaces_by_ratio() -> None:
    series = Series(name="s", x=(1, 10, 1000), y=(1, 1, 2), kind="points", ids=(1, 2, 3))
    (x0, _), (x1, _), (x2, _) = points(chart_svg(chart(series, x=Axis(label="x", log=True))))
    assert (x1 - x0) / (x2 - x0) == pytest.approx(1 / 3, abs=0.003)


def test_a_hole_lifts_the_pen() -> None:
    svg = chart_svg(chart(Series(name="s", x=(0, 1, 2, 3), y=(1, None, 2, 3), colour="#123456")))
    (line,) = (path for path in ET.fromstring(svg).iter("path") if "#123456" in path.attrib.get("style", ""))
    assert line.attrib["d"].count("M") == 2
    assert line.attrib["d"].count("L") == 1


def test_zero_on_a_logarithmic_axis_is_a_hole_not_an_error() -> None:
    series = Series(name="s", x=(0, 1, 2), y=(0, 1, 10), kind="points", ids=(7, 8, 9))
    svg = chart_svg(chart(series, x=Axis(label="x", log=True), y=Axis(label="y", log=True)))
    assert [
        u.attrib.get("data-point") for u in ET.fromstring(svg).iter("use") if "data-point" in u.attrib
    ] == ["8", "9"]


def test_ticks_of_what_is_counted_are_whole() -> None:
    for last in (1, 3, 40):
        figure = chart_figure(
            chart(Series(name="s", x=(0, last), y=(0, 1)), x=Axis(label="epoch", whole=True))
        )
        ticks = figure.axes[0].get_xticks()
        assert all(tick == round(tick) for tick in ticks)


def test_colours_are_the_page_s_and_nothing_reaches_beyond_the_chart() -> None:
    svg = chart_svg(chart(Series(name="s", x=(0, 1), y=(0, 1), colour="accent")))
    assert "var(--accent," in svg
    assert "font-family" not in svg
    assert "<style" not in svg
    assert "xlink" not in svg


def test_everything_is_escaped_and_described() -> None:
    series = Series(name="<b>", x=(0, 1), y=(0, 1), label=True, kind="points", hints=("<i>", "&"), ids=(3, 4))
    marks = (Mark(axis="x", value=0.5, label="<m>"),)
    svg = chart_svg(chart(series, y=Axis(label="<y>"), marks=marks, legend=(("<l>", "accent"),)))
    root = ET.fromstring(svg)
    assert root.attrib["aria-label"] == "A title. A caption."
    hints = {
        u.attrib["data-point"]: u.findtext("title") for u in root.iter("use") if "data-point" in u.attrib
    }
    assert hints == {"3": "<i>", "4": "&"}
    texts = {t.text for t in root.iter("text")}
    assert {"<b>", "<y>", "<m>", "<l>"} <= texts


def test_an_empty_chart_is_still_a_chart() -> None:
    ET.fromstring(chart_svg(chart(Series(name="s", x=(), y=()))))


@given(st.lists(st.floats(0, 200), max_size=8))
def test_labels_are_moved_apart(values: list[float]) -> None:
    assume(len(values) * 15 <= 200)
    moved = spread_apart(sorted(values), distance=15, limit=200)
    assert all(b - a >= 15 - 1e-6 for a, b in pairwise(moved))
    assert all(value <= 200 for value in moved)


@given(st.lists(st.integers(), max_size=300), st.integers(2, 40))
def test_thinning_keeps_both_ends(items: list[int], count: int) -> None:
    kept = thin(items, count)
    assert len(kept) == min(len(items), count)
    assert kept[:1] == items[:1]
    assert kept[-1:] == items[-1:]


def test_spans_needs_positive_values() -> None:
    assert spans([1, 20], 12)
    assert not spans([0, 20], 12)
    assert not spans([], 12)


def _boxes(dots: list[Dot], places: list[Place]) -> list[tuple[float, float, float, float]]:
    """left, top, right, bottom of names that are 8 high and wide."""
    shares = {"start": 0.0, "middle": 0.5, "end": 1.0}
    found = []
    for dot, place in zip(dots, places, strict=True):
        left, bottom = dot.x + place.dx - 8 * shares[place.anchor], dot.y + place.dy
        found.append((left, bottom - 8, left + 8, bottom))
    return found


def _is_apart(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[2] <= b[0] + 0.1 or b[2] <= a[0] + 0.1 or a[3] <= b[1] + 0.1 or b[3] <= a[1] + 0.1


def test_names_of_points_cover_neither_each_other_nor_points() -> None:
    # The second is where the first would have its name, the third close by; the last ones at the edges.
    at = [(50, 50), (60, 50), (52, 62), (196, 50), (120, 78)]
    dots = [Dot(x=x, y=y, radius=4, name=name) for (x, y), name in zip(at, "ABCDE", strict=True)]
    boxes = _boxes(dots, place_names(dots, height=8, character=8, right=200, bottom=80))
    circles = [(d.x - 4, d.y - 4, d.x + 4, d.y + 4) for d in dots]
    assert all(_is_apart(a, b) for a, b in combinations(boxes, 2))
    assert all(_is_apart(box, circle) for box in boxes for circle in circles)
    assert all(box[2] <= 200 for box in boxes)
    assert all(box[3] <= 80 for box in boxes)


def test_a_crowd_of_points_still_has_names() -> None:
    dots = [Dot(x=50, y=50, radius=4, name="A")] * 20
    assert len(place_names(dots, height=8, character=8, right=200, bottom=80)) == 20


def test_named_points_are_written_beside_them() -> None:
    series = Series(name="s", x=(0, 1), y=(0, 1), kind="points", names=("P", "<Q>"))
    texts = {t.text for t in ET.fromstring(chart_svg(chart(series))).iter("text")}
    assert {"P", "<Q>"} <= texts
    figure = chart_figure(chart(series))
    assert {"P", "<Q>"} <= {text.get_text() for text in figure.axes[0].texts}


def test_labels_of_close_marks_do_not_touch() -> None:
    series = Series(name="s", x=(0, 100), y=(0, 100))
    marks = tuple(Mark(axis=a, value=v, label="a label") for a in ("x", "y") for v in (50, 51, 52))
    root = ET.fromstring(chart_svg(chart(series, marks=marks)))
    labels = [t for t in root.iter("text") if t.text == "a label"]
    xs = sorted(float(t.attrib["x"]) for t in labels if "text-anchor: middle" in t.attrib["style"])
    ys = sorted(float(t.attrib["y"]) for t in labels if "text-anchor: end" in t.attrib["style"])
    assert len(xs) == len(ys) == 3
    assert all(b - a >= 7 * 6 for a, b in pairwise(xs))
    assert all(b - a >= 12 for a, b in pairwise(ys))
