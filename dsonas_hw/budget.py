"""Budgets: what the network may cost, as users write it.

`mac=12M`, `flops=600M`, `params=3M`, `latency=5ms`, `energy=20mJ`, `memory=8MB`; several at once, and all
must hold. Where several budgets are served in turn, a limit without a name belongs to the name before it:
`latency=3ms,5ms` are two budgets (`budget_levels`).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Literal, get_args

from dsonas_hw.errors import BudgetError, closest, command_line

Metric = Literal["latency", "energy"]
"""A cost that only a device tells: it is measured, or predicted from what was. All others are counted."""
METRICS: tuple[Metric, ...] = get_args(Metric)
Verdict = Literal["holds", "missed", "undecided"]
"""Of a budget: the cost lies below the limit, above it, or the limit lies within the cost's interval."""
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)

_COUNTS = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_BYTES = {"B": 1.0, "kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12,
          "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Limitable:
    """A cost that a budget can limit."""

    quantity: str
    """The field of `Costs` (and of every stored file) that holds it."""
    label: str
    """What people read: others call multiply-adds MACs, which `mac` is not."""
    axis: str
    """Its unit on a chart."""
    example: str
    """Of a limit."""
    units: Mapping[str, float] = field(default_factory=lambda: _COUNTS)
    """Unit in a budget → how many of the stored one it is."""
    adds_up: bool = True
    """Whether a network's is what its kernels add up to, so that γ can go by it."""


LIMITABLE: dict[str, Limitable] = {
    "mac": Limitable(quantity="mac", label="memory access (mac)", axis="elements", example="12M"),
    "flops": Limitable(quantity="flops", label="multiply-adds (flops)", axis="count", example="600M"),
    "params": Limitable(quantity="params", label="weights (params)", axis="count", example="3M"),
    "memory": Limitable(
        quantity="memory_bytes", label="peak activations (memory)", axis="bytes", units=_BYTES, example="8MB",
        adds_up=False,
    ),
    "latency": Limitable(
        quantity="latency_ms", label="latency", axis="ms", example="5ms",
        units={"ns": 1e-6, "us": 1e-3, "µs": 1e-3, "ms": 1.0, "s": 1e3},
    ),
    "energy": Limitable(
        quantity="energy_mj", label="energy", axis="mJ", example="20mJ",
        units={"uJ": 1e-3, "µJ": 1e-3, "mJ": 1.0, "J": 1e3},
    ),
}  # fmt: skip
"""Budget name → what it limits. What kernels add up to is a field of `kernel.costs.CountedCosts`."""
QUANTITIES = {name: cost.quantity for name, cost in LIMITABLE.items()}
COST_LABELS = {name: cost.label for name, cost in LIMITABLE.items()}

_MICRO_SIGN, _GREEK_MU = "\u00b5", "\u03bc"  # keyboards have one or the other
_NUMBER = re.compile(r"(?P<value>[0-9]+(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?|\.[0-9]+)\s*(?P<unit>\D*)")


@dataclass(frozen=True, kw_only=True)
class Budget:
    """An upper limit of one cost, in the unit of `QUANTITIES` (ms, mJ, bytes, or a count)."""

    name: str
    limit: float

    @property
    def quantity(self) -> str:
        """The cost that is limited, e.g. `latency_ms`."""
        return QUANTITIES[self.name]

    @property
    def metric(self) -> Metric | None:
        """The same if only a device tells it; None: it is counted."""
        return next((metric for metric in METRICS if metric == self.name), None)

    @property
    def exact(self) -> str:
        """The budget as `parse_budget` reads it, to the last digit of its limit."""
        unit = next(unit for unit, factor in LIMITABLE[self.name].units.items() if factor == 1.0)
        return f"{self.name}={self.limit!r}{unit}"

    def __str__(self) -> str:
        return f"{self.name}={format_quantity(self.name, self.limit)}"


def parse_budget(text: str) -> Budget:
    """Read one budget, e.g. `latency=5ms`.

    Raises:
        BudgetError: an unknown name, a missing unit, or a limit that is not a positive number.
    """
    name, equals, raw = (part.strip() for part in text.replace(_GREEK_MU, _MICRO_SIGN).partition("="))
    if not equals or not raw:
        raise BudgetError(f"budget {text!r} has no limit; write it as mac=12M, flops=600M or latency=5ms")
    if name.lower() == "macs" or name == "MAC":
        raise BudgetError(
            f"budget {name!r} is ambiguous: here mac is the memory access cost in elements (mac={raw}) and "
            f"flops are the multiply-adds, which others call MACs (flops={raw}); write the one you mean"
        )
    if name not in QUANTITIES:
        raise BudgetError(f"unknown budget {name!r}. {closest(name, list(QUANTITIES))}")
    match = _NUMBER.fullmatch(raw)
    if match is None:
        raise BudgetError(f"budget {text!r}: {raw!r} is not a positive number with a unit")
    units, unit, example = LIMITABLE[name].units, match["unit"].strip(), LIMITABLE[name].example
    if unit not in units:
        known = ", ".join(u for u in units if u)
        if not unit:
            raise BudgetError(f"budget {text!r} has no unit; write e.g. {name}={example} (units: {known})")
        raise BudgetError(f"budget {text!r}: unknown unit {unit!r} (units: {known})")
    limit = float(match["value"]) * units[unit]
    if not isfinite(limit) or limit <= 0:
        raise BudgetError(f"budget {text!r} must be above zero and finite")
    return Budget(name=name, limit=limit)


def parse_budgets(texts: Iterable[str]) -> tuple[Budget, ...]:
    """Read repeated options, each a budget or a comma list.

    Raises:
        BudgetError: also when one quantity is limited twice, or a text is empty.
    """
    budgets: list[Budget] = []
    for text in texts:
        for part in [part for part in text.split(",") if part.strip()] or [text.strip()]:
            if budgets and "=" not in part:
                levels = ",".join([str(budgets[-1]), part.strip()])
                raise BudgetError(
                    f"{part.strip()!r} is a second limit of {budgets[-1].name}, and a search has one; a "
                    f"finished search serves several: {command_line('derive', 'RUN', '--budget', levels)}"
                )
            budgets.append(parse_budget(part))
    names = [budget.name for budget in budgets]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise BudgetError(f"budget {twice[0]!r} is given twice; keep one limit")
    return tuple(budgets)


def budget_levels(texts: Iterable[str]) -> tuple[str, ...]:
    """`latency=3ms,5ms,8ms` → three budgets; limits of several quantities are combined, each with each.

    Raises:
        BudgetError: a limit that cannot be read, or none at all.
    """
    limits: dict[str, list[str]] = {}
    name = ""
    for part in (part.strip() for text in texts for part in text.split(",")):
        if not part:
            continue
        before, equals, after = part.partition("=")
        name, limit = (before.strip(), after.strip()) if equals else (name, part)
        written = f"{name}={limit}" if name else part
        budget = parse_budget(written)
        text = str(budget) if parse_budget(str(budget)) == budget else written  # never another limit
        known = limits.setdefault(budget.name, [])
        if text in known:
            raise BudgetError(f"budget {budget} is given twice; keep one")
        known.append(text)
    if not limits:
        raise BudgetError("there is no budget; write e.g. --budget latency=3ms,5ms,8ms")
    return tuple(",".join(level) for level in itertools.product(*limits.values()))


def format_quantity(name: str, value: float) -> str:
    """A limit or cost with its unit, to four significant digits: `1.234M`, `5ms`, `8MB`."""
    if name == "latency":
        return f"{value:.4g}ms" if value < 1e4 else f"{value / 1e3:.4g}s"
    if name == "energy":
        return f"{value:.4g}mJ"
    suffix = "B" if name == "memory" else ""
    for factor, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor * 0.99995:
            return f"{value / factor:.4g}{letter}{suffix}"
    return f"{value:.4g}{suffix}"


def format_interval(name: str, low: float | None, high: float | None) -> str:
    """An interval of a cost, e.g. `0.128ms to 0.133ms`; None or infinity: there is no bound on that side."""
    begin = "0" if low is None else format_quantity(name, low)
    return f"{begin} to {'?' if high is None or not isfinite(high) else format_quantity(name, high)}"


def format_probability(probability: float) -> str:
    """How likely a budget is to hold, never certain: `55 %`, at least `1 %` and at most `99 %`."""
    return f"{min(max(round(100 * probability), 1), 99)} %"


def holds_with(probability: float) -> str:
    """The verdict on what was only estimated: `holds with 55 %`."""
    return f"holds with {format_probability(probability)}"


def judge_interval(low: float, high: float, limit: float) -> Verdict:
    """Hold a cost that lies between `low` and `high` against a limit; a cost that is exact has both alike."""
    if high <= limit:
        return "holds"
    return "missed" if low > limit else "undecided"
