"""Fields of files that may come from anyone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dsonas_hw.budget import QUANTITIES
from dsonas_hw.report.numbers import COST_LABELS, finite

MAX_TEXT = 500


def costs(raw: Mapping[str, Any]) -> dict[str, float]:
    """The known costs among them, by quantity."""
    return {name: value for name in COST_LABELS if (value := finite(raw.get(name))) is not None}


def budget_name(value: object) -> str:
    """The name of a budget.

    Raises:
        ValueError: there is none of that name.
    """
    name = text(value)
    if name not in QUANTITIES:
        raise ValueError(f"unknown budget {name!r}")
    return name


def required(value: object) -> float:
    """A number.

    Raises:
        ValueError: anything else.
    """
    number = finite(value)
    if number is None:
        raise ValueError("not a number")
    return number


def share(value: object) -> float | None:
    """A number from 0 to 1; None for anything else."""
    number = finite(value)
    return number if number is not None and 0 <= number <= 1 else None


def text(value: object) -> str:
    """Anything as text of bounded length."""
    return str(value)[:MAX_TEXT]
