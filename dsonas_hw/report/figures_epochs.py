"""Search and retraining as charts over the epochs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from dsonas_hw.report.chart import Axis, Chart, Mark, Series, spans
from dsonas_hw.report.run_data import EpochRow, RunData


def search_figures(data: RunData) -> list[Chart]:
    """Cost against its target, γ, edges alive and training accuracy over the epochs of the search."""
    search = data.stage("search")
    charts = []
    if cost := _drawn(search, ("cost_ratio", "cost", "accent"), ("target_ratio", "target", "quiet")):
        ratios = [v for s in cost for v in s.y if v is not None]
        charts.append(
            Chart(
                name="cost",
                title="Cost over the search",
                caption="Cost of the tightest budget at the deployment width, as a multiple of its limit, "
                "and what the controller aims at.",
                x=Axis(label="epoch", whole=True),
                y=Axis(label="cost, multiple of the budget", log=spans(ratios, 5)),
                series=(cost[0], *(replace(s, dashed=True) for s in cost[1:])),
                marks=(Mark(axis="y", value=1.0, label="budget"),),
            )
        )
    if gamma := _drawn(search, ("gamma", "γ", "accent"), label=False):
        values = [v for v in gamma[0].y if v is not None and v > 0]
        charts.append(
            Chart(
                name="gamma",
                title="γ over the search",
                caption="Weight of the sparsity term; steered by a budget, it grows while the cost is above "
                "its target.",
                x=Axis(label="epoch", whole=True),
                y=Axis(label="γ", log=spans(values, 5)),
                series=gamma,
            )
        )
    if edges := _drawn(search, ("num_edges", "edges", "accent"), label=False):
        charts.append(
            Chart(
                name="edges",
                title="Edges alive over the search",
                caption="Edges on a path from input to output, all blocks together.",
                x=Axis(label="epoch", whole=True),
                y=Axis(label="edges alive", low=0.0, whole=True),
                series=edges,
            )
        )
    before = data.stage("pretrain")
    if accuracy := _drawn((*before, *search), ("accuracy", "accuracy", "accent"), label=False):
        charts.append(
            Chart(
                name="search-accuracy",
                title="Training accuracy of the supernet",
                caption="On the images that train the weights; it dips while edges die.",
                x=Axis(label="epoch", whole=True),
                y=Axis(label="training accuracy", percent=True),
                series=accuracy,
                marks=(Mark(axis="x", value=float(search[0].epoch), label="search begins"),)
                if before and search
                else (),
            )
        )
    return charts


def retrain_figures(data: RunData) -> list[Chart]:
    """Accuracy and loss while the derived network trains from scratch."""
    rows, charts = data.stage("retrain"), []
    if accuracy := _drawn(rows, ("accuracy", "training", "quiet"), ("test_accuracy", "test", "accent")):
        charts.append(
            Chart(
                name="retrain-accuracy",
                title="Accuracy while retraining",
                caption="The derived network, trained from scratch. Regularisation can hold training "
                "below test.",
                x=Axis(label="epoch", whole=True),
                y=Axis(label="accuracy", percent=True),
                series=accuracy,
            )
        )
    if loss := _drawn(rows, ("loss", "training loss", "accent"), label=False):
        charts.append(
            Chart(
                name="retrain-loss",
                title="Loss while retraining",
                caption="Training loss, all of its terms.",
                x=Axis(label="epoch", whole=True),
                y=Axis(label="training loss"),
                series=loss,
            )
        )
    return charts


def _drawn(rows: Sequence[EpochRow], *fields: tuple[str, str, str], label: bool = True) -> tuple[Series, ...]:
    """One line per (field, name, colour) that has any value; epochs without one are skipped."""
    found = []
    for key, name, colour in fields:
        pairs = [(float(row.epoch), value) for row in rows if (value := row.get(key)) is not None]
        if pairs:
            x, y = zip(*pairs, strict=True)
            found.append(Series(name=name, x=x, y=y, colour=colour, label=label))
    return tuple(found)
