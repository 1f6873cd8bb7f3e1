"""The page of a grid study: the table it was made for, then every network."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from dsonas_hw.budget import parse_budgets
from dsonas_hw.measure.statistics import STATISTICS
from dsonas_hw.report.chart import Axis, Chart, Series
from dsonas_hw.report.codesign_tables import missing_table
from dsonas_hw.report.numbers import (
    COST_LABELS,
    COST_UNITS,
    METRIC_QUANTITIES,
    THIN,
    budget_words,
    cost_text,
    count_of,
    finite,
    percent,
    plain,
    predicted_text,
    significant,
)
from dsonas_hw.report.parts import (
    Answers,
    Details,
    Facts,
    Figures,
    Notes,
    Page,
    Pairs,
    Part,
    Section,
    missing_notes,
)
from dsonas_hw.report.scatter import Dot, scatter
from dsonas_hw.report.table import Table, costs, hidden, numbers, words
from dsonas_hw.study.grid import GridResult
from dsonas_hw.study.spec import RANDOM, SAME_WIDTH
from dsonas_hw.study.table import StudyRow, measured_ms

_COLOURS = ("accent", "orange", "green", "pink", "yellow")
BASELINES = {RANDOM: "muted", SAME_WIDTH: "sky"}
"""Their colours."""
UNTRAINED = "No network has been trained yet."
_MEASURED = {
    "quiet_ms": "Undisturbed, ms", "p50_ms": "Median, ms", "p50_ms_low": "from", "p50_ms_high": "to",
    "p95_ms": "p95, ms", "p99_ms": "p99, ms",
}  # fmt: skip
"""What was measured of a network's latency → its heading."""


def grid_page(result: GridResult, *, name: str) -> Page:
    """The page. name: of the study's directory."""
    file = result.study.file
    block = _block_chart(result.results)
    return Page(
        title=f"Study {file.name} – {name}",
        kicker=f"Study “{name}”",
        heading=file.name,
        subtitle=file.description or "a grid of searches and trainings",
        sections=[
            Section(id="summary", heading="Summary", parts=_summary(result)),
            Section(
                id="costs",
                heading="Cost against accuracy",
                parts=[Figures(items=_cost_charts(result))] if result.results else [UNTRAINED],
            ),
            *(
                [Section(id="blocks", heading="Distribution over the blocks", parts=[Figures(items=[block])])]
                if block
                else []
            ),
            Section(id="networks", heading="Networks", parts=[network_table(result)]),
            Section(id="setting", heading="How this was made", parts=_setting(result)),
        ],
    )


def _summary(result: GridResult) -> list[Part]:
    jobs = len(result.study.jobs)
    lowest = min((row.test_error_mean for row in result.rows), default=None)
    parts: list[Part] = [
        Answers(sentences=[("", sentence) for sentence in answer_sentences(result)]),
        Facts(
            items=[
                ("networks trained", str(len(result.results))),
                ("variants", str(len({row.variant for row in result.rows}))),
                ("lowest test error", percent(lowest, 2)),
                ("jobs done", f"{jobs - len(result.missing)} of {jobs}"),
            ]
        ),
        row_table(result),
        Notes(heading="Without a network:", items=result.skipped),
    ]
    if result.missing:
        parts.append(missing_notes([f"{m.job}: {m.reason}" for m in result.missing]))
    return parts


def answer_sentences(result: GridResult) -> list[str]:
    """For each budget the variant whose networks hold it with the lowest mean test error.

    `For mac ≤ 170 k: variant searched, 98.60 % ± 0.21 % over 3 networks, 0.142 ms measured.`
    """
    found = []
    for budget in result.study.file.budgets:
        held = [
            r
            for r in result.rows
            if r.budget == budget and r.budget_used <= 1 and r.num_holding in (None, r.num)
        ]
        if held:
            best = min(held, key=lambda row: (row.test_error_mean, row.latency_ms or 0.0))
            found.append(f"For {budget_words(budget)}: {_row_words(best)}.")
    return found


def _row_words(row: StudyRow) -> str:
    deviation = "" if row.test_error_std is None else f" ± {percent(row.test_error_std, 2)}"
    measured, predicted = row.latency_p50_ms, row.latency_ms
    latency = (
        f", {significant(measured)}{THIN}ms measured" if measured is not None
        else f", ~{significant(predicted)}{THIN}ms predicted" if predicted is not None
        else ""
    )  # fmt: skip
    accuracy = percent(1 - row.test_error_mean, 2)
    return f"variant {row.variant}, {accuracy}{deviation} over {count_of(row.num, 'network')}{latency}"


def row_table(result: GridResult) -> Table:
    """Means and deviations, a row per budget and variant."""
    columns = (
        *words(budget="Budget", variant="Variant"),
        *numbers(num="Networks"),
        *numbers(partial(percent, digits=2), test_error_mean="Test error", test_error_std="± std"),
        *costs("mac", "flops", "params"),
        *numbers(plain, latency_ms="Predicted, ms"),
        *numbers(plain, **{f"latency_{name}_ms": f"Measured {name}, ms" for name in STATISTICS}),
        *numbers(num_holding="Hold the budget"),
        *numbers(
            partial(plain, digits=2), beats_random_by_std="Better than random, σ",
            beats_same_width_by_std="Than random of its width, σ", ratio_before_fit="Budget × before fitting",
        ),
        *hidden("budget_used"),
    )  # fmt: skip
    return Table(
        name="table",
        caption="Means over seeds; the deviation is the sample’s standard deviation",
        sortable=True,
        columns=columns,
        rows=tuple(tuple(getattr(row, column.key) for column in columns) for row in result.rows),
    )


def network_table(result: GridResult) -> Table:
    """Every network that is trained."""
    quantities = ("mac", "flops", "params", "latency_ms")
    return Table(
        name="networks",
        caption="Every network that is trained",
        sortable=True,
        columns=(
            *words(job="Job", variant="Variant", budget="Budget"),
            *numbers(seed="Seed"),
            *numbers(partial(percent, digits=2), test_error="Test error"),
            *costs(*quantities, text=predicted_text),
            *numbers(plain, **_MEASURED),
            *words(verdict="Verdict"),
            *numbers(width="Channels"),
        ),
        rows=tuple(
            (
                r["job"], r["variant"], r["budget"], r["seed"], finite(r.get("test_error")),
                *(finite(r["costs"].get(q)) for q in quantities),
                *(measured_ms(r, key) for key in _MEASURED),
                r.get("verdict"), r.get("width"),
            )
            for r in result.results
        ),
    )  # fmt: skip


def grid_figures(result: GridResult) -> list[Chart]:
    """Cost against accuracy, one chart per budgeted cost and one of params; flops by block."""
    chart = _block_chart(result.results)
    return [*_cost_charts(result), *([chart] if chart else [])]


def _cost_charts(result: GridResult) -> list[Chart]:
    budgeted = {b.quantity for text in result.study.file.budgets for b in parse_budgets([text])}
    shown = [q for q in COST_LABELS if q in {*budgeted, "params"}]
    return [chart for q in shown if (chart := _cost_chart(result.results, q)) is not None]


def _cost_chart(results: Sequence[dict[str, Any]], quantity: str) -> Chart | None:
    measured = quantity == "latency_ms" and all(measured_ms(r, "p50_ms") is not None for r in results)
    how = "measured median " if measured else "predicted " if quantity in METRIC_QUANTITIES else ""
    label = how + COST_LABELS[quantity]
    groups: dict[str, list[Dot]] = {}
    for result in results:
        told = measured_ms(result, "p50_ms") if measured else result["costs"].get(quantity)
        cost, error, variant = finite(told), finite(result.get("test_error")), str(result["variant"])
        if cost is not None and error is not None:
            hint = f"{variant}: {cost_text(quantity, cost)}, {percent(1 - error, 2)}"
            groups.setdefault(variant, []).append(Dot(cost=cost, accuracy=1 - error, hint=hint))
    if not groups:
        return None
    return scatter(
        groups, name=f"accuracy-{quantity.replace('_', '-')}", title=f"{label} against accuracy".capitalize(),
        caption="Every network that is trained.", cost=f"{label}, {COST_UNITS[quantity]}",
        colours=_colours(groups), faint=tuple(BASELINES),
    )  # fmt: skip


def _colours(variants: Iterable[str]) -> dict[str, str]:
    """Colour of every variant, in the order they are drawn: baselines first."""
    names = list(variants)
    named = [name for name in names if name not in BASELINES]
    baselines = {name: colour for name, colour in BASELINES.items() if name in names}
    return baselines | {name: _COLOURS[i % len(_COLOURS)] for i, name in enumerate(named)}


def _block_chart(results: Sequence[dict[str, Any]]) -> Chart | None:
    """Where the flops are: each block's share, mean over the networks of a variant (paper, Fig. 5).

    None where there is one block. Networks whose blocks are all empty have no shares.
    """
    shares: dict[str, list[list[float]]] = {}
    for result in results:
        flops = [float(f) for f in result.get("block_flops", [])]
        if len(flops) > 1 and sum(flops) > 0:
            shares.setdefault(str(result["variant"]), []).append([f / sum(flops) for f in flops])
    if not shares:
        return None
    colours = _colours(shares)
    means = {name: [statistics.mean(block) for block in zip(*of, strict=True)] for name, of in shares.items()}
    return Chart(
        name="flops-by-block",
        title="Share of the blocks’ multiply-adds in each block",
        caption="Mean over a variant’s networks, all budgets together; at 0 % the block is the identity.",
        x=Axis(label="block", whole=True),
        y=Axis(label="share of multiply-adds (flops)", percent=True, low=0.0),
        series=tuple(
            Series(
                name=name, x=tuple(map(float, range(1, len(means[name]) + 1))), y=tuple(means[name]),
                kind="front", colour=colour, opacity=0.6 if name in BASELINES else 1.0,
                hints=tuple(f"{name}, block {i}: {percent(y)}" for i, y in enumerate(means[name], 1)),
            )
            for name, colour in colours.items()
        ),
        legend=tuple(colours.items()),
    )  # fmt: skip


def _setting(result: GridResult) -> list[Part]:
    file = result.study.file
    items = [
        ("preset", str(file.base.get("preset", "digits"))),
        ("budgets", "; ".join(file.budgets)),
        ("seeds", ", ".join(map(str, file.seeds))),
        ("random networks per budget and seed", str(file.random)),
        ("and of the searched width", str(file.random_same_width)),
        ("searches", "one per budget" if file.search_per_budget else "one serves every budget"),
    ]
    missing = [Details(summary="All that is missing", parts=[missing_table(result.missing)])]
    return [Pairs(items=items), *(missing if result.missing else [])]
