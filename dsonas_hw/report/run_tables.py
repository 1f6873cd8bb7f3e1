"""The tables of a run, as plain data."""

from __future__ import annotations

from collections.abc import Sequence

from dsonas_hw.report.bars import bullet
from dsonas_hw.report.figures_path import pareto_front, path_quantities
from dsonas_hw.report.numbers import (
    COST_LABELS,
    METRIC_QUANTITIES,
    about,
    cost_text,
    percent,
    plain,
    predicted_text,
    signed_percent,
)
from dsonas_hw.report.run_classes import class_table, confusion_table
from dsonas_hw.report.run_data import BudgetResult, EpochRow, PathPoint, RunData
from dsonas_hw.report.run_selection import selection_table
from dsonas_hw.report.table import Cell, Rich, Table, costs, hidden, numbers, values, words
from dsonas_hw.table.table import LookupTable

PERCENTILES_MS = ("p50_ms", "p95_ms", "p99_ms")
_EPOCH_FIELDS = ("step", "loss", "accuracy", "test_accuracy", "lr", "gamma", "cost_ratio", "target_ratio",
                 "num_edges", "seconds")  # fmt: skip


def run_tables(data: RunData) -> list[Table]:
    """Every table that this run has data for, whole, for files."""
    tables = [
        budget_table(data),
        path_table(data),
        epoch_table(data),
        lambda_table(data),
        selection_table(data.selection),
        latency_table(data),
        *([class_table(data.confusion), confusion_table(data.confusion)] if data.confusion else []),
    ]
    return [table for table in tables if table is not None]


def budget_table(data: RunData) -> Table | None:
    """Every budget with its cost, predicted and measured, and the verdict; in the quantity's unit."""
    if not data.budget_results:
        return None
    return Table(
        name="budgets",
        caption="Budgets. The bar is the cost, the whisker its interval, the hollow mark its prediction, the "
        "line the limit. A latency is predicted as if nothing disturbed the device; held against its limit "
        "is what a user will see. An energy is the mean of the whole board.",
        columns=(
            *words(budget="Budget"),
            *numbers(limit="Limit", predicted="Predicted", measured="Measured"),
            *words(source="Source", verdict="Verdict", used="Of the limit"),
            *hidden("quantity", "statistic", "low", "high", "probability", "relative_error"),
        ),
        rows=tuple(_budget_row(b, data.source_of(b.quantity)) for b in data.budget_results),
    )


def _budget_row(budget: BudgetResult, source: str) -> tuple[Cell, ...]:
    def cost(value: float | None, *, before: str = "", small: tuple[str, ...] = ()) -> Rich:
        return Rich(text=before + cost_text(budget.quantity, value), value=value, small=small)

    interval = " to ".join(cost_text(budget.quantity, bound) for bound in (budget.low, budget.high))
    used = None if budget.value is None else budget.value / budget.limit
    is_bad = budget.verdict in ("missed", "undecided")
    return (
        Rich(text=COST_LABELS[budget.quantity], value=budget.name),
        cost(budget.limit),
        cost(budget.predicted, before=about(source)),
        cost(budget.measured, small=(f"{budget.statistic}, {interval}",) if budget.statistic else ()),
        Rich(text=source, value=source, style="miss" if about(source) else ""),
        Rich(text=budget.answer, value=budget.verdict, style="miss" if is_bad else ""),
        Rich(text=percent(used), value=used, svg=bullet(budget)),
        budget.quantity,
        budget.statistic or None,
        budget.low,
        budget.high,
        budget.probability,
        budget.relative_error,
    )


def prediction_table(data: RunData) -> Table | None:
    """Every cost of the exported network: predicted before training, and counted or measured after.

    A latency is compared as predictions mean it, when nothing disturbs the device.
    """
    validation = data.validation
    if validation is None:
        return None
    predicted = dict(data.derivation.predicted) if data.derivation else {}
    predicted |= {b.quantity: b.predicted for b in validation.budgets if b.predicted is not None}
    known = {q: v for q, v in validation.costs.items() if validation.source_of(q) in ("measured", "counted")}
    known |= {b.quantity: b.measured for b in validation.budgets if b.measured is not None}
    if validation.latency is not None and (quiet_ms := validation.latency.values.get("quiet_ms")) is not None:
        known["latency_ms"] = quiet_ms

    def row(quantity: str) -> tuple[str, str, str, float | None, str]:
        before, after = predicted.get(quantity), known.get(quantity)
        error = before / after - 1 if before is not None and after else None
        source = validation.source_of(quantity) if validation else ""
        return (
            COST_LABELS[quantity] + (", undisturbed" if quantity == "latency_ms" else ""),
            cost_text(quantity, before),
            cost_text(quantity, after),
            error,
            source if after is not None else f"not measured ({source})",
        )

    return Table(
        name="predicted-measured",
        caption="Costs of the exported network",
        columns=(
            *words(cost="Cost"),
            *numbers(predicted="Predicted", measured="Exported network"),
            *numbers(signed_percent, relative_error="Predicted is off by"),
            *words(source="How it is known"),
        ),
        rows=tuple(row(quantity) for quantity in COST_LABELS if quantity in predicted or quantity in known),
    )


def latency_table(data: RunData) -> Table | None:
    """The statistics of the timing."""
    latency = data.validation.latency if data.validation else None
    if latency is None:
        return None
    names = {
        "p50_ms": "p50, the median",
        "p95_ms": "p95",
        "p99_ms": "p99",
        "seen_p50_ms": "median as seen",
        "quiet_ms": "undisturbed (low quantile)",
        "mean_ms": "mean",
        "std_ms": "standard deviation",
    }

    def text(key: str) -> str:
        return cost_text("latency_ms", latency.values.get(key))

    rows = [
        (name, text(key), f"{text(f'{key}_low')} to {text(f'{key}_high')}" if key in PERCENTILES_MS else "")
        for key, name in names.items()
        if key in latency.values
    ]
    rows += [
        (name, plain(latency.values[key], 6), "")
        for key, name in (
            ("relative_speed", "speed of the machine, 1 = usual"),
            ("num_rounds", "rounds"),
            ("num_samples", "samples"),
        )
        if key in latency.values
    ]
    return Table(
        name="latency",
        caption=f"Latency measured on {latency.device_title}" if latency.device_title else "Latency measured",
        columns=(
            *words(statistic="Statistic"),
            *numbers(value="Value", interval="99 % interval"),
        ),
        rows=tuple(rows),
    )


def path_table(data: RunData) -> Table | None:
    """Every point of the path with its costs."""
    if not data.path:
        return None
    return _path_table(data.path, name="path", caption="Path of architectures", quantities=tuple(COST_LABELS))


def front_table(data: RunData) -> Table | None:
    """The points of the path that are best for their cost, by the first budgeted cost."""
    quantities = path_quantities(data)
    if not quantities:
        return None
    points = [data.path[i] for i in pareto_front(data, quantities[0])]
    shown = [q for q in ("mac", "flops", "params", *METRIC_QUANTITIES) if any(q in p.costs for p in points)]
    caption = "Architectures of the path that are the best for their cost"
    return _path_table(points, name="front", caption=caption, quantities=shown) if points else None


def _path_table(points: Sequence[PathPoint], *, name: str, caption: str, quantities: Sequence[str]) -> Table:
    return Table(
        name=name,
        caption=caption,
        columns=(
            *numbers(step="Step", epoch="Epoch"),
            *numbers(lambda value: plain(value, 3), gamma="γ"),
            *numbers(width="Channels", num_edges="Edges"),
            *numbers(percent, accuracy="Accuracy, shared weights"),
            *costs(*quantities, text=predicted_text),
        ),
        rows=tuple(
            (
                p.step,
                p.epoch,
                p.gamma,
                p.width,
                p.num_edges,
                p.accuracy,
                *(p.costs.get(q) for q in quantities),
            )
            for p in points
        ),
    )


def epoch_table(data: RunData) -> Table | None:
    """metrics.jsonl as a table."""
    if not data.epochs:
        return None

    def row(epoch: EpochRow) -> tuple[str | float | int | None, ...]:
        return (epoch.stage, epoch.epoch, *(epoch.get(name) for name in _EPOCH_FIELDS))

    return Table(
        name="epochs",
        caption="Epochs of pretraining, search and retraining",
        columns=(
            *words(stage="Stage"),
            *numbers(epoch="Epoch"),
            *values(*_EPOCH_FIELDS),
        ),
        rows=tuple(row(epoch) for epoch in data.epochs),
    )


def lambda_table(data: RunData) -> Table | None:
    """λ of every edge at the end of every epoch, one row per edge."""
    from dsonas_hw.architecture.architecture import node_name

    if not data.lam or data.space is None:
        return None
    space = data.space
    names = [
        (node_name(space, s), "output" if t > space.num_nodes else node_name(space, t))
        for s, t in space.edges
    ]
    return Table(
        name="lambda-edges",
        caption="λ of every edge",
        columns=(
            *numbers(step="Step", lambda_set="λ set"),
            *words(source="From", target="To"),
            *numbers(plain, lam="λ"),
        ),
        rows=tuple(
            (row.step, number, source, target, value)
            for row in data.lam
            for number, values in enumerate(row.lam)
            for (source, target), value in zip(names, values, strict=True)
        ),
    )


def check_table(profile: LookupTable | None) -> Table | None:
    """The error of the profile on whole networks that it was not fitted on."""
    if profile is None or not profile.checks:
        return None
    rows = [
        (c.space, name, c.num_networks, error.mape, error.share_within_10, error.kendall_tau, coverage)
        for c in profile.checks.values()
        for name, error, coverage in (
            ("this profile", c.error, c.interval_coverage),
            *((name, error, None) for name, error in c.baselines.items()),
            ("this profile, energy", c.energy_error, None),
        )
        if error is not None
    ]
    return Table(
        name="profile-check",
        caption="Latency (or energy) of whole networks, predicted against measured; none was fitted on",
        columns=(
            *words(space="Networks of", method="Predicted by"),
            *numbers(num_networks="Networks"),
            *numbers(percent, mape="Mean error", share_within_10="Within ±10 %"),
            *numbers(lambda value: plain(value, 3), kendall_tau="Kendall τ"),
            *numbers(percent, interval_coverage="Inside the predicted interval"),
        ),
        rows=tuple(rows),
    )
