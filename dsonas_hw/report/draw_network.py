"""The drawing of a whole network: a strip with its stages, below it the blocks."""

from __future__ import annotations

from html import escape

from dsonas_hw.architecture.architecture import Architecture, Block
from dsonas_hw.architecture.graph import BlockSegment, Reduction, Stem, list_segments
from dsonas_hw.report.draw import Drawing, block_elements, svg
from dsonas_hw.report.draw_layout import lay_out_block

_STEP_WIDTH, _STEP_HEIGHT, _ARROW = 104.0, 52.0, 22.0
_STEPS_PER_ROW = 8
_MARGIN = 16.0
_CELL_WIDTH = 330.0
_COLUMNS = 3
_LARGEST_SCALE = 0.8
"""Of a block among others; a block on its own is drawn in full size."""


def draw_architecture(architecture: Architecture) -> Drawing:
    """The stages of a network and its blocks as SVG text; a block that all share is drawn once."""
    width, height, body = _network_elements(architecture)
    space = architecture.space
    label = (
        f"Network of {space.num_blocks} blocks in {len(space.stages)} stages, "
        f"{architecture.width} channels in the first stage."
    )
    return svg(width, height, label, body)


def list_steps(architecture: Architecture) -> list[tuple[str, str]]:
    """(what, its shape) from image to classes, a stage in one step.

    Example: ``("8 blocks", "48×32×32")``.
    """
    space = architecture.space
    steps = [("image", _shape(space.input_shape))]
    stage = 0
    for _, segment in list_segments(architecture):
        if isinstance(segment, Stem):
            convs = {"cifar": "conv 3×3", "strided": "conv 3×3, /2", "imagenet": "2 × conv 3×3, /2"}[
                segment.kind
            ]
            steps.append((convs, _shape(segment.out_shape)))
            steps.append(_stage_step(space.stages[0], segment.out_shape))
        elif isinstance(segment, Reduction):
            stage += 1
            channels = 2 * segment.in_shape[0]
            shape = (channels, *space.resolution(stage))
            steps.append(("reduction", _shape(shape)))
            steps.append(_stage_step(space.stages[stage], shape))
    steps.append(("pool · linear", f"{space.num_classes} classes"))
    return steps


def _network_elements(architecture: Architecture) -> tuple[float, float, str]:
    """Width, height and SVG elements of a network's drawing."""
    steps = list_steps(architecture)
    blocks = drawn_blocks(architecture)
    rows = -(-len(steps) // _STEPS_PER_ROW)
    per_row = -(-len(steps) // rows)
    inner = per_row * (_STEP_WIDTH + _ARROW) - _ARROW
    width = 2 * _MARGIN + max(inner, _CELL_WIDTH * min(len(blocks), _COLUMNS))
    strip_height, strip = _strip(steps, per_row, width)
    blocks_height, drawn = _grid(architecture, blocks, width, strip_height + 20)
    return width, strip_height + 20 + blocks_height + _MARGIN, strip + drawn


def drawn_blocks(architecture: Architecture) -> list[tuple[str, Block, bool]]:
    """(title, block, has a convolution on its shortcut) of every block worth a drawing of its own."""
    space = architecture.space
    if space.share:
        return [(f"every block ({space.num_blocks})", architecture.blocks[0], False)]
    return [
        (name.replace(".", ", ").replace("stage", "stage ").replace("block", "block "),
         segment.block, segment.shortcut)
        for name, segment in list_segments(architecture)
        if isinstance(segment, BlockSegment)
    ]  # fmt: skip


def _strip(steps: list[tuple[str, str]], per_row: int, width: float) -> tuple[float, str]:
    """The steps from left to right, wrapped like text into rows of `per_row`."""
    left = (width - per_row * (_STEP_WIDTH + _ARROW) + _ARROW) / 2
    parts = []
    for number, (what, shape) in enumerate(steps):
        row, column = divmod(number, per_row)
        x = left + column * (_STEP_WIDTH + _ARROW)
        y = _MARGIN + row * (_STEP_HEIGHT + 14)
        is_stage = what.endswith(("block", "blocks"))
        parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{_STEP_WIDTH:g}" height="{_STEP_HEIGHT:g}" rx="8" '
            f'fill="currentColor" fill-opacity="{0.1 if is_stage else 0.03}" stroke="currentColor" '
            f'stroke-opacity="{0.7 if is_stage else 0.3}"/>'
            f'<text x="{x + _STEP_WIDTH / 2:.1f}" y="{y + 22:.1f}" font-weight="600" '
            f'fill="currentColor">{escape(what)}</text>'
            f'<text x="{x + _STEP_WIDTH / 2:.1f}" y="{y + 40:.1f}" font-size="11" opacity=".75" '
            f'fill="currentColor">{escape(shape)}</text>'
        )
        if number:
            tip, middle = x - 5, y + _STEP_HEIGHT / 2
            if column:
                parts.append(
                    f'<path d="M{x - _ARROW + 5:.1f} {middle:.1f}H{tip:.1f}m-4 -3l4 3l-4 3" fill="none" '
                    'stroke="currentColor" stroke-width="1.4" stroke-linecap="round" opacity=".75"/>'
                )
    rows = -(-len(steps) // per_row)
    return _MARGIN + rows * (_STEP_HEIGHT + 14), "".join(parts)


def _grid(
    architecture: Architecture, blocks: list[tuple[str, Block, bool]], width: float, y: float
) -> tuple[float, str]:
    """Blocks side by side, scaled into cells of equal width; rows as high as their highest block."""
    space = architecture.space
    columns = min(len(blocks), _COLUMNS)
    cell = (width - 2 * _MARGIN) / columns
    layouts = [lay_out_block(space, block, shortcut_conv=conv) for _, block, conv in blocks]
    limit = 1.0 if len(blocks) == 1 else _LARGEST_SCALE
    scale = min(limit, min((cell - 16) / layout.width for layout in layouts))
    parts, top = [], y
    for first in range(0, len(blocks), columns):
        row = range(first, min(first + columns, len(blocks)))
        for position, number in enumerate(row):
            title, block, conv = blocks[number]
            layout = layouts[number]
            x = _MARGIN + position * cell
            left = x + (cell - layout.width * scale) / 2
            parts.append(
                f'<text x="{x + cell / 2:.1f}" y="{top + 12:.1f}" font-weight="600" font-size="12" '
                f'fill="currentColor">{escape(title)}</text>'
                f'<g transform="translate({left:.1f} {top + 22:.1f}) scale({scale:.3f})">'
                f"{block_elements(space, block, shortcut_conv=conv)}</g>"
            )
        top += 22 + max(layouts[number].height for number in row) * scale + 24
    return top - y, "".join(parts)


def _stage_step(count: int, shape: tuple[int, ...]) -> tuple[str, str]:
    return f"{count} block{'s' if count > 1 else ''}", _shape(shape)


def _shape(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))
