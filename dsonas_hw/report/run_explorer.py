"""The part of a run's page that shows any architecture of the path, once the script is there."""

from __future__ import annotations

from dsonas_hw.report.explorer import Shown, explorer_html, explorer_json
from dsonas_hw.report.figures_path import shown_points
from dsonas_hw.report.numbers import COST_LABELS, about, cost_text, count_of, percent
from dsonas_hw.report.run_data import PathPoint, RunData


def explorer(data: RunData) -> str:
    """The element; nothing without a space."""
    return "" if data.space is None else explorer_html(data.space, _shown(data), label="Walk along the path")


def explorer_data(data: RunData) -> str:
    """What the script needs of it; the chosen architecture is shown first."""
    shown = shown_points(data)
    if data.space is None or not shown:
        return ""
    chosen = data.chosen
    start = next((p for p, i in enumerate(shown) if data.path[i] is chosen), len(shown) - 1)
    return explorer_json(data.space, _shown(data), start=start)


def _shown(data: RunData) -> list[Shown]:
    assert data.space is not None
    sets = data.space.num_lambda_sets
    return [
        Shown(id=i, text=_point_words(data, data.path[i]), blocks=data.path[i].blocks[:sets])
        for i in shown_points(data)
    ]


def _final_words(data: RunData) -> str:
    """The chosen network as it is in the end."""
    assert data.architecture is not None
    final = [
        f"{about(data.source_of(b.quantity))}{cost_text(b.quantity, cost)} {b.name}"
        for b in data.budgets
        if (cost := data.final_cost(b.quantity)) is not None
    ]
    return ", ".join([f"in the end {count_of(data.architecture.width, 'channel')} wide", *final])


def _point_words(data: RunData, point: PathPoint) -> str:
    costs = ", ".join(
        f"{COST_LABELS[q].split(' (')[0]} {cost_text(q, point.costs[q])}"
        for q in ("mac", "flops", "params", "latency_ms")
        if q in point.costs
    )
    scored = f"{percent(point.accuracy)} with shared weights" if point.accuracy is not None else "not scored"
    edges = count_of(point.num_edges, "edge")
    if data.space is not None and data.space.share:
        edges = f"{count_of(point.blocks[0].num_edges, 'edge')} per block"
    chosen = f" The chosen one, {_final_words(data)}." if point is data.chosen else ""
    return f"Step {point.step}, epoch {point.epoch}: {scored}; {edges}; {costs}.{chosen}"
