"""λ over the search as charts, one per λ set."""

from __future__ import annotations

from collections.abc import Sequence

from dsonas_hw.architecture.architecture import node_name
from dsonas_hw.report.chart import Axis, Chart, Series, thin
from dsonas_hw.report.draw import operation_colour
from dsonas_hw.report.run_data import RunData
from dsonas_hw.space.space import SearchSpace

MAX_EPOCHS = 80
"""Epochs per λ line; longer searches are thinned evenly."""


def lambda_figures(data: RunData) -> list[Chart]:
    """λ of every edge over the search, one chart per λ set."""
    if not data.lam or data.space is None:
        return []
    num_sets = len(data.lam[0].lam)
    rows = thin(data.lam, MAX_EPOCHS)
    steps = tuple(float(row.step) for row in rows)
    return [
        _lambda_figure(data.space, number, num_sets, steps, [row.lam[number] for row in rows])
        for number in range(num_sets)
    ]


def _lambda_figure(
    space: SearchSpace, number: int, num_sets: int, steps: tuple[float, ...], lam: list[tuple[float, ...]]
) -> Chart:
    series, num_alive = [], 0
    for position, (source, target) in enumerate(space.edges):
        is_output = target > space.num_nodes
        values = [row[position] for row in lam]
        alive = values[-1] > 0
        num_alive += alive
        to = "output" if is_output else node_name(space, target)
        series.append(
            Series(
                name=f"{node_name(space, source)} → {to}",
                x=steps,
                y=_until_zero(values),
                colour="muted" if is_output else operation_colour(space.operation_of(target)),
                width=1.7 if alive else 1.0,
                opacity=0.95 if alive else 0.5,
            )
        )
    operations = [(operation.label, operation_colour(operation)) for operation in space.operation_list]
    place = "every block" if num_sets == 1 else f"block {number + 1}"
    return Chart(
        name="lambda" if num_sets == 1 else f"lambda-block-{number + 1:02d}",
        title=f"λ of {place}",
        caption=f"{num_alive} of {len(space.edges)} edges are alive at the end. A line ends where its edge "
        "is pruned: λ is exactly zero.",
        x=Axis(label="steps on λ", low=0.0, whole=True),
        y=Axis(label=f"λ, {place}", low=0.0),
        series=tuple(sorted(series, key=lambda s: s.opacity)),
        legend=(*((f"into {label}", colour) for label, colour in operations), ("into output", "muted")),
    )


def _until_zero(values: Sequence[float]) -> tuple[float | None, ...]:
    """The line down to its first zero and nothing while it stays there."""
    return tuple(
        value if value > 0 or i == 0 or values[i - 1] > 0 else None for i, value in enumerate(values)
    )
