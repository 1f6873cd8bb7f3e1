"""The part of a run's page that shows any architecture of the path, once the script is there.

Every edge that any point has is drawn once; a point is a mask of edges, and the script hides the others.
"""

from __future__ import annotations

from collections.abc import Sequence

from dsonas_hw.architecture.architecture import Block, close_block
from dsonas_hw.architecture.draw import draw_block
from dsonas_hw.report.figures_path import shown_points
from dsonas_hw.report.numbers import COST_LABELS, cost_text, percent
from dsonas_hw.report.page import embedded_json
from dsonas_hw.report.run_data import PathPoint, RunData
from dsonas_hw.space.space import SearchSpace


def explorer(data: RunData) -> str:
    """Hidden until the script shows it: one drawing per block with every edge that any point has."""
    if data.space is None:
        return ""
    unions = _unions(data.space, [data.path[i] for i in shown_points(data)])
    wide = " wide" if len(unions) > 1 else ""
    drawings = "".join(draw_block(data.space, block) for block in unions)
    small = " small" if len(unions) > 2 else ""
    inner = f'<div class="figures{small}">{drawings}</div>' if wide else drawings
    return (
        f'<div class="explorer{wide}" data-explorer hidden><label for="point">Walk along the path</label>'
        '<input id="point" type="range" min="0" max="0" value="0" step="1">'
        f'<output for="point" aria-live="polite"></output>{inner}</div>'
    )


def _own_blocks(space: SearchSpace, point: PathPoint) -> tuple[Block, ...]:
    """The blocks that differ from each other by construction: one in the share space."""
    return point.blocks[: space.num_lambda_sets]


def _unions(space: SearchSpace, points: Sequence[PathPoint]) -> list[Block]:
    return [
        close_block(space, {e for p in points for e in _block_edges(space, _own_blocks(space, p)[number])})
        for number in range(space.num_lambda_sets)
    ]


def _block_edges(space: SearchSpace, block: Block) -> list[tuple[int, int]]:
    inner = [(s, n) for n in block.nodes for s in block.inputs[n - 1]]
    return inner + [(n, space.num_nodes + 1) for n in block.output]


def explorer_data(data: RunData) -> str:
    """What the script needs: the points as words and masks."""
    space = data.space
    shown = shown_points(data)
    if space is None or not shown:
        return ""
    number = {edge: position for position, edge in enumerate(space.edges)}

    def mask(block: Block) -> str:
        return f"{sum(1 << number[edge] for edge in _block_edges(space, block)):x}"

    points = [
        {
            "id": i,
            "text": _point_words(data, data.path[i]),
            "blocks": [mask(block) for block in _own_blocks(space, data.path[i])],
        }
        for i in shown
    ]
    chosen = data.chosen
    start = next((p for p, i in enumerate(shown) if data.path[i] is chosen), len(shown) - 1)
    return embedded_json(
        "path-data",
        {"points": points, "start": start, "edges": space.edges, "output": space.num_nodes + 1},
    )


def _point_words(data: RunData, point: PathPoint) -> str:
    costs = ", ".join(
        f"{COST_LABELS[q].split(' (')[0]} {cost_text(q, point.costs[q])}"
        for q in ("mac", "flops", "params", "latency_ms")
        if q in point.costs
    )
    scored = f"{percent(point.accuracy)} with shared weights" if point.accuracy is not None else "not scored"
    edges = f"{point.num_edges} edges"
    if data.space is not None and data.space.share:
        edges = f"{point.blocks[0].num_edges} edges per block"
    chosen = " The chosen one." if point is data.chosen else ""
    return f"Step {point.step}, epoch {point.epoch}: {scored}; {edges}; {costs}.{chosen}"
