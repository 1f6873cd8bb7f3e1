"""The path on disk, and serving budgets from it."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from dsonas_hw.architecture.architecture import Architecture, complete_architecture, identity_architecture
from dsonas_hw.architecture.costs import TargetCosts
from dsonas_hw.architecture.fit import budget_ratio, fit_width
from dsonas_hw.architecture.sample import random_architecture
from dsonas_hw.budget import Budget, parse_budgets
from dsonas_hw.config import build_config, load_preset
from dsonas_hw.errors import BudgetError, RunError, UserError
from dsonas_hw.run_directory import RunDirectory
from dsonas_hw.search.path import (
    PathPoint,
    derive_architecture,
    load_path,
    path_point_from_json,
    serving_points,
)
from dsonas_hw.space.space import SearchSpace

SPACE = SearchSpace(levels=2, stages=(1, 1), channels=16, input_shape=(3, 8, 8), share=False)
SPACE_JSON = complete_architecture(SPACE).to_json()["space"]
TARGET = TargetCosts()


def point(architecture: Architecture, step: int = 0, accuracy: float | None = None) -> PathPoint:
    return PathPoint(
        step=step, epoch=step // 10, gamma=0.01 * step, architecture=architecture,
        costs=TARGET.costs(architecture), accuracy=accuracy,
    )  # fmt: skip


def falling_path() -> list[PathPoint]:
    """From the complete network down, as a search passes them."""
    drawn = [complete_architecture(SPACE)]
    drawn += [random_architecture(SPACE, random.Random(seed)) for seed in range(20)]
    drawn.sort(key=lambda a: -TARGET.costs(a).mac)
    return [point(a, step, 0.5 + 0.01 * step if step % 2 else None) for step, a in enumerate(drawn)]


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    run = RunDirectory(tmp_path / "run")
    run.create(build_config(load_preset("digits")))
    return run


def test_points_come_back_from_the_log(run: RunDirectory) -> None:
    points = falling_path()
    for one in points:
        run.log("path.jsonl", one.to_json())
    assert load_path(run, SPACE_JSON) == points


def test_a_line_holds_no_space(run: RunDirectory) -> None:
    assert set(falling_path()[0].to_json()) == {
        "step", "epoch", "gamma", "width", "accuracy", "costs", "blocks",
    }  # fmt: skip


def test_without_a_search_there_is_no_path(run: RunDirectory) -> None:
    with pytest.raises(RunError, match=r"holds no search yet; run: dsonas-hw search"):
        load_path(run, SPACE_JSON)


@pytest.mark.parametrize(
    "change",
    [
        {"step": "x"},
        {"gamma": None},
        {"accuracy": "good"},
        {"costs": {}},
        {"costs": None},
        {"costs": {"flops": 1}},
        {"blocks": [{}]},
        {"blocks": [{"1.sep9": ["input"]}] * 2},
        {"width": -1},
        {"width": 10**9},
    ],
)
def test_damaged_lines_are_named(run: RunDirectory, change: dict[str, Any]) -> None:
    good = falling_path()[3].to_json()
    with open(run.log_path("path.jsonl"), "w") as file:
        file.write(json.dumps(good) + "\n" + json.dumps({**good, **change}) + "\n")
    with pytest.raises(UserError, match=r"path\.jsonl, line 2 is not"):
        load_path(run, SPACE_JSON)


def test_a_missing_field_is_named() -> None:
    row = falling_path()[0].to_json()
    del row["epoch"]
    with pytest.raises(RunError, match="line 7 is not a line of a search path: 'epoch'"):
        path_point_from_json(row, SPACE_JSON, origin="line 7")


# -- serving budgets ------------------------------------------------------------------------------------


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


def test_a_point_of_the_path_serves_its_own_cost_unchanged() -> None:
    points = falling_path()
    for wanted in points[1::4]:
        derived = derive_architecture(points, [Budget(name="mac", limit=wanted.costs.mac)], TARGET)
        assert derived.architecture == wanted.architecture
        assert derived.ratio == derived.ratio_before_fit == 1.0


def test_of_equally_near_points_the_more_accurate_is_taken() -> None:
    architecture = random_architecture(SPACE, random.Random(1))
    twins = [point(architecture, step, accuracy) for step, accuracy in enumerate([None, 0.4, 0.9, 0.2])]
    limit = Budget(name="mac", limit=twins[0].costs.mac)
    assert derive_architecture(twins, [limit], TARGET).point.step == 2


def used(p: PathPoint, limit: float) -> float:
    """Share of a mac limit that a point uses once its width is fitted."""
    fit = fit_width(p.architecture, [Budget(name="mac", limit=limit)], TARGET)
    return fit.ratio if fit else 0.0


def test_a_point_that_leaves_much_unused_is_passed_over_for_one_a_little_farther_off() -> None:
    points = [point(random_architecture(SPACE, random.Random(seed), width=40)) for seed in range(60)]

    # `near` is 1 % above the limit and leaves over 6 % unused at the next narrower width; `farther` is 3 to
    # 9 % above it and leaves less than 5 %.
    limit, near, farther = next(
        (p.costs.mac / 1.01, p, q)
        for p in points
        if used(p, p.costs.mac / 1.01) < 0.94
        for q in points
        if 1.03 < q.costs.mac / (p.costs.mac / 1.01) < 1.09 and used(q, p.costs.mac / 1.01) >= 0.95
    )
    derived = derive_architecture([near, farther], [Budget(name="mac", limit=limit)], TARGET)
    assert derived.point is farther


def test_a_network_of_a_quite_different_width_is_not_taken_to_fill_the_budget() -> None:
    points = [point(random_architecture(SPACE, random.Random(seed), width=16)) for seed in range(60)]

    # `near` is 1 % above the limit and leaves over 8 % unused; `dense` takes twice it and fills it, narrow.
    limit, near, dense = next(
        (p.costs.mac / 1.01, p, q)
        for p in points
        if 0.5 < used(p, p.costs.mac / 1.01) < 0.92
        for q in points
        if q.costs.mac > 2 * p.costs.mac and used(q, p.costs.mac / 1.01) >= 0.95
    )
    derived = derive_architecture([dense, near], [Budget(name="mac", limit=limit)], TARGET)
    assert derived.point is near


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
