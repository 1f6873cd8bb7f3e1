"""Candidates and the slate: every one holds, fills the budget, and nothing dominates it."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from paths import SPACE, TARGET, point

from dsonas_hw.architecture.architecture import Architecture, identity_architecture
from dsonas_hw.architecture.costs import Costs, TargetCosts
from dsonas_hw.architecture.fit import budget_ratio
from dsonas_hw.architecture.sample import random_architecture
from dsonas_hw.budget import Budget
from dsonas_hw.errors import BudgetError
from dsonas_hw.search.candidates import dominates, list_candidates, undominated
from dsonas_hw.search.path import PathPoint
from dsonas_hw.search.slate import choose_slate

MS_PER_FLOP = 1e-6


class PredictedLatency(TargetCosts):
    """Latency in proportion to the multiply-adds."""

    def cost(self, architecture: Architecture, quantity: str) -> float | None:
        if quantity == "latency_ms":
            return MS_PER_FLOP * super().costs(architecture).flops
        return super().cost(architecture, quantity)

    def costs(self, architecture: Architecture) -> Costs:
        return super().costs(architecture)


def falling(number: int = 80, seed: int = 0, width: int = 16) -> list[PathPoint]:
    rng = random.Random(seed)
    drawn = [random_architecture(SPACE, rng, width=width) for _ in range(number)]
    drawn.sort(key=lambda a: -TARGET.costs(a).mac)
    return [point(a, n, rng.random() if n % 3 else None) for n, a in enumerate(drawn)]


def middle(points: list[PathPoint], name: str = "mac") -> Budget:
    costs = TARGET.costs(points[len(points) // 2].architecture)
    return Budget(name=name, limit=float(getattr(costs, name)))


def test_candidates_hold_every_budget_and_fill_the_tightest() -> None:
    points = falling()
    budgets = [middle(points), Budget(name="params", limit=1.2 * middle(points, "params").limit)]
    candidates = list_candidates(points, budgets, TARGET)
    for candidate in candidates:
        ratio = budget_ratio(candidate.architecture, budgets, TARGET)
        assert candidate.used() == ratio <= 1.0
        wider = [w for w in SPACE.widths() if w > candidate.architecture.width]
        if ratio < 0.95 and wider:  # the widest that holds
            assert budget_ratio(candidate.architecture.with_width(wider[0]), budgets, TARGET) > 1.0
    assert {c.point.step for c in candidates} <= {p.step for p in points}


class Vectors(TargetCosts):
    """Channels are computed in eights."""

    def cost(self, architecture: Architecture, quantity: str) -> float | None:
        return super().cost(architecture.with_width(-(-architecture.width // 8) * 8), quantity)


def test_no_candidate_is_as_expensive_as_the_same_network_with_more_channels() -> None:
    points = falling()
    found = list_candidates(points, [middle(points)], Vectors(), least=0.5)
    assert found
    assert {c.architecture.width % 8 for c in found} == {0}


def test_an_unscored_point_is_ranked_by_the_last_scored_before_it() -> None:
    points = falling()
    by_step = {c.point.step: c.accuracy for c in list_candidates(points, [middle(points)], TARGET)}
    for step, accuracy in by_step.items():
        scored = [p.accuracy for p in points[: step + 1] if p.accuracy is not None]
        assert accuracy == (scored[-1] if scored else None)


def test_going_from_better_to_better_ends_where_nothing_is() -> None:
    points = falling(200)
    candidates = list_candidates(points, [middle(points)], TARGET, least=0.5)
    for candidate in candidates:
        best = undominated(candidate, candidates)
        assert not any(dominates(other, best) for other in candidates)
        assert best.used() <= candidate.used()
        assert best.architecture.width >= candidate.architecture.width


def test_the_slate_has_many_widths_that_fill_the_budget() -> None:
    points = falling(300)
    budget = middle(points)
    slate = choose_slate(points, [budget], TARGET, number=6)
    widths = [entry.candidate.architecture.width for entry in slate]
    assert widths == sorted(widths, reverse=True)
    assert len(set(widths)) == len(slate) == 6
    candidates = list_candidates(points, [budget], TARGET, least=0.6)
    for entry in slate:
        of_width = [c for c in candidates if c.architecture.width == entry.candidate.architecture.width]
        assert entry.used == budget_ratio(entry.candidate.architecture, [budget], TARGET) <= 1.0
        if entry.used < 0.95:
            assert (
                any(dominates(entry.candidate, c) for c in of_width)
                or max(c.used() for c in of_width) == entry.used
            )
        assert not any(dominates(c, entry.candidate) for c in of_width)


def test_where_there_are_few_widths_each_has_several_networks() -> None:
    points = falling(300)
    slate = choose_slate(points, [middle(points)], TARGET, number=40)
    architectures = [entry.candidate.architecture for entry in slate]
    assert len(set(architectures)) == len(architectures)
    assert len(architectures) > len({a.width for a in architectures})


@pytest.mark.parametrize("error", [0.85, 1.0, 1.08, 1.25])
def test_measured_candidates_hold_when_measured_and_fill_what_they_can(error: float) -> None:
    target, points = PredictedLatency(), falling(300)
    budgets = [Budget(name="latency", limit=MS_PER_FLOP * middle(points, "flops").limit)]
    measured: list[Architecture] = []

    def use(architecture: Architecture) -> float:
        measured.append(architecture)
        off = error * (1 + 0.01 * (architecture.width % 3))
        return off * budget_ratio(architecture, budgets, target)

    points += falling(300, seed=1, width=20)
    slate = choose_slate(points, budgets, target, number=6, measure=use)
    assert len(set(measured)) == len(measured) <= 3 * 6
    assert all(entry.is_measured and entry.used <= 1.0 for entry in slate)
    assert sum(entry.used >= 0.95 for entry in slate) >= len(slate) - 2
    assert len(slate) >= 4


def test_what_is_far_below_a_timed_limit_is_not_measured_before_it_is_trained() -> None:
    target, points = PredictedLatency(), falling(100)
    tight, loose = middle(points), MS_PER_FLOP * 2 * max(p.costs.flops for p in points)

    def use(architecture: Architecture) -> float:
        raise AssertionError("measured")

    budgets = [tight, Budget(name="latency", limit=10 * loose)]
    slate = choose_slate(points, budgets, target, number=4, measure=use)
    assert slate
    assert not any(entry.needs_verdict for entry in slate)
    assert all(entry.needs_verdict for entry in choose_slate(points, [tight], target, number=4))


def test_a_target_that_is_not_here_leaves_the_predictions() -> None:
    target, points = PredictedLatency(), falling(100)
    budgets = [Budget(name="latency", limit=MS_PER_FLOP * middle(points, "flops").limit)]
    slate = choose_slate(points, budgets, target, number=4)
    assert all(not entry.is_measured and entry.used <= 1.0 for entry in slate)


def never(architecture: Architecture) -> float | None:
    return 1.5


def unmeasured(architecture: Architecture) -> float | None:
    return None


@pytest.mark.parametrize(
    ("limit", "measure", "message"),
    [
        (0.01, unmeasured, "no architecture of this path meets latency"),
        (1.0, never, "no candidate of this path holds the budget when it is measured"),
    ],
)
def test_a_budget_that_nothing_holds_is_one_line(
    limit: float, measure: Callable[[Architecture], float | None], message: str
) -> None:
    points = falling(60)
    ms = limit * MS_PER_FLOP * middle(points, "flops").limit
    with pytest.raises(BudgetError, match=message) as caught:
        choose_slate(
            points, [Budget(name="latency", limit=ms)], PredictedLatency(), number=4, measure=measure
        )
    assert "\n" not in str(caught.value)


def test_collapsed_points_are_no_candidates() -> None:
    assert list_candidates([point(identity_architecture(SPACE))], [middle(falling())], TARGET) == []
