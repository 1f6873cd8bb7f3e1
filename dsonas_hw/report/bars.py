"""Bars that stand in the cells of tables, as SVG."""

from __future__ import annotations

from dsonas_hw.report.numbers import percent
from dsonas_hw.report.run_data import BudgetResult


def bar(fraction: float, colour: str) -> str:
    """A fraction of a whole."""
    return (
        '<svg class="bar" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">'
        '<rect width="100" height="8" rx="1" fill="currentColor" opacity=".08"/>'
        f'<rect width="{100 * fraction:.1f}" height="8" rx="1" fill="{colour}"/></svg>'
    )


def bullet(budget: BudgetResult) -> str:
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
