"""The slate: candidates to be trained briefly, of as many widths as there are, each filling the budgets.

    candidates by width ─▶ best shared accuracy that should fill ─▶ measure ─▶ fills? ─ yes ─▶ on the slate
                                     ▲                                 └─ no: correct the predictions ─┐
                                     └───────────────────────────────────────────────────────────────┘

`measure` tells which fraction of the timed limits a network really needs. Predictions of networks of one
width are off alike, so one measurement tells what to take instead. No network is measured twice.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dsonas_hw.architecture.architecture import Architecture
from dsonas_hw.architecture.costs import TargetCosts
from dsonas_hw.budget import Budget
from dsonas_hw.errors import BudgetError
from dsonas_hw.search.candidates import WELL_FILLED, Candidate, list_candidates, undominated
from dsonas_hw.search.derive import no_candidate
from dsonas_hw.search.path import PathPoint

LOWEST, HIGHEST = 0.6, 1.25
"""Predicted cost / limit of what may turn out to fill the budgets when it is measured."""
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
    If there are more widths than places, those between the narrowest and the widest are left out evenly; if
    there are fewer, a width has several places.

    Raises:
        BudgetError: no point of the path meets the budgets.
    """
    pool = list_candidates(points, budgets, target, least=LOWEST, most=HIGHEST)
    if not any(c.used() <= 1.0 for c in pool):
        raise BudgetError(no_candidate(points, budgets, target))
    widths: dict[int, list[Candidate]] = {}
    for candidate in pool:
        widths.setdefault(candidate.architecture.width, []).append(candidate)
    measure_once = functools.cache(measure)
    slate: list[Entry] = []
    correction = 1.0
    for width in _places(sorted(widths, reverse=True), number, pool):
        taken = {entry.candidate.architecture for entry in slate}
        choices = [c for c in widths[width] if c.architecture not in taken]
        entry, correction = _fill(choices, measure_once, correction)
        if entry is not None:
            slate.append(entry)
    if not slate:
        raise BudgetError(
            "no candidate of this path holds the budget when it is measured; allow more, or search again "
            "under a tighter budget"
        )
    return slate


def _places(widths: Sequence[int], number: int, pool: Sequence[Candidate]) -> list[int]:
    """The width of each place on the slate: those at which some candidate should fill the budgets, if any."""
    filling = {c.architecture.width for c in pool if WELL_FILLED <= c.used() <= 1.0}
    widths = [w for w in widths if w in filling] or list(widths[:1])
    if len(widths) > number:
        step = (len(widths) - 1) / max(1, number - 1)
        return [widths[round(place * step)] for place in range(number)]
    places = [widths[place % len(widths)] for place in range(number)]
    return sorted(places, reverse=True)


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
        timed = measure(chosen.architecture) if chosen.timed else None
        if timed is None:
            return Entry(candidate=chosen, used=chosen.used(), is_measured=False), correction
        entry = Entry(candidate=chosen, used=max(chosen.counted, timed), is_measured=True)
        tried.append(entry)
        correction = timed / chosen.timed
        if WELL_FILLED <= entry.used <= 1.0 or (entry.used <= 1.0 and not full):
            break
    held = [entry for entry in tried if entry.used <= 1.0]
    return (max(held, key=lambda e: e.used) if held else None), correction
