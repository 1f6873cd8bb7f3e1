"""The part of a page that draws whichever architecture its reader points at, once the script is there.

Every edge that any architecture has is drawn once; an architecture is a mask of edges, and the script hides
the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from dsonas_hw.architecture.architecture import Block, close_block
from dsonas_hw.report.draw import draw_block
from dsonas_hw.report.page import embedded_json
from dsonas_hw.space.space import SearchSpace


@dataclass(frozen=True, kw_only=True)
class Shown:
    """An architecture that can be pointed at."""

    id: int
    """As in `Series.ids`."""
    text: str
    blocks: tuple[Block, ...]
    """Those that differ from each other by construction: one in the share space."""


def explorer_html(space: SearchSpace, shown: Sequence[Shown], *, label: str) -> str:
    """Hidden until the script shows it: one drawing per block with every edge that any architecture has."""
    if not shown:
        return ""
    unions = [
        close_block(space, {edge for s in shown for edge in block_edges(space, s.blocks[number])})
        for number in range(space.num_lambda_sets)
    ]
    wide = " wide" if len(unions) > 1 else ""
    drawings = "".join(draw_block(space, block) for block in unions)
    small = " small" if len(unions) > 2 else ""
    inner = f'<div class="figures{small}">{drawings}</div>' if wide else drawings
    return (
        f'<div class="explorer{wide}" data-explorer hidden><label for="point">{escape(label)}</label>'
        '<input id="point" type="range" min="0" max="0" value="0" step="1">'
        f'<output for="point" aria-live="polite"></output>{inner}</div>'
    )


def explorer_json(space: SearchSpace, shown: Sequence[Shown], *, start: int) -> str:
    """What the script needs: the architectures as words and masks. start: position of the first shown."""
    if not shown:
        return ""
    number = {edge: position for position, edge in enumerate(space.edges)}

    def mask(block: Block) -> str:
        return f"{sum(1 << number[edge] for edge in block_edges(space, block)):x}"

    points = [{"id": s.id, "text": s.text, "blocks": [mask(block) for block in s.blocks]} for s in shown]
    return embedded_json(
        "path-data", {"points": points, "start": start, "edges": space.edges, "output": space.num_nodes + 1}
    )


def block_edges(space: SearchSpace, block: Block) -> list[tuple[int, int]]:
    """The edges of a block, numbered as in `SearchSpace.edges`."""
    inner = [(s, n) for n in block.nodes for s in block.inputs[n - 1]]
    return inner + [(n, space.num_nodes + 1) for n in block.output]
