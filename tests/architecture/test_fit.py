"""Width fitting: as wide as the budgets allow, and a refusal where nothing or everything fits."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsonas_hw.architecture.architecture import (
    Architecture,
    complete_architecture,
    identity_architecture,
)
from dsonas_hw.architecture.costs import TargetCosts
from dsonas_hw.architecture.fit import (
    LOOK_AHEAD,
    budget_ratio,
    check_feasible,
    choose_width,
    find_loose,
    fit_width,
)
from dsonas_hw.architecture.sample import random_architecture
from dsonas_hw.budget import Budget, Metric, parse_budgets
from dsonas_hw.cost.model import Prediction
from dsonas_hw.errors import BudgetError
from dsonas_hw.kernel.spec import Kernel
from dsonas_hw.space.space import SearchSpace
from dsonas_hw.table.rows import Source
from dsonas_hw.target import Target

SPACE = SearchSpace(levels=2, stages=(1, 1), channels=8, input_shape=(3, 8, 8), share=False)
DEEP = SearchSpace(levels=4, stages=(2,), channels=8, input_shape=(3, 8, 8), share=False)
"""Of which little is stem and head."""
TARGET = TargetCosts()


class StepLatency:
    """Latency that jumps: channels run in groups of `group`, and a full group is cheaper than one more."""

    target = Target(device="toy", runtime="toy")
    fuse = True
    source: Source = "measured"
    disclaimer = ""

    def __init__(self, group: int = 16, penalty: float = 0.0) -> None:
        self.group = group
        self.penalty = penalty

    def why_not(self, metric: Metric) -> str:
        return "" if metric == "latency" else "nothing tells it"

    def kernel_cost(self, kernel: Kernel, metric: Metric = "latency") -> float:
        channels = kernel.output[1]
        uneven = self.penalty if channels % self.group else 0.0
        return (-(-channels // self.group) + uneven) * 1e-3

    def predict(self, kernels: Sequence[Kernel], metric: Metric = "latency") -> Prediction:
        total = sum(map(self.kernel_cost, kernels))
        return Prediction(value=total, low=total, high=total, source=self.source)


def brute_force(architecture: Architecture, budgets: Sequence[Budget], target: TargetCosts) -> int | None:
    widths = [
        width
        for width in architecture.space.widths()
        if budget_ratio(architecture.with_width(width), budgets, target) <= 1.0
    ]
    return max(widths, default=None)


@given(
    seed=st.integers(0, 30),
    limits=st.fixed_dictionaries(
        {},
        optional={
            "mac": st.floats(1e3, 1e6),
            "flops": st.floats(1e4, 1e7),
            "params": st.floats(1e2, 1e5),
            "memory": st.floats(1e3, 1e5),
            "latency": st.floats(1e-2, 1.0),
        },
    ),
)
@settings(max_examples=60, deadline=None)
def test_the_widest_width_that_holds(seed: int, limits: dict[str, float]) -> None:
    budgets = [Budget(name=name, limit=limit) for name, limit in limits.items()]
    architecture, target = random_architecture(SPACE, random.Random(seed)), TargetCosts(StepLatency())
    fit = fit_width(architecture, budgets, target)
    widest = brute_force(architecture, budgets, target)
    if fit is None:
        assert widest is None
        return
    assert fit.architecture == architecture.with_width(fit.architecture.width)
    assert fit.architecture.width == widest
    assert fit.ratio == budget_ratio(fit.architecture, budgets, target) <= 1.0


@pytest.mark.parametrize("limit", [0.03, 0.05, 0.08, 0.12, 0.2])
def test_where_more_channels_are_faster_they_are_taken(limit: float) -> None:
    # In groups of 16, 32 channels are faster than 20: real devices do this.
    target = TargetCosts(StepLatency(penalty=3.0))
    budgets = [Budget(name="latency", limit=limit)]
    for seed in range(5):
        architecture = random_architecture(SPACE, random.Random(seed))
        widths = list(SPACE.widths())
        held = [budget_ratio(architecture.with_width(w), budgets, target) <= 1.0 for w in widths]
        fit = fit_width(architecture, budgets, target)
        if fit is None:
            assert not any(held[:LOOK_AHEAD])
            continue
        index = widths.index(fit.architecture.width)
        assert held[index]
        assert not any(held[index + 1 : index + 1 + LOOK_AHEAD])


def test_a_faster_wide_network_is_found_behind_slower_narrow_ones() -> None:
    target = TargetCosts(StepLatency(penalty=50.0))
    architecture = complete_architecture(SPACE)
    at_16 = target.cost(architecture.with_width(16), "latency_ms")
    at_12 = target.cost(architecture.with_width(12), "latency_ms")
    assert at_16 is not None
    assert at_12 is not None
    assert at_12 > at_16
    fit = fit_width(architecture, [Budget(name="latency", limit=at_16)], target)
    assert fit is not None
    assert fit.architecture.width == 16


def test_the_fit_uses_the_limit_exactly() -> None:
    architecture = random_architecture(SPACE, random.Random(1))
    for width in (4, 12, 32):
        limit = TARGET.cost(architecture.with_width(width), "mac")
        assert limit is not None
        exact = fit_width(architecture, [Budget(name="mac", limit=limit)], TARGET)
        assert exact is not None
        assert exact.architecture.width == width
        assert exact.ratio == 1.0
        tighter = fit_width(architecture, [Budget(name="mac", limit=limit - 1)], TARGET)
        assert (tighter.architecture.width if tighter else 0) == width - 4


def test_no_budget_fits_the_widest() -> None:
    fit = fit_width(complete_architecture(SPACE), [], TARGET)
    assert fit is not None
    assert fit.architecture.width == 32
    assert fit.ratio == 0.0


# -- feasibility ----------------------------------------------------------------------------------------


def limits_of(quantity: str) -> tuple[float, float]:
    low = TARGET.cost(identity_architecture(SPACE, width=4), quantity)
    high = TARGET.cost(complete_architecture(SPACE, width=32), quantity)
    assert low is not None
    assert high is not None
    return low, high


@pytest.mark.parametrize("name", ["mac", "flops", "params"])
def test_budgets_out_of_reach_are_refused_with_the_range(name: str) -> None:
    low, high = limits_of(name)
    check_feasible(SPACE, [Budget(name=name, limit=low), Budget(name=name, limit=high)], TARGET)
    feasible = r"of this space; feasible: \S+ to \S+"
    with pytest.raises(BudgetError, match=rf"budget {name}=\S+ is below the smallest network {feasible}"):
        check_feasible(SPACE, [Budget(name=name, limit=low - 1)], TARGET)
    assert find_loose(SPACE, [Budget(name=name, limit=high)], TARGET) == []
    (loose,) = find_loose(SPACE, [Budget(name=name, limit=2 * high)], TARGET)
    assert "is above the largest network of this space" in loose
    wider = int(loose.partition("space.max_width=")[2].split()[0])
    assert find_loose(replace(SPACE, max_width=wider), [Budget(name=name, limit=2 * high)], TARGET) == []


@pytest.mark.parametrize("budget", ["mac=1", "flops=1", "params=1", "memory=1B", "latency=1ns"])
def test_the_range_that_is_shown_is_feasible(budget: str) -> None:
    target, name = TargetCosts(StepLatency()), budget.split("=")[0]
    with pytest.raises(BudgetError) as refusal:
        check_feasible(SPACE, parse_budgets([budget]), target)
    low, high = str(refusal.value).rsplit("feasible: ", 1)[1].split(" to ")
    check_feasible(SPACE, parse_budgets([f"{name}={low}"]), target)
    check_feasible(SPACE, parse_budgets([f"{name}={high}"]), target)


def test_one_infeasible_budget_of_several_is_refused() -> None:
    with pytest.raises(BudgetError, match="params"):
        check_feasible(SPACE, parse_budgets(["mac=100k", "params=1"]), TARGET)


@pytest.mark.parametrize("text", ["latency=5ms", "energy=20mJ"])
def test_a_budget_that_nothing_predicts_is_refused(text: str) -> None:
    with pytest.raises(BudgetError, match=r"cannot be steered by: nothing here predicts"):
        check_feasible(SPACE, parse_budgets([text]), TARGET)
    with pytest.raises(BudgetError, match="nothing here predicts"):
        budget_ratio(complete_architecture(SPACE), parse_budgets([text]), TARGET)


# -- the width to steer for -----------------------------------------------------------------------------


def test_the_tightest_budget_counts() -> None:
    architecture = complete_architecture(SPACE)
    mac, flops = (TARGET.cost(architecture, name) for name in ("mac", "flops"))
    assert mac is not None
    assert flops is not None
    budgets = [Budget(name="mac", limit=2 * mac), Budget(name="flops", limit=flops / 3)]
    assert budget_ratio(architecture, budgets, TARGET) == pytest.approx(3.0)
    assert budget_ratio(architecture, [], TARGET) == 0.0


def over_budget_by_width(space: SearchSpace, budgets: list[Budget], target: TargetCosts) -> dict[int, float]:
    return {w: budget_ratio(complete_architecture(space, width=w), budgets, target) for w in space.widths()}


def test_without_a_budget_the_width_is_that_of_the_search() -> None:
    assert choose_width(DEEP, [], TARGET) == DEEP.channels


@pytest.mark.parametrize("ratio", [0.3, 0.8, 1.2, 4.9, 8.0, 14.0])
def test_the_complete_network_costs_eight_times_the_budget(ratio: float) -> None:
    mac = TARGET.cost(complete_architecture(DEEP), "mac")
    assert mac is not None
    budgets = [Budget(name="mac", limit=mac / ratio)]
    ratios = over_budget_by_width(DEEP, budgets, TARGET)
    width = choose_width(DEEP, budgets, TARGET)
    assert ratios[width] > 1.0
    assert all(abs(math.log(ratios[width] / 8)) <= abs(math.log(ratio / 8)) for ratio in ratios.values())


def test_in_a_space_of_few_edges_more_of_them_are_kept() -> None:
    # 2 levels: 4·(1 + 5) + 8 = 32 edges, shared: not 8 times the budget, but 2 (16 edges would be 2.0).
    space = SearchSpace(levels=2, stages=(2,), channels=8, input_shape=(3, 8, 8))
    mac = TARGET.cost(complete_architecture(space), "mac")
    assert mac is not None
    budgets = [Budget(name="mac", limit=mac)]
    ratios = over_budget_by_width(space, budgets, TARGET)
    nearest = min(ratios.values(), key=lambda ratio: abs(math.log(ratio / 2)))
    assert ratios[choose_width(space, budgets, TARGET)] == nearest


def test_a_width_whose_budget_what_is_never_pruned_would_use_up_is_left_out() -> None:
    # Hardly anything of these networks can be pruned: where the complete one costs twice the budget, stem,
    # reductions and head alone miss it.
    space = SearchSpace(levels=1, operations=("max3",), stages=(1, 1, 1), channels=16, input_shape=(3, 8, 8))
    fixed = TARGET.cost(identity_architecture(space, width=16), "mac")
    assert fixed is not None
    budgets = [Budget(name="mac", limit=fixed / 0.6)]
    ratios = over_budget_by_width(space, budgets, TARGET)
    width = choose_width(space, budgets, TARGET)
    assert width < min(ratios, key=lambda w: abs(math.log(ratios[w] / 2)))
    assert budget_ratio(identity_architecture(space, width=width), budgets, TARGET) <= 0.7


@pytest.mark.parametrize("limit", [0.03, 0.05, 0.08, 0.12])
def test_no_width_is_steered_for_where_a_wider_one_is_faster(limit: float) -> None:
    # In groups of 16, 32 channels are faster than 20: a search for 20 would prune what 32 had room for.
    target = TargetCosts(StepLatency(penalty=3.0))
    budgets = [Budget(name="latency", limit=limit)]
    width = choose_width(DEEP, budgets, target)
    ratios = over_budget_by_width(DEEP, budgets, target)
    assert all(ratios[wider] / wider > 0.9 * ratios[width] / width for wider in ratios if wider > width)
