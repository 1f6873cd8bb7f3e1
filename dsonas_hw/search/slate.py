"""The slate: candidates to be trained briefly, of as many widths as there are, each filling the budgets.

They are points of the path, and points of it without some operations (`search.thinning`).

    candidates by width ─▶ best shared accuracy that should fill ─▶ measure ─▶ fills? ─ yes ─▶ on the slate
                                     ▲                                 └─ no: correct the predictions ─┐
                                     └───────────────────────────────────────────────────────────────┘

`measure` tells which fraction of the timed limits a network really needs. Predictions of networks of one
width are off alike, so one measurement tells what to take instead. No network is measured twice.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from dsonas_hw.architecture.architecture import Architecture
from dsonas_hw.architecture.costs import TargetCosts
from dsonas_hw.budget import Budget
from dsonas_hw.errors import BudgetError
from dsonas_hw.search.candidates import NARROWEST, WELL_FILLED, Candidate, list_candidates, undominated
from dsonas_hw.search.derive import no_candidate
from dsonas_hw.search.path import PathPoint
from dsonas_hw.search.thinning import thin

LOWEST, HIGHEST = 0.5, 1.25
"""Predicted cost / limit of what may turn out to fill the budgets when it is measured."""
FAIRLY_FILLED = 0.7
"""A width at which no network fills the budgets has a place where its fullest uses so much: a faster network
may be the better one."""
NOT_TIGHT = 0.7
"""A network that should use at most this fraction of the timed limits is not measured before it is trained:
another budget is the tight one."""
NUM_TRIALS = 3
"""Networks that are measured for one place on the slate, at most."""

MeasureUse = Callable[[Architecture], float | None]
"""Network → the fraction of the timed limits that it needs; None: it cannot be measured here."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A candidate on the slate."""

    candidate: Candidate
    used: float
    """Of the tightest budget; at most 1."""
    is_measured: bool

    @property
    def needs_verdict(self) -> bool:
        """Whether it is not far below the timed limits, if there are any."""
        return self.is_measured or not 0.0 < self.candidate.timed <= NOT_TIGHT


def choose_slate(
    points: Sequence[PathPoint],
    budgets: Sequence[Budget],
    target: TargetCosts,
    *,
    number: int,
    measure: MeasureUse = lambda architecture: None,
) -> list[Entry]:
    """Return at most `number` candidates that hold the budgets, widest first.

    Every one uses 95 % of them, unless none of its width does, or one that leaves more unused dominates it.
    Widths that fill the budgets come first, none below a third of the widest; if they are more than the
    places, some between are left out evenly. If there are fewer widths than places, a width has several, of
    other operations where it can.

    Raises:
        BudgetError: no point of the path meets the budgets.
    """
    pool = [
        candidate
        for some in (points, thin(points))
        for candidate in list_candidates(some, budgets, target, least=LOWEST, most=HIGHEST)
    ]
    if not any(c.used() <= 1.0 for c in pool):
        raise BudgetError(no_candidate(points, budgets, target))
    measure_once = functools.cache(measure)
    correction = _first_correction(pool, measure_once)
    widths: dict[int, list[Candidate]] = {}
    for candidate in pool:
        widths.setdefault(candidate.architecture.width, []).append(candidate)
    fills = {
        width: max((used for c in of_width if (used := c.used(correction)) <= 1.0), default=0.0)
        for width, of_width in widths.items()
    }
    slate: list[Entry] = []
    for width in _places(fills, number):
        taken = {entry.candidate.architecture for entry in slate}
        known = {_operations(architecture) for architecture in taken}
        left = [c for c in widths[width] if c.architecture not in taken]
        others = [c for c in left if _operations(c.architecture) not in known]
        choices = others if any(WELL_FILLED <= c.used(correction) <= 1.0 for c in others) else left
        entry, correction = _fill(choices, measure_once, correction)
        if entry is not None:
            slate.append(entry)
    if not slate:
        raise BudgetError(
            "no candidate of this path holds the budget when it is measured; allow more, or search again "
            "under a tighter budget"
        )
    return slate


def _operations(architecture: Architecture) -> tuple[int, tuple[tuple[int, ...], ...]]:
    """Width and operations, whatever the edges between them."""
    return architecture.width, tuple(block.nodes for block in architecture.blocks)


def _first_correction(pool: Sequence[Candidate], measure: MeasureUse) -> float:
    """By how much predictions are off, told by the candidate that should fill the budgets best."""
    fullest = max((c for c in pool if c.used() <= 1.0), key=Candidate.used)
    timed = measure(fullest.architecture) if fullest.timed > NOT_TIGHT else None
    return 1.0 if timed is None else timed / fullest.timed


def _places(fills: Mapping[int, float], number: int) -> list[int]:
    """The width of each place on the slate.

    fills: width → what its fullest network uses of the budgets.
    """
    usable = [width for width, fill in fills.items() if fill >= FAIRLY_FILLED]
    usable = [width for width in usable if width >= NARROWEST * max(usable)]
    full = sorted(width for width in usable if fills[width] >= WELL_FILLED)
    if len(full) > number:
        step = (len(full) - 1) / max(1, number - 1)
        full = [full[round(place * step)] for place in range(number)]
    rest = sorted(set(usable) - set(full), key=lambda width: -fills[width])
    widths = (full + rest)[:number] or [max(fills, key=lambda width: fills[width])]
    return sorted((widths[place % len(widths)] for place in range(number)), reverse=True)


def _fill(choices: list[Candidate], measure: MeasureUse, correction: float) -> tuple[Entry | None, float]:
    """The candidate of one width that fills the budgets best, and by how much its predictions were off."""
    tried: list[Entry] = []
    for _ in range(NUM_TRIALS):
        left = [c for c in choices if c.architecture not in {e.candidate.architecture for e in tried}]
        holding = [c for c in left if c.used(correction) <= 1.0]
        if not holding:
            break
        full = [c for c in holding if c.used(correction) >= WELL_FILLED]
        chosen = max(full, key=lambda c: c.rank) if full else max(holding, key=lambda c: c.used(correction))
        chosen = undominated(chosen, holding, correction)
        if tried and not full and any(e.used <= 1.0 for e in tried):
            break  # nothing fuller is left
        timed = measure(chosen.architecture) if chosen.timed * correction > NOT_TIGHT else None
        if timed is None:
            return Entry(candidate=chosen, used=chosen.used(correction), is_measured=False), correction
        entry = Entry(candidate=chosen, used=max(chosen.counted, timed), is_measured=True)
        tried.append(entry)
        correction = timed / chosen.timed
        if WELL_FILLED <= entry.used <= 1.0 or (entry.used <= 1.0 and not full):
            break
    held = [entry for entry in tried if entry.used <= 1.0]
    return (max(held, key=lambda e: e.used) if held else None), correction
