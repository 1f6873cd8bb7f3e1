"""Architectures as SVG, drawn as the DSO-NAS paper draws them (Fig. 4); nothing to install.

Operations are boxes in the colour of their operation, one row per level; edges are curves in the colour of
where they come from. What is pruned is absent. The drawing takes its text colour from where it is placed
(`currentColor`), so it works on light and dark pages; opened as a file of its own it follows the system.

Elements carry `data-node` (node number), `data-edge` (position in `SearchSpace.edges`) and `data-part`, so
that a page can show one block as a subset of another.
"""

from __future__ import annotations

from html import escape

from dsonas_hw.architecture.architecture import Block, node_name
from dsonas_hw.report.draw_geometry import BlockLayout, Box, Route
from dsonas_hw.report.draw_layout import lay_out_block
from dsonas_hw.space.operations import Operation
from dsonas_hw.space.space import INPUT_NODE, SearchSpace

#: Operation → colour. A hue per family, darker for the larger kernel; told apart with any colour vision.
COLOURS: dict[str, str] = {
    "sep3": "#56b4e9",
    "sep5": "#0072b2",
    "sep7": "#5b4bb7",
    "avg3": "#e69f00",
    "max3": "#c44f00",
    "dil3": "#5cc8a3",
    "dil5": "#007f5c",
    "conv1": "#d58ab5",
    "conv3": "#a23b72",
    "mb3x2": "#c3d97a",
    "mb3x3": "#93b52f",
    "mb5x3": "#4f6b12",
    "skip": "#8a8f98",
}
_MORE_COLOURS = ("#b0a03a", "#6b8e23", "#b8860b", "#7a6652", "#4f7f8f", "#9467bd")

_STYLE = (
    "svg:root{color:#1d1d1f;background:#fff}"
    "@media(prefers-color-scheme:dark){svg:root{color:#ececee;background:#17181b}"
    "svg:root .edges{filter:brightness(1.35)}}"
)
_FONT = "system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif"


def operation_colour(operation: Operation) -> str:
    """`#rrggbb`; operations that a user registers get one that depends on their name alone."""
    if operation.name in COLOURS:
        return COLOURS[operation.name]
    return _MORE_COLOURS[sum(operation.name.encode()) % len(_MORE_COLOURS)]


def text_colour(background: str) -> str:
    """Black or white, whichever is read more easily on `#rrggbb` (WCAG relative luminance)."""
    channels = (int(background[i : i + 2], 16) / 255 for i in (1, 3, 5))
    red, green, blue = (c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    return "#10151c" if (luminance + 0.05) ** 2 > 0.05 * 1.05 else "#ffffff"


def describe_block(space: SearchSpace, block: Block) -> str:
    """The block in words, for those who cannot see the drawing."""
    if block.is_identity:
        return "Identity block: everything is pruned."
    parts = [
        f"{_node_title(space, n)} from {', '.join(node_name(space, s) for s in block.inputs[n - 1])}"
        for n in block.nodes
    ]
    joined = ", ".join(node_name(space, n) for n in block.output)
    return (
        f"Block of {len(block.nodes)} operations and {block.num_edges} edges. {'; '.join(parts)}. "
        f"Output: {joined}, merged by a 1×1 convolution and added to the input."
    )


def draw_block(space: SearchSpace, block: Block, *, shortcut_conv: bool = False) -> Drawing:
    """A block as SVG text.

    shortcut_conv: the shortcut passes a 1×1 convolution (first block of a stage in the authors' release).
    """
    layout = lay_out_block(space, block, shortcut_conv=shortcut_conv)
    return svg(
        layout.width,
        layout.height,
        describe_block(space, block),
        block_elements(space, block, shortcut_conv=shortcut_conv),
    )


def block_elements(space: SearchSpace, block: Block, *, shortcut_conv: bool = False) -> str:
    """What stands inside the `<svg>` of `draw_block`; its size is the layout's."""
    layout = lay_out_block(space, block, shortcut_conv=shortcut_conv)
    parts = [_level_labels(layout), _frame(layout, block), _edges(space, layout)]
    parts += [_node(space, block, n, box) for n, box in layout.nodes.items()]
    return "".join(parts)


class Drawing(str):
    """SVG text that a notebook shows."""

    def _repr_svg_(self) -> str:
        return self


def svg(width: float, height: float, label: str, body: str) -> Drawing:
    """A drawing of these elements."""
    return Drawing(
        f'<svg xmlns="http://www.w3.org/2000/svg" class="drawing" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'width="{width:.0f}" height="{height:.0f}" role="img" aria-label="{escape(label)}" '
        f'font-family="{escape(_FONT)}" font-size="13" text-anchor="middle">'
        f"<style>{_STYLE}</style>{body}</svg>"
    )


def _node_title(space: SearchSpace, node: int) -> str:
    return f"level {space.level_of(node) + 1} {space.operation_of(node).label}"


def _level_labels(layout: BlockLayout) -> str:
    return "".join(
        f'<text x="4" y="{_n(y + 3.5)}" font-size="11" text-anchor="start" fill="currentColor" '
        f'opacity=".6">level {level + 1}</text>'
        for level, y in layout.levels
    )


def _frame(layout: BlockLayout, block: Block) -> str:
    """Input, shortcut, merge, + and output."""
    line = 'fill="none" stroke="currentColor" stroke-width="1.5" stroke-linecap="round"'
    parts = [
        *(f'<path d="{_path(route, head=True)}" {line} opacity=".75"/>' for route in layout.shortcut),
        pill(layout.input, "input"),
        pill(layout.output, "output"),
    ]
    if layout.merge is None:
        y = (layout.input.bottom + layout.output.top) / 2
        x = layout.input.x + (28 if layout.shortcut_box else 10)
        parts.append(
            f'<text x="{_n(x)}" y="{_n(y + 4.5)}" text-anchor="start" fill="currentColor" '
            'font-style="italic">identity</text>'
        )
    else:
        assert layout.plus is not None
        label = "concat · conv 1×1" if len(block.output) > 1 else "conv 1×1"
        plus = layout.plus
        cross = f"M{_n(plus.x - 5)} {_n(plus.y)}h10M{_n(plus.x)} {_n(plus.y - 5)}v10"
        parts += [
            f'<g data-part="merge">{_rect(layout.merge, 6)}{_label(layout.merge, label)}'
            f'<path d="{_path(layout.stem[0], head=True)}" {line}/></g>',
            f'<path d="{_path(layout.stem[1], head=True)}" {line}/>',
            f'<circle cx="{_n(plus.x)}" cy="{_n(plus.y)}" r="{_n(plus.width / 2)}" {line}/>'
            f'<path d="{cross}" {line}/>',
        ]
    if layout.shortcut_box is not None:
        parts.append(_rect(layout.shortcut_box, 6) + _label(layout.shortcut_box, "1×1", 11))
    return "".join(parts)


def _edges(space: SearchSpace, layout: BlockLayout) -> str:
    """One group per source: its curves overlap in its lane, and a group's opacity does not add up there."""
    count = len(layout.edges)
    opacity = max(0.5, min(0.95, 1.1 - count / 200))
    stroke = max(1.1, min(1.8, 2.0 - count / 130))
    numbers = {edge: number for number, edge in enumerate(space.edges)}
    groups = []
    for source in sorted({source for source, _ in layout.edges}):
        colour = "currentColor" if source == INPUT_NODE else operation_colour(space.operation_of(source))
        faded = opacity * (0.7 if source == INPUT_NODE else 1.0)
        paths = "".join(
            f'<path data-edge="{numbers[edge]}" d="{_path(route, head=True)}"/>'
            for edge, route in layout.edges.items()
            if edge[0] == source
        )
        kind = "edges of-input" if source == INPUT_NODE else "edges"
        groups.append(
            f'<g class="{kind}" fill="none" stroke="{colour}" stroke-width="{stroke:.2g}" '
            f'stroke-linecap="round" opacity="{faded:.2f}">{paths}</g>'
        )
    return "".join(groups)


def _node(space: SearchSpace, block: Block, node: int, box: Box) -> str:
    operation = space.operation_of(node)
    colour = operation_colour(operation)
    sources = ", ".join(node_name(space, s) for s in block.inputs[node - 1])
    return (
        f'<g data-node="{node}" class="op-{escape(operation.name)}">'
        f"<title>{escape(_node_title(space, node))} ← {escape(sources)}</title>"
        f'<rect x="{_n(box.x - box.width / 2)}" y="{_n(box.top)}" width="{_n(box.width)}" '
        f'height="{_n(box.height)}" rx="8" fill="{colour}"/>'
        f'<text x="{_n(box.x)}" y="{_n(box.y + 4.5)}" font-weight="600" '
        f'fill="{text_colour(colour)}">{escape(operation.label)}</text></g>'
    )


def pill(box: Box, label: str) -> str:
    """A rounded outline with a label, for what is not an operation."""
    return _rect(box, box.height / 2) + _label(box, label, 12)


def _rect(box: Box, radius: float) -> str:
    return (
        f'<rect x="{_n(box.x - box.width / 2)}" y="{_n(box.top)}" width="{_n(box.width)}" '
        f'height="{_n(box.height)}" rx="{_n(radius)}" fill="none" stroke="currentColor" '
        'stroke-width="1.2"/>'
    )


def _label(box: Box, text: str, size: float = 12) -> str:
    return (
        f'<text x="{_n(box.x)}" y="{_n(box.y + size * 0.35)}" font-size="{size:g}" '
        f'fill="currentColor">{escape(text)}</text>'
    )


def _path(route: Route, *, head: bool = False) -> str:
    """SVG path data; `head` adds an arrow's head at the end."""
    parts = [f"M{_n(route.start[0])} {_n(route.start[1])}"]
    for segment in route.segments:
        parts.append(("L" if len(segment) == 2 else "C") + " ".join(_n(value) for value in segment))
    if head:
        x, y = route.end
        last = route.segments[-1]
        before = last[-4:-2] or (route.segments[-2][-2:] if len(route.segments) > 1 else route.start)
        if abs(before[1] - y) >= abs(before[0] - x):
            parts.append(f"M{_n(x - 3)} {_n(y - 4.5)}L{_n(x)} {_n(y)}L{_n(x + 3)} {_n(y - 4.5)}")
        else:
            parts.append(f"M{_n(x + 4.5)} {_n(y - 3)}L{_n(x)} {_n(y)}L{_n(x + 4.5)} {_n(y + 3)}")
    return "".join(parts)


def _n(value: float) -> str:
    """A coordinate, to a tenth of a pixel."""
    text = f"{value:.1f}"
    return text.removesuffix(".0")
