"""The path of architectures as charts: cost against accuracy with the shared weights."""

from __future__ import annotations

from collections.abc import Sequence

from dsonas_hw.report.chart import Axis, Chart, Mark, Series, spans, thin
from dsonas_hw.report.numbers import (
    COST_LABELS,
    COST_UNITS,
    about,
    cost_text,
    count_of,
    percent,
    predicted_text,
)
from dsonas_hw.report.run_data import PathPoint, RunData

MAX_POINTS = 500
"""Points of the path on a page; longer paths are thinned evenly."""


def path_quantities(data: RunData) -> list[str]:
    """Costs that the path is drawn against: those with a budget, else mac."""
    wanted = [budget.quantity for budget in data.budgets] or ["mac"]
    return [q for q in wanted if any(q in point.costs for point in data.path)]


def shown_points(data: RunData) -> list[int]:
    """Positions in `data.path` of the points on the page: scored ones, thinned, and the chosen one."""
    scored = [i for i, point in enumerate(data.path) if point.accuracy is not None]
    chosen = data.chosen
    kept = set(thin(scored, MAX_POINTS))
    return [i for i, point in enumerate(data.path) if i in kept or point is chosen]


def pareto_front(data: RunData, quantity: str) -> list[int]:
    """Positions in `data.path`, by rising cost, of points that no cheaper point equals in accuracy."""
    scored = [
        (point.costs[quantity], -point.accuracy, i)
        for i, point in enumerate(data.path)
        if point.accuracy is not None and quantity in point.costs
    ]
    front: list[int] = []
    best = -1.0
    for _, negative, i in sorted(scored):
        if -negative > best:
            best = -negative
            front.append(i)
    return front


def path_figures(data: RunData) -> list[Chart]:
    """Cost against accuracy with the shared weights, one chart per budgeted cost."""
    return [chart for quantity in path_quantities(data) if (chart := _path_figure(data, quantity))]


def _path_figure(data: RunData, quantity: str) -> Chart | None:
    on_page = [i for i in shown_points(data) if quantity in data.path[i].costs]
    scored = [i for i in on_page if data.path[i].accuracy is not None]
    if not scored:
        return None
    front, chosen = pareto_front(data, quantity), data.chosen
    series = [
        _path_series(
            data, quantity, scored, name="architectures", kind="points", colour="muted", opacity=0.55
        ),
        _path_series(data, quantity, front, name="best for their cost", kind="front", colour="accent"),
    ]
    marks = [
        Mark(axis="x", value=budget.limit, label=f"budget {cost_text(quantity, budget.limit)}")
        for budget in data.budgets
        if budget.quantity == quantity
    ]
    final = data.final_cost(quantity)
    if chosen is not None and chosen.accuracy is not None and final is not None:
        series += _chosen_series(data, quantity, chosen, chosen.accuracy, final)
    elif final is not None:
        marks.append(Mark(axis="x", value=final, label="chosen"))
    costs = [data.path[i].costs[quantity] for i in scored]
    return Chart(
        name=f"path-{quantity.replace('_', '-')}",
        title=f"Path of the search: {COST_LABELS[quantity]} against accuracy",
        caption=f"{count_of(len(scored), 'architecture')} that the search passed; the best for their cost "
        f"are joined.{_chosen_words(data)}",
        x=Axis(label=f"{COST_LABELS[quantity]}, {COST_UNITS[quantity]}", log=spans(costs, 12)),
        y=Axis(label="accuracy with shared weights", percent=True, high=None),
        series=tuple(series),
        marks=tuple(marks),
    )


def _chosen_words(data: RunData) -> str:
    if data.chosen is None or data.chosen.accuracy is None or data.architecture is None:
        return ""
    return (
        f" The chosen network stands at its cost with its final {data.architecture.width} channels, joined "
        "to the point that it was taken from."
    )


def _chosen_series(
    data: RunData, quantity: str, chosen: PathPoint, accuracy: float, final: float
) -> list[Series]:
    """The chosen network at its final width, joined to the point of the path that it was taken from."""
    assert data.architecture is not None
    width = f"{data.architecture.width} channels"
    position = next(i for i, point in enumerate(data.path) if point is chosen)
    series = [
        Series(
            name="chosen", x=(final,), y=(accuracy,), kind="points", colour="orange", size=6.0, label=True,
            ids=(position,),
            hints=(f"chosen, {width}: {about(data.source_of(quantity))}{cost_text(quantity, final)}",),
        )
    ]  # fmt: skip
    if quantity in chosen.costs and chosen.costs[quantity] != final:
        x = (chosen.costs[quantity], final)
        series.insert(0, Series(name="widened", x=x, y=(accuracy, accuracy), colour="orange", dashed=True))
    return series


def _path_series(data: RunData, quantity: str, positions: Sequence[int], **style: object) -> Series:
    points = [data.path[i] for i in positions]
    return Series(
        x=tuple(point.costs[quantity] for point in points),
        y=tuple(point.accuracy for point in points),
        ids=tuple(positions),
        hints=tuple(point_text(point, quantity) for point in points),
        **style,  # type: ignore[arg-type]
    )


def point_text(point: PathPoint, quantity: str) -> str:
    """One line about a point of the path."""
    cost = predicted_text(quantity, point.costs.get(quantity))
    return f"step {point.step}: {cost}, {percent(point.accuracy)}"
