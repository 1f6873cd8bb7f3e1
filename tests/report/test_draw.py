"""Drawings: everything alive is there once, nothing else is, and lines do not run through boxes."""

from __future__ import annotations

import random
import re
import xml.etree.ElementTree as ET
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsonas_hw.architecture.architecture import (
    Architecture,
    Block,
    close_block,
    complete_architecture,
    complete_block,
)
from dsonas_hw.report.draw import (
    COLOURS,
    draw_block,
    operation_colour,
    text_colour,
)
from dsonas_hw.report.draw_figure import drawing_figure
from dsonas_hw.report.draw_geometry import Box, Route
from dsonas_hw.report.draw_layout import lay_out_block
from dsonas_hw.report.draw_network import draw_architecture
from dsonas_hw.space.operations import OPERATIONS, Operation
from dsonas_hw.space.space import INPUT_NODE, SearchSpace

OPERATION_SETS = [("sep3", "sep5", "avg3", "max3"), ("sep3",), ("conv3", "skip", "dil5")]


@st.composite
def spaces_and_blocks(draw: st.DrawFn) -> tuple[SearchSpace, Block]:
    space = SearchSpace(
        levels=draw(st.integers(1, 5)), operations=draw(st.sampled_from(OPERATION_SETS)), stages=(1,)
    )
    rng, keep = random.Random(draw(st.integers(0, 10**6))), draw(st.floats(0.02, 1.0))
    return space, close_block(space, [edge for edge in space.edges if rng.random() < keep])


def points_on(route: Route, count: int = 40) -> list[tuple[float, float]]:
    """Points along a route, by the formula of a cubic curve."""
    found, here = [], route.start
    for segment in route.segments:
        xs = [here[0], *segment[::2]]
        ys = [here[1], *segment[1::2]]
        for i in range(1, count):
            t = i / count
            u = 1 - t
            weights = (u, t) if len(xs) == 2 else (u**3, 3 * u * u * t, 3 * u * t * t, t**3)
            found.append((sum(map(float.__mul__, weights, xs)), sum(map(float.__mul__, weights, ys))))
        here = (xs[-1], ys[-1])
    return found


def inside(box: Box, point: tuple[float, float], margin: float = 0.5) -> bool:
    return abs(point[0] - box.x) < box.width / 2 - margin and abs(point[1] - box.y) < box.height / 2 - margin


@given(spaces_and_blocks())
@settings(max_examples=60, deadline=None)
def test_layout_draws_what_is_alive_and_keeps_lines_out_of_boxes(case: tuple[SearchSpace, Block]) -> None:
    space, block = case
    layout = lay_out_block(space, block)
    assert set(layout.nodes) == set(block.nodes)
    assert set(layout.edges) == block.edges
    for a, b in combinations(layout.nodes.values(), 2):
        assert abs(a.x - b.x) >= a.width or abs(a.y - b.y) >= a.height
    for (source, target), route in layout.edges.items():
        start = layout.input if source == INPUT_NODE else layout.nodes[source]
        assert route.start[1] == pytest.approx(start.bottom)
        end = layout.merge if target > space.num_nodes else layout.nodes[target]
        assert end is not None
        assert route.end[1] == pytest.approx(end.top)
        assert abs(route.end[0] - end.x) < end.width / 2
        for point in points_on(route):
            assert 0 <= point[0] <= layout.width
            assert not any(inside(box, point) for box in layout.nodes.values()), (source, target)


@given(spaces_and_blocks())
@settings(max_examples=30, deadline=None)
def test_levels_run_downwards(case: tuple[SearchSpace, Block]) -> None:
    space, block = case
    layout = lay_out_block(space, block)
    for (source, target), _ in layout.edges.items():
        if source != INPUT_NODE and target in layout.nodes:
            assert layout.nodes[source].bottom < layout.nodes[target].top


def test_no_two_sources_share_a_lane() -> None:
    space = SearchSpace(stages=(1,))
    layout = lay_out_block(space, complete_block(space))
    lanes: dict[float, set[int]] = {}
    for (source, _), route in layout.edges.items():
        if len(route.segments) == 3:  # curve into the lane, down the lane, curve out of it
            lanes.setdefault(route.segments[1][0], set()).add(source)
    assert len(lanes) == 13  # the input, and the 4 operations of each of levels 1-3
    assert all(len(sources) == 1 for sources in lanes.values())


@given(spaces_and_blocks())
@settings(max_examples=30, deadline=None)
def test_svg_names_every_node_and_edge_once(case: tuple[SearchSpace, Block]) -> None:
    space, block = case
    root = ET.fromstring(draw_block(space, block, shortcut_conv=True))
    edges = [int(e.attrib["data-edge"]) for e in root.iter() if "data-edge" in e.attrib]
    nodes = [int(e.attrib["data-node"]) for e in root.iter() if "data-node" in e.attrib]
    assert sorted(space.edges[i] for i in edges) == sorted(block.edges)
    assert sorted(nodes) == list(block.nodes)
    texts = [e.text for e in root.iter("{http://www.w3.org/2000/svg}text")]
    for node in block.nodes:
        assert space.operation_of(node).label in texts


def test_a_figure_has_the_words_and_lines_of_the_drawing() -> None:
    architecture = complete_architecture(SearchSpace(levels=1, operations=("sep3", "max3"), stages=(1, 1)))
    drawing = draw_architecture(architecture)
    root = ET.fromstring(drawing)
    axes = drawing_figure(drawing).axes[0]
    tags = [element.tag.rpartition("}")[2] for element in root.iter()]
    words = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert [text.get_text() for text in axes.texts] == words
    assert len(axes.patches) == sum(tags.count(kind) for kind in ("path", "rect", "circle"))
    for text in axes.texts:  # also of what stands within scaled groups
        assert 0 <= text.get_position()[0] <= float(root.attrib["width"])
        assert 0 <= text.get_position()[1] <= float(root.attrib["height"])


def test_identity_is_drawn_as_such() -> None:
    space = SearchSpace(stages=(1,))
    svg = draw_block(space, close_block(space, ()))
    assert ">identity<" in svg
    assert "concat" not in svg
    assert "Identity block" in svg


def test_one_branch_needs_no_concat() -> None:
    space = SearchSpace(stages=(1,))
    out = space.num_nodes + 1
    assert ">conv 1×1<" in draw_block(space, close_block(space, [(0, 1), (1, out)]))
    two = close_block(space, [(0, 1), (0, 2), (1, out), (2, out)])
    assert ">concat · conv 1×1<" in draw_block(space, two)


def test_share_draws_the_block_once_and_full_draws_all() -> None:
    share = complete_architecture(SearchSpace(stages=(2, 3)))
    full = complete_architecture(SearchSpace(stages=(2, 3), share=False))
    assert draw_architecture(share).count(">output<") == 1
    assert draw_architecture(full).count(">output<") == 5
    assert "stage 2, block 3" in draw_architecture(full)
    assert draw_architecture(share)._repr_svg_() == draw_architecture(share)


def test_network_drawing_tells_the_stages() -> None:
    architecture = Architecture(
        space=SearchSpace(stages=(1, 2), stem="imagenet", input_shape=(3, 224, 224)),
        blocks=(complete_block(SearchSpace()),) * 3,
        width=36,
    )
    texts = re.findall(r">([^<]+)</text>", draw_architecture(architecture))
    # 224 / 2 / 2 = 56; the reduction halves again and doubles 36 channels
    assert texts[:12] == [
        "image", "3×224×224", "2 × conv 3×3, /2", "36×56×56", "1 block", "36×56×56",
        "reduction", "72×28×28", "2 blocks", "72×28×28", "pool · linear", "10 classes",
    ]  # fmt: skip


def contrast(a: str, b: str) -> float:
    """WCAG 2 contrast ratio."""

    def luminance(colour: str) -> float:
        channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    light, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_labels_are_legible_on_their_boxes(name: str) -> None:
    colour = operation_colour(OPERATIONS[name])
    assert contrast(colour, text_colour(colour)) >= 4.5


def test_operations_of_the_package_have_a_colour_of_their_own() -> None:
    assert set(OPERATIONS) <= set(COLOURS)
    assert len(set(COLOURS.values())) == len(COLOURS)


def test_a_label_cannot_break_out_of_the_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    hostile = Operation(name='x"><script>', label="</text><script>alert(1)</script>", layers=())
    monkeypatch.setitem(OPERATIONS, hostile.name, hostile)
    space = SearchSpace(operations=("sep3", hostile.name), stages=(1,))
    root = ET.fromstring(draw_block(space, complete_block(space)))
    assert not list(root.iter("{http://www.w3.org/2000/svg}script"))
