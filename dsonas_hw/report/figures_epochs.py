"""Search and retraining as charts over the epochs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dsonas_hw.report.chart import Axis, Chart, Mark, Series, spans
from dsonas_hw.report.run_data import EpochRow, RunData

_EPOCH = Axis(label="epoch", whole=True)


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
