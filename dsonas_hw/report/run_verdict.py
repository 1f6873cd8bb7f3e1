"""The top of a run's page: do the budgets hold, who says so, and how accurate is the network."""

from __future__ import annotations

from collections.abc import Iterator

from dsonas_hw.architecture.costs import TargetCosts
from dsonas_hw.report.numbers import COST_LABELS, about, cost_text, percent
from dsonas_hw.report.parts import Facts, Headline, Notes, Part, Warning
from dsonas_hw.report.run_data import RunData
from dsonas_hw.report.run_tables import budget_table

_SHOWN_COSTS = ("latency_ms", "energy_mj", "mac", "flops", "params")


def budgets_in_words(data: RunData) -> str:
    """`within memory access (mac) 6 M, latency 3 ms`."""
    if not data.budgets:
        return "without a budget"
    return "within " + ", ".join(
        f"{COST_LABELS[b.quantity]} {cost_text(b.quantity, b.limit)}" for b in data.budgets
    )


def verdict_parts(data: RunData) -> list[Part]:
    """What stands in the section."""
    validation = data.validation
    parts: list[Part] = [*_warnings(data), *_headline(data), Facts(items=_facts(data))]
    if (budgets := budget_table(data)) is not None:
        parts.append(budgets)
    if validation is not None:
        parts.append(Notes(heading="The measurement warns:", items=validation.warnings))
    return [*parts, Notes(heading="This run is not complete:", items=data.notes)]


def _warnings(data: RunData) -> Iterator[Warning]:
    validation = data.validation
    if data.unfinished:
        text = f"It has done {data.unfinished}: what follows is of what it has found so far."
        yield Warning(heading="THE SEARCH IS NOT FINISHED", text=text)
    if validation is not None and not validation.is_measured:
        stand_in = "estimated" if validation.source == "measured" else validation.source
        said = validation.disclaimer.partition(": ")[2]
        yield Warning(
            heading="ESTIMATED, NOT VALIDATED",
            text=f"Not everything was measured on {validation.device or 'the device'}: what is marked below "
            f"is {stand_in}. {f'{said[:1].upper()}{said[1:]}. ' if said else ''}Run dsonas-hw validate on a "
            "machine that has the device, or carry what dsonas-hw kit writes to it.",
        )
    elif validation is None and data.derivation is not None and data.derivation.disclaimer:
        heading, _, text = data.derivation.disclaimer.partition(": ")
        yield Warning(heading=heading, text=f"{text}.")


def _headline(data: RunData) -> list[Part]:
    validation = data.validation
    if validation is None:
        return [
            Headline(text="Not validated yet"),
            "The costs below are predictions. `dsonas-hw validate` counts and measures the exported network.",
        ]
    if not validation.budgets:
        return [Headline(text="No budget was set")]
    for verdict in ("missed", "undecided"):
        if found := [
            COST_LABELS[budget.quantity] for budget in validation.budgets if budget.verdict == verdict
        ]:
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
