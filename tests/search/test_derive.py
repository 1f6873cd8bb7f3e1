"""Serving budgets from a path by rule."""

from __future__ import annotations

import random

import pytest
from paths import SPACE, TARGET, falling_path, point

from dsonas_hw.architecture.architecture import complete_architecture, identity_architecture
from dsonas_hw.architecture.fit import budget_ratio
from dsonas_hw.architecture.sample import random_architecture
from dsonas_hw.budget import Budget, parse_budgets
from dsonas_hw.errors import BudgetError
from dsonas_hw.search.candidates import dominates, list_candidates
from dsonas_hw.search.derive import derive_architecture, serving_points


def budgets_over_the_path() -> list[list[Budget]]:
    macs = [p.costs.mac for p in falling_path()]
    single = [[Budget(name="mac", limit=limit)] for limit in (macs[1], macs[8], macs[-1])]
    both = [Budget(name="mac", limit=macs[8]), Budget(name="params", limit=falling_path()[12].costs.params)]
    return [*single, both]


@pytest.mark.parametrize("budgets", budgets_over_the_path())
def test_all_budgets_hold_and_are_used(budgets: list[Budget]) -> None:
    derived = derive_architecture(falling_path(), budgets, TARGET)
    assert derived.ratio == budget_ratio(derived.architecture, budgets, TARGET)
    assert 0.9 <= derived.ratio <= 1.0
    assert derived.ratio_before_fit == budget_ratio(derived.point.architecture, budgets, TARGET)
    assert derived.architecture.blocks == derived.point.architecture.blocks
    assert derived.costs == TARGET.costs(derived.architecture)
    assert derived.architecture.width in SPACE.widths()


def test_no_narrower_width_is_taken_where_a_point_fills_the_budget_at_the_searched_one() -> None:
    points = falling_path()
    for wanted in points[1::4]:
        derived = derive_architecture(points, [Budget(name="mac", limit=wanted.costs.mac)], TARGET)
        assert derived.architecture.width >= SPACE.channels


def test_of_equally_near_points_the_more_accurate_is_taken() -> None:
    architecture = random_architecture(SPACE, random.Random(1))
    twins = [point(architecture, step, accuracy) for step, accuracy in enumerate([None, 0.4, 0.9, 0.2])]
    limit = Budget(name="mac", limit=twins[0].costs.mac)
    assert derive_architecture(twins, [limit], TARGET).point.step == 2


@pytest.mark.parametrize("seed", range(5))
def test_no_budget_is_left_unused_where_a_fuller_point_exists_and_nothing_dominates(seed: int) -> None:
    rng = random.Random(seed)
    points = [point(random_architecture(SPACE, rng, width=16), n, rng.random()) for n in range(60)]
    for limit in (rng.uniform(0.3, 2.0) * points[0].costs.mac for _ in range(8)):
        budgets = [Budget(name="mac", limit=limit)]
        candidates = list_candidates(points, budgets, TARGET, least=1.0)
        derived = derive_architecture(points, budgets, TARGET)
        (chosen,) = (c for c in candidates if c.architecture == derived.architecture)
        assert not any(dominates(other, chosen) for other in candidates)
        fullest = max(c.used() for c in candidates)
        if derived.ratio < 0.95 <= fullest:
            assert any(dominates(chosen, c) for c in candidates if c.used() >= 0.95)
        if fullest < 0.95:
            assert derived.ratio == fullest or any(
                dominates(chosen, c) for c in candidates if c.used() == fullest
            )


def test_shrinking_leaves_room() -> None:
    points, budgets = falling_path(), [Budget(name="mac", limit=falling_path()[5].costs.mac)]
    for shrink in (1.0, 0.8, 0.5):
        derived = derive_architecture(points, budgets, TARGET, shrink=shrink)
        assert budget_ratio(derived.architecture, budgets, TARGET) <= shrink


def test_without_budgets_the_end_of_the_path_is_taken() -> None:
    points = falling_path()
    derived = derive_architecture(points, [], TARGET)
    assert derived.architecture == points[-1].architecture
    assert derived.costs == points[-1].costs


def test_with_a_constant_gamma_the_last_architecture_serves_every_budget() -> None:
    points = falling_path()
    assert serving_points(points, gamma_control=True) == points
    (last,) = serving_points([*points, point(identity_architecture(SPACE), 99)], gamma_control=False)
    assert last == points[-1]
    limit = Budget(name="mac", limit=2 * last.costs.mac)
    derived = derive_architecture([last], [limit], TARGET)
    assert derived.architecture.blocks == last.architecture.blocks
    assert derived.architecture.width > last.architecture.width
    assert derived.ratio <= 1.0


def test_a_budget_that_the_path_cannot_reach_is_refused() -> None:
    complete = [point(complete_architecture(SPACE))]
    narrowest = TARGET.cost(complete_architecture(SPACE, width=4), "mac")
    assert narrowest is not None
    with pytest.raises(
        BudgetError, match=r"no architecture of this path meets mac=\S+, even 4 channels wide"
    ):
        derive_architecture(complete, [Budget(name="mac", limit=narrowest - 1)], TARGET)
    exact = derive_architecture(complete, [Budget(name="mac", limit=narrowest)], TARGET)
    assert exact.architecture.width == 4


def test_collapsed_points_serve_nothing() -> None:
    points = [point(complete_architecture(SPACE)), point(identity_architecture(SPACE), 1)]
    assert derive_architecture(points, [], TARGET).point.step == 0
    with pytest.raises(BudgetError, match="collapsed"):
        derive_architecture(points[1:], parse_budgets(["mac=100k"]), TARGET)


def test_a_path_that_only_a_narrow_network_of_serves_is_thinned() -> None:
    points = [point(random_architecture(SPACE, random.Random(seed), width=16), seed, 0.5) for seed in (1, 2)]
    limit = Budget(name="flops", limit=min(p.costs.flops for p in points) / 4)
    narrow, *_ = sorted(list_candidates(points, [limit], TARGET), key=lambda c: -c.architecture.width)
    assert narrow.architecture.width < 16 / 3
    derived = derive_architecture(points, [limit], TARGET)
    assert derived.architecture.width > narrow.architecture.width
    assert derived.ratio <= 1
    assert derived.architecture.num_edges < min(p.architecture.num_edges for p in points)
    alone = derive_architecture(points[:1], [limit], TARGET)
    assert alone.architecture.blocks == points[0].architecture.blocks, (
        "of one point the width alone is fitted"
    )
