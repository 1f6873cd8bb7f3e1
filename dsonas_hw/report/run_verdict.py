"""The top of a run's page: do the budgets hold, who says so, and how accurate is the network."""

from __future__ import annotations

from collections.abc import Iterator

from dsonas_hw.architecture.costs import TargetCosts
from dsonas_hw.report.numbers import COST_LABELS, NONE, about, cost_text, percent
from dsonas_hw.report.parts import Facts, Headline, Notes, Part, Warning
from dsonas_hw.report.run_data import BudgetResult, RunData
from dsonas_hw.report.table import Rich, Table, numbers, words

_SHOWN_COSTS = ("latency_ms", "energy_mj", "mac", "flops", "params")


def budgets_in_words(data: RunData) -> str:
    """`within mac 6 M, latency 3 ms`."""
    if not data.budgets:
        return "without a budget"
    return "within " + ", ".join(f"{b.name} {cost_text(b.quantity, b.limit)}" for b in data.budgets)


def verdict_parts(data: RunData) -> list[Part]:
    """What stands in the section."""
    validation = data.validation
    parts: list[Part] = [*_warnings(data), *_headline(data), Facts(items=_facts(data))]
    if data.budget_results:
        parts.append(_budget_table(data))
    if validation is not None:
        parts.append(Notes(heading="The measurement warns:", items=validation.warnings))
    return [*parts, Notes(heading="This run is not complete:", items=data.notes)]


def _warnings(data: RunData) -> Iterator[Warning]:
    validation = data.validation
    if validation is not None and not validation.is_measured:
        stand_in = "estimated" if validation.source == "measured" else validation.source
        said = validation.caution.partition(": ")[2]
        yield Warning(
            heading="ESTIMATED, NOT VALIDATED",
            text=f"Not everything was measured on {validation.device or 'the device'}: what is marked below "
            f"is {stand_in}. {f'{said[:1].upper()}{said[1:]}. ' if said else ''}Run dsonas-hw validate on a "
            "machine that has the device.",
        )
    elif validation is None and data.derivation is not None and data.derivation.caution:
        heading, _, text = data.derivation.caution.partition(": ")
        yield Warning(heading=heading, text=f"{text}.")


def _headline(data: RunData) -> list[Part]:
    validation = data.validation
    if validation is None:
        return [
            Headline(text="Not validated yet"),
            "The costs below are predictions. dsonas-hw validate counts and measures the exported network.",
        ]
    if not validation.budgets:
        return [Headline(text="No budget was set")]
    for verdict in ("missed", "undecided"):
        if found := [budget.name for budget in validation.budgets if budget.verdict == verdict]:
            text = f"The {' and '.join(found)} budget is {verdict}"
            if verdict == "missed":
                return [Headline(text=text, mood="bad")]
            why = "The limit lies within the interval that the measured value is known to lie in."
            return [Headline(text=text, mood="open"), why]
    if not validation.holds:
        return [Headline(text="Not every budget could be answered", mood="bad")]
    if not validation.is_measured:
        uncertain = [
            f"the {b.name} budget {b.answer}" for b in validation.budgets if b.probability is not None
        ]
        return [Headline(text=f"By the estimate, {' and '.join(uncertain) or 'every budget holds'}")]
    return [Headline(text=f"Every budget holds, measured on {validation.device}", mood="good")]


def _facts(data: RunData) -> list[tuple[str, str]]:
    """Test accuracy and the costs: those of the budgets as answered, the others counted."""
    items = [("test accuracy, retrained", percent(data.test_accuracy))]
    answered = {b.quantity: b for b in data.budget_results}
    counted = TargetCosts().costs(data.architecture).to_dict() if data.architecture is not None else {}
    for quantity in _SHOWN_COSTS:
        value = data.final_cost(quantity)
        value = counted.get(quantity) if value is None else value
        if value is not None:
            statistic = f" {answered[quantity].statistic}".rstrip() if quantity in answered else ""
            source = data.source_of(quantity)
            label = f"{COST_LABELS[quantity]}{statistic}, {source}"
            items.append((label, about(source) + cost_text(quantity, value)))
    return items


def _budget_table(data: RunData) -> Table:
    return Table(
        name="answers",
        caption="Budgets. The bar is the cost, the whisker its interval, the hollow mark its prediction, the "
        "line the limit. A latency is predicted as if nothing disturbed the device; held against its limit "
        "is what a user will see.",
        columns=(
            *words(budget="Budget"),
            *numbers(limit="Limit", predicted="Predicted", measured="Measured"),
            *words(source="Source", verdict="Verdict"),
            *numbers(fraction="Of the limit"),
            *words(bar=""),
        ),
        rows=tuple(_budget_row(budget, data.source_of(budget.quantity)) for budget in data.budget_results),
    )


def _budget_row(budget: BudgetResult, source: str) -> tuple[Rich | str, ...]:
    def text(value: float | None) -> str:
        return cost_text(budget.quantity, value)

    interval = f"{budget.statistic}, {text(budget.low)} to {text(budget.high)}" if budget.statistic else ""
    return (
        budget.name,
        text(budget.limit),
        about(source) + text(budget.predicted),
        Rich(text=text(budget.measured), small=(interval,) if interval else ()),
        Rich(text=source, style="miss" if about(source) else ""),
        Rich(text=budget.answer, style="miss" if budget.verdict in ("missed", "undecided") else ""),
        NONE if budget.value is None else percent(budget.value / budget.limit),
        Rich(text="", svg=_bullet(budget)),
    )


def _bullet(budget: BudgetResult) -> str:
    """Cost, prediction and limit on one line of 0 to 1.25 limits (or more, if missed by more)."""
    if budget.value is None:
        return ""
    known = (budget.value, budget.predicted, budget.low, budget.high)
    value, predicted, low, high = (None if v is None else v / budget.limit for v in known)
    assert value is not None
    scale = 200 / max(1.25, 1.08 * max(value, predicted or 0, high or 0))
    colour = "var(--accent)" if budget.verdict in ("holds", None) else "var(--bad-ink)"
    ink = 'stroke="var(--ink)"'
    parts = [
        '<line x1="0" x2="200" y1="10" y2="10" stroke="var(--line)"/>',
        f'<rect x="0" y="6" width="{value * scale:.1f}" height="8" rx="2" style="fill:{colour}"/>',
        f'<line x1="{scale:.1f}" x2="{scale:.1f}" y1="1" y2="19" {ink} stroke-width="2"/>',
    ]
    if low is not None and high is not None:
        parts.append(
            f'<line x1="{low * scale:.1f}" x2="{high * scale:.1f}" y1="10" y2="10" {ink} stroke-width="1.5"/>'
        )
    if predicted is not None:
        parts.append(
            f'<circle cx="{predicted * scale:.1f}" cy="10" r="3.5" fill="var(--paper)" {ink} '
            'stroke-width="1.5"/>'
        )
    return (
        f'<svg class="bullet" viewBox="0 0 212 20" role="img" aria-label="{percent(value)} of the limit" '
        f'preserveAspectRatio="xMinYMid meet">{"".join(parts)}</svg>'
    )
