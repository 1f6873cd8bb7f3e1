"""The charts of a run but for its path: epochs, λ, timings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dsonas_hw.architecture.architecture import node_name
from dsonas_hw.report.chart import Axis, Chart, Mark, Series, spans, thin
from dsonas_hw.report.draw import operation_colour
from dsonas_hw.report.figures_path import path_figures
from dsonas_hw.report.numbers import cost_text
from dsonas_hw.report.run_data import EpochRow, RunData
from dsonas_hw.space.space import SearchSpace

MAX_EPOCHS = 80
"""Epochs per λ line; longer searches are thinned evenly."""
MAX_SAMPLES = 600
_EPOCH = Axis(label="epoch", whole=True)


def run_figures(data: RunData) -> list[Chart]:
    """Every chart that this run has data for, in the order of the page."""
    return [
        *path_figures(data),
        *lambda_figures(data),
        *search_figures(data),
        *latency_figures(data),
        *retrain_figures(data),
    ]


# -- over the epochs ---------------------------------------------------------------------------------------


def search_figures(data: RunData) -> list[Chart]:
    """Cost against its target, γ, edges alive and training accuracy over the epochs of the search."""
    before, search = data.stage("pretrain"), data.stage("search")
    cost = _lines(search, cost_ratio=("cost", "accent"), target_ratio=("target", "quiet"))
    gamma, edges = _lines(search, gamma=("γ", "accent")), _lines(search, num_edges=("edges", "accent"))
    begins = (
        (Mark(axis="x", value=float(search[0].epoch), label="search begins"),) if before and search else ()
    )
    charts = [
        Chart(
            name="cost", title="Cost over the search",
            caption="Cost of the tightest budget at the deployment width, as a multiple of its limit, and "
            "what the controller aims at.",
            x=_EPOCH, y=Axis(label="cost, multiple of the budget", log=_spans(cost)), series=cost,
            marks=(Mark(axis="y", value=1.0, label="budget"),),
        ),
        Chart(
            name="gamma", title="γ over the search",
            caption="Weight of the sparsity term; steered by a budget, it grows while the cost is above its "
            "target.",
            x=_EPOCH, y=Axis(label="γ", log=_spans(gamma)), series=gamma,
        ),
        Chart(
            name="edges", title="Edges alive over the search",
            caption="Edges on a path from input to output, all blocks together.",
            x=_EPOCH, y=Axis(label="edges alive", low=0.0, whole=True), series=edges,
        ),
        Chart(
            name="search-accuracy", title="Training accuracy of the supernet",
            caption="On the images that train the weights; it dips while edges die.",
            x=_EPOCH, y=Axis(label="training accuracy", percent=True),
            series=_lines((*before, *search), accuracy=("accuracy", "accent")), marks=begins,
        ),
    ]  # fmt: skip
    return [chart for chart in charts if chart.series]


def retrain_figures(data: RunData) -> list[Chart]:
    """Accuracy and loss while the derived network trains from scratch."""
    rows = data.stage("retrain")
    charts = [
        Chart(
            name="retrain-accuracy", title="Accuracy while retraining",
            caption="The derived network, trained from scratch. Regularisation can hold training below test.",
            x=_EPOCH, y=Axis(label="accuracy", percent=True),
            series=_lines(rows, accuracy=("training", "quiet"), test_accuracy=("test", "accent")),
        ),
        Chart(
            name="retrain-loss", title="Loss while retraining", caption="Training loss, all of its terms.",
            x=_EPOCH, y=Axis(label="training loss"), series=_lines(rows, loss=("training loss", "accent")),
        ),
    ]  # fmt: skip
    return [chart for chart in charts if chart.series]


def _lines(rows: Sequence[EpochRow], **fields: tuple[str, str]) -> tuple[Series, ...]:
    """One line per field = (name, colour) that has any value; epochs without one are skipped."""
    found = []
    for key, (name, colour) in fields.items():
        pairs = [(float(row.epoch), value) for row in rows if (value := row.get(key)) is not None]
        if pairs:
            x, y = zip(*pairs, strict=True)
            style: dict[str, Any] = {"label": len(fields) > 1, "dashed": name == "target"}
            found.append(Series(name=name, x=x, y=y, colour=colour, **style))
    return tuple(found)


def _spans(series: Sequence[Series]) -> bool:
    """Whether a logarithmic axis shows them better."""
    return spans([v for s in series for v in s.y if v is not None and (s.name != "γ" or v > 0)], 5)


# -- λ -----------------------------------------------------------------------------------------------------


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


# -- the samples behind a measured latency -----------------------------------------------------------------


def latency_figures(data: RunData) -> list[Chart]:
    """Every timing in the order it was taken, with the percentiles, the quiet value and the limit."""
    latency = data.validation.latency if data.validation else None
    if latency is None or not latency.samples_ms:
        return []
    samples = thin(list(enumerate(latency.samples_ms, start=1)), MAX_SAMPLES)
    marks = [
        Mark(axis="y", value=budget.limit, label=f"budget {cost_text('latency_ms', budget.limit)}")
        for budget in data.budgets
        if budget.name == "latency"
    ]
    for key, label in (
        ("quiet_ms", "undisturbed"),
        ("p50_ms", "median"),
        ("p95_ms", "p95"),
        ("p99_ms", "p99"),
    ):
        if (value := latency.values.get(key)) is not None:
            marks.append(Mark(axis="y", value=value, label=label))
    # What something else on the machine interrupted must not squeeze all others together.
    ordered = sorted(latency.samples_ms)
    most = min(ordered[int(0.98 * (len(ordered) - 1))], 2 * ordered[len(ordered) // 2])
    high = max(most, *(mark.value for mark in marks), 0.0) * 1.1
    return [
        Chart(
            name="latency-samples",
            title="Every timing of the exported network",
            caption=f"{len(latency.samples_ms)} samples in the order they were taken; those above the axis "
            "are drawn at its end. Percentiles and the undisturbed time are those at the machine's usual "
            "speed. A budget limits the median (or the percentile that was named); a prediction is of what "
            "the device needs when nothing disturbs it.",
            x=Axis(label="sample", whole=True),
            y=Axis(label="latency, ms", low=0.0, high=high),
            series=(
                Series(
                    name="samples",
                    x=tuple(float(i) for i, _ in samples),
                    y=tuple(min(value, high) for _, value in samples),
                    kind="points",
                    size=1.6,
                    opacity=0.6,
                ),
            ),
            marks=tuple(marks),
        )
    ]
