"""The top of a run's page: do the budgets hold, who says so, and how accurate is the network."""

from __future__ import annotations

from html import escape

from dsonas_hw.architecture.costs import TargetCosts
from dsonas_hw.report.numbers import COST_LABELS, NONE, about, cost_text, percent
from dsonas_hw.report.page import facts, notes, paragraph, warning
from dsonas_hw.report.run_data import BudgetResult, RunData, Validation

_SHOWN_COSTS = ("latency_ms", "energy_mj", "mac", "flops", "params")


def budgets_in_words(data: RunData) -> str:
    """`within mac 6 M, latency 3 ms`."""
    budgets = data.budgets
    if not budgets:
        return "without a budget"
    return "within " + ", ".join(f"{b.name} {cost_text(b.quantity, b.limit)}" for b in budgets)


def verdict(data: RunData) -> str:
    """HTML of the section."""
    validation = data.validation
    parts = [_headline(data)]
    if validation is not None and not validation.is_measured:
        parts.insert(0, _estimated(validation))
    elif validation is None and data.derivation is not None and data.derivation.caution:
        heading, _, text = data.derivation.caution.partition(": ")
        parts.insert(0, warning(heading, text + "."))
    parts.append(facts(_facts(data)))
    if data.budget_results:
        parts.append(_budget_table(data))
    if validation is not None:
        parts.append(notes(validation.warnings, heading="The measurement warns:"))
    parts.append(notes(data.notes, heading="This run is not complete:"))
    return f'<div class="verdict">{"".join(parts)}</div>'


def _headline(data: RunData) -> str:
    validation = data.validation
    if validation is None:
        text = "Not validated yet"
        return f"<h3>{text}</h3>" + paragraph(
            "The costs below are predictions. dsonas-hw validate counts and measures the exported network."
        )
    if not validation.budgets:
        return "<h3>No budget was set</h3>"
    missed = [budget.name for budget in validation.budgets if budget.verdict == "missed"]
    if missed:
        which = " and ".join(missed)
        return f'<h3 class="bad"><span aria-hidden="true">✗</span> The {escape(which)} budget is missed</h3>'
    undecided = [budget.name for budget in validation.budgets if budget.verdict == "undecided"]
    if undecided:
        which = " and ".join(undecided)
        return (
            f'<h3 class="bad"><span aria-hidden="true">?</span> The {escape(which)} budget is undecided</h3>'
            + paragraph("The limit lies within the interval that the measured value is known to lie in.")
        )
    if not validation.holds:
        return '<h3 class="bad"><span aria-hidden="true">✗</span> Not every budget could be answered</h3>'
    if not validation.is_measured:
        uncertain = [b for b in validation.budgets if b.probability is not None]
        which = " and ".join(f"the {b.name} budget {b.answer}" for b in uncertain) or "every budget holds"
        return f"<h3>By the estimate, {escape(which)}</h3>"
    return (
        '<h3 class="good"><span aria-hidden="true">✓</span> Every budget holds, measured on '
        f"{escape(validation.device)}</h3>"
    )


def _estimated(validation: Validation) -> str:
    return warning(
        "ESTIMATED, NOT VALIDATED",
        f"Not everything was measured on {validation.device or 'the device'}: what is marked below is "
        f"{_stand_in(validation)}. {_sentence(validation.caution)}Run dsonas-hw validate on a machine that "
        "has the device.",
    )


def _sentence(caution: str) -> str:
    """What a caution says behind its heading."""
    text = caution.partition(": ")[2]
    return f"{text[:1].upper()}{text[1:]}. " if text else ""


def _stand_in(validation: Validation) -> str:
    return "estimated" if validation.source == "measured" else validation.source


def _facts(data: RunData) -> list[tuple[str, str]]:
    """Test accuracy and the costs: those of the budgets as answered, the others counted."""
    items = [("test accuracy, retrained", percent(data.test_accuracy))]
    answered = {b.quantity: b for b in data.budget_results}
    counted: dict[str, float | None] = {}
    if data.architecture is not None:
        counted = TargetCosts().costs(data.architecture).to_dict()
    if data.validation is not None:
        counted |= data.validation.costs
    elif data.derivation is not None:
        counted |= data.derivation.predicted
    for quantity in _SHOWN_COSTS:
        budget = answered.get(quantity)
        value = budget.value if budget else counted.get(quantity)
        if value is not None:
            statistic = f" {budget.statistic}" if budget and budget.statistic else ""
            label = f"{COST_LABELS[quantity]}{statistic}, {data.source_of(quantity)}"
            items.append((label, about(data.source_of(quantity)) + cost_text(quantity, value)))
    return items


def _budget_table(data: RunData) -> str:
    rows = "".join(_budget_row(budget, data.source_of(budget.quantity)) for budget in data.budget_results)
    return (
        '<div class="scroll"><table><caption>Budgets. The bar is the cost, the whisker its interval, the '
        "hollow mark its prediction, the line the limit. A latency is predicted as if nothing disturbed "
        "the device; held against its limit is what a user will see.</caption>"
        '<thead><tr><th scope="col">Budget</th>'
        '<th scope="col" class="num">Limit</th><th scope="col" class="num">Predicted</th>'
        '<th scope="col" class="num">Measured</th><th scope="col">Source</th><th scope="col">Verdict</th>'
        f'<th scope="colgroup" colspan="2">Of the limit</th></tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _budget_row(budget: BudgetResult, source: str) -> str:
    quantity = budget.quantity
    miss = ' class="miss"' if budget.verdict in ("missed", "undecided") else ""
    loud = ' class="miss"' if about(source) else ""
    return (
        f'<tr><th scope="row">{escape(budget.name)}</th>'
        f'<td class="num">{cost_text(quantity, budget.limit)}</td>'
        f'<td class="num">{about(source)}{cost_text(quantity, budget.predicted)}</td>'
        f'<td class="num">{cost_text(quantity, budget.measured)}{_interval(budget)}</td>'
        f"<td{loud}>{escape(source)}</td><td{miss}>{escape(budget.answer)}</td><td>{_share(budget)}</td>"
        f"<td>{_bullet(budget)}</td></tr>"
    )


def _interval(budget: BudgetResult) -> str:
    """Which percentile was measured, and the interval that it lies in; empty for a cost that is exact."""
    if not budget.statistic:
        return ""
    low, high = cost_text(budget.quantity, budget.low), cost_text(budget.quantity, budget.high)
    return f"<small>{escape(budget.statistic)}, {low} to {high}</small>"


def _share(budget: BudgetResult) -> str:
    """Cost as a share of the limit."""
    return NONE if budget.value is None else percent(budget.value / budget.limit)


def _bullet(budget: BudgetResult) -> str:
    """Cost, prediction and limit on one line of 0 to 1.25 limits (or more, if missed by more)."""
    value = budget.value
    if value is None:
        return NONE
    share = value / budget.limit
    words = _share(budget)
    predicted = budget.predicted / budget.limit if budget.predicted is not None else None
    most = max(share, predicted or 0, (budget.high or 0) / budget.limit)
    scale = 200 / max(1.25, most * 1.08)
    colour = "var(--accent)" if budget.verdict in ("holds", None) else "var(--bad-ink)"
    whisker = (
        f'<line x1="{budget.low / budget.limit * scale:.1f}" x2="{budget.high / budget.limit * scale:.1f}" '
        'y1="10" y2="10" stroke="var(--ink)" stroke-width="1.5"/>'
        if budget.low is not None and budget.high is not None
        else ""
    )
    mark = (
        f'<circle cx="{predicted * scale:.1f}" cy="10" r="3.5" fill="var(--paper)" stroke="var(--ink)" '
        'stroke-width="1.5"/>'
        if predicted is not None
        else ""
    )
    return (
        f'<svg class="bullet" viewBox="0 0 212 20" role="img" aria-label="{words} of the limit" '
        'preserveAspectRatio="xMinYMid meet">'
        f'<line x1="0" x2="200" y1="10" y2="10" stroke="var(--line)"/>'
        f'<rect x="0" y="6" width="{share * scale:.1f}" height="8" rx="2" style="fill:{colour}"/>'
        f'<line x1="{scale:.1f}" x2="{scale:.1f}" y1="1" y2="19" stroke="var(--ink)" '
        f'stroke-width="2"/>{whisker}{mark}</svg>'
    )
