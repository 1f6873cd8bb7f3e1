"""Numbers for people: units, significant digits, and a dash for what is not known."""

from __future__ import annotations

import math
import re

from dsonas_hw.budget import LIMITABLE, METRICS, QUANTITIES, format_quantity, parse_budgets

NONE = "–"
THIN = "\u202f"
"""Narrow no-break space between a number and its unit."""

#: cost → how it is called on a page.
COST_LABELS = {cost.quantity: cost.label for cost in LIMITABLE.values()}
METRIC_QUANTITIES = tuple(QUANTITIES[name] for name in METRICS)
"""Costs that only a device can tell; the others are counted on the exported file."""
#: cost → its unit on an axis.
COST_UNITS = {cost.quantity: cost.axis for cost in LIMITABLE.values()}
_BUDGET_NAMES = {quantity: name for name, quantity in QUANTITIES.items()}


def cost_text(quantity: str, value: float | None) -> str:
    """A cost with its unit, e.g. `4.83 ms` or `11.9 M`."""
    if value is None:
        return NONE
    return re.sub(r"(?<=[0-9])(?=[a-zA-Z])(?!e[-+])", THIN, format_quantity(_BUDGET_NAMES[quantity], value))


def percent(share: float | None, digits: int = 1) -> str:
    """0.9731 → `97.3 %`."""
    return NONE if share is None else f"{100 * share:.{digits}f}{THIN}%"


def signed_percent(share: float | None) -> str:
    """0.021 → `+2.1 %`, with a true minus; `0 %` if there is no difference at all."""
    if share is None:
        return NONE
    if share == 0:
        return f"0{THIN}%"
    return f"{'−' if share < 0 else '+'}{abs(100 * share):.1f}{THIN}%"


def about(source: str) -> str:
    """`~` before a number that was neither measured nor counted."""
    return "" if source in ("measured", "counted") else "~"


def predicted_text(quantity: str, value: float | None) -> str:
    """A cost of a network that was not measured: counted exactly, or predicted, with `~`."""
    return ("~" if quantity in METRIC_QUANTITIES and value is not None else "") + cost_text(quantity, value)


def count_of(number: int, noun: str) -> str:
    """`1 network`, `2 networks`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def plain(value: float | None, digits: int = 4) -> str:
    """A number to `digits` significant digits."""
    return NONE if value is None else f"{value:.{digits}g}"


def significant(value: float | None, digits: int = 3) -> str:
    """A number to `digits` significant digits, zeros too, so that a column lines up: 0.130, 12.0."""
    return NONE if value is None else f"{value:#.{digits}g}".rstrip(".")


def budget_words(text: str) -> str:
    """A budget, or a comma list: `latency=3ms,mac=2M` → `latency ≤ 3 ms, memory access (mac) ≤ 2 M`."""
    return ", ".join(
        f"{COST_LABELS[b.quantity]} ≤\u00a0{cost_text(b.quantity, b.limit)}" for b in parse_budgets([text])
    )


def short(value: float) -> str:
    """A number on an axis: `0.25`, `12`, `1.5M`, `3e-04`."""
    if value == 0:
        return "0"
    size = abs(value)
    if size < 1e-3:
        return f"{value:.0e}".replace("e-0", "e-")
    for factor, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if size >= factor * 0.9999:
            return f"{value / factor:.4g}{letter}"
    return f"{value:.4g}"


def finite(value: object) -> float | None:
    """A number out of a file from anyone; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) and abs(number) < 1e18 else None
