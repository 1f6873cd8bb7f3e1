"""The controller on simulated dynamics: it lands on the budget on any schedule, and never collapses."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from dsonas_hw.search.apg_nag import apg_nag_step
from dsonas_hw.search.controller import BudgetController


@dataclass
class ToySearch:
    """λ of independent edges, each with a cost; a noisy loss pulls every λ to a value of its own."""

    num_edges: int = 60
    start_ratio: float = 3.0
    num_steps: int = 200
    gamma: float = 1e-3
    seed: int = 0
    fixed_share: float = 0.1
    """Of the complete cost that no edge carries (stem, head)."""
    usefulness: float = 0.02
    end_ratio: float = 1.0
    ratios: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = torch.Generator().manual_seed(self.seed)
        self.cost = torch.rand(self.num_edges, generator=self.random, dtype=torch.float64) + 0.05
        self.use = torch.rand(self.num_edges, generator=self.random, dtype=torch.float64) * self.usefulness
        self.lam = torch.ones(self.num_edges, dtype=torch.float64)
        self.velocity = torch.zeros_like(self.lam)
        self.controller = BudgetController(
            start_ratio=self.ratio_of(self.lam),
            num_steps=self.num_steps,
            gamma=self.gamma,
            end_ratio=self.end_ratio,
        )

    def ratio_of(self, lam: Tensor) -> float:
        alive = float(self.cost[lam > 0].sum() / self.cost.sum())
        return self.start_ratio * (self.fixed_share + (1 - self.fixed_share) * alive)

    def step_to(self, grad: Tensor, gamma: float, keep_momentum: bool) -> tuple[Tensor, Tensor]:
        velocity = self.velocity if keep_momentum else torch.zeros_like(self.velocity)
        gammas = torch.where(self.lam > 0, gamma, max(gamma, self.controller.gamma))
        return apg_nag_step(self.lam, velocity, grad, gammas, lr=0.1, momentum=0.9)

    def run(self, start: int = 0, end: int | None = None) -> float:
        for step in range(start, self.num_steps if end is None else end):
            ratio = self.ratio_of(self.lam)
            self.ratios.append(ratio)
            noise = torch.randn(self.num_edges, generator=self.random, dtype=torch.float64)
            grad = self.use * (self.lam - 1.5) + 0.02 * noise
            if self.controller.has_ended(ratio):
                continue

            def ratio_after(gamma: float, keep_momentum: bool, grad: Tensor = grad) -> float | None:
                after, _ = self.step_to(grad, gamma, keep_momentum)
                return self.ratio_of(after) if bool((after > 0).any()) else None

            decision = self.controller.decide(step, ratio, ratio_after)
            if not decision.keep_momentum:
                self.velocity = torch.zeros_like(self.velocity)
            if decision.take:
                self.lam, self.velocity = self.step_to(grad, decision.gamma, decision.keep_momentum)
            assert bool((self.lam > 0).any()), "collapsed"
        return self.ratio_of(self.lam)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("num_steps", [60, 300, 1500])
@pytest.mark.parametrize("start_ratio", [1.2, 2.5, 6.0])
def test_it_lands_within_ten_percent(start_ratio: float, num_steps: int, seed: int) -> None:
    toy = ToySearch(start_ratio=start_ratio, num_steps=num_steps, seed=seed)
    assert 0.9 <= toy.run() <= 1.1  # an edge is up to 3 % of the complete cost, 20 % of the tightest budget


@pytest.mark.parametrize("gamma", [1e-6, 1e-4, 1e-2, 1.0])
def test_it_lands_wherever_gamma_starts(gamma: float) -> None:
    assert 0.9 <= ToySearch(gamma=gamma).run() <= 1.0


@pytest.mark.parametrize("usefulness", [0.0, 0.1, 1.0])
def test_it_lands_however_much_the_edges_are_worth(usefulness: float) -> None:
    assert 0.9 <= ToySearch(usefulness=usefulness).run() <= 1.1


def test_cost_follows_the_target() -> None:
    toy = ToySearch(num_steps=1000)
    toy.run()
    settled = range(200, 1000)  # γ has found its size
    over = [toy.ratios[t] / toy.controller.target(t) for t in settled]
    assert max(over) < 1.3
    assert min(over) > 0.85


def test_what_is_dead_does_not_come_back_whenever_gamma_rests() -> None:
    for seed in range(3):
        toy = ToySearch(num_steps=60, start_ratio=6.0, seed=seed)
        toy.run()
        rises = [after / before for before, after in itertools.pairwise(toy.ratios)]
        assert max(rises) < 1.1


def test_gamma_does_not_wind_up_while_steps_are_refused() -> None:
    controller = BudgetController(start_ratio=4.0, num_steps=100, gamma=0.1)
    for step in range(20, 60):
        controller.decide(step, 3.0, lambda gamma, momentum: 3.0 if gamma < 0.05 else 0.2)
    assert controller.gamma == 0.1


@pytest.mark.parametrize("num_edges", [2, 5])
@pytest.mark.parametrize("seed", range(4))
def test_few_dear_edges_never_collapse(num_edges: int, seed: int) -> None:
    toy = ToySearch(num_edges=num_edges, seed=seed, start_ratio=3.0, fixed_share=0.0)
    end = toy.run()
    assert 0 < end <= 3.0
    assert bool((toy.lam > 0).any())


def test_a_budget_below_the_last_edge_is_not_reached_by_collapsing() -> None:
    toy = ToySearch(num_edges=10, start_ratio=50.0, fixed_share=0.0, num_steps=400)
    end = toy.run()
    assert int((toy.lam > 0).sum()) >= 1
    assert end > 1.0


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("num_steps", [200, 1000])
def test_it_passes_the_budget_and_ends_well_below_it(num_steps: int, seed: int) -> None:
    toy = ToySearch(num_steps=num_steps, seed=seed, end_ratio=0.25, fixed_share=0.02)
    end = toy.run()
    landing = toy.ratios[toy.controller.num_landing]
    assert 0.9 <= landing <= 1.2
    assert end <= 0.35
    assert any(0.95 <= ratio <= 1.0 for ratio in toy.ratios)


def test_the_target_falls_geometrically_to_the_budget_and_on_to_the_end() -> None:
    controller = BudgetController(start_ratio=4.0, num_steps=100, gamma=1e-3, landing=0.75, end_ratio=0.25)
    times = (0, 75 / 2, 75, 85, 95, 100)
    assert [controller.target(t) for t in times] == pytest.approx([4.0, 2.0, 1.0, 0.5, 0.25, 0.25])
    assert BudgetController(start_ratio=0.5, num_steps=100, gamma=1e-3).target(50) == 0.5


def test_ahead_of_the_target_gamma_rests() -> None:
    controller = BudgetController(start_ratio=4.0, num_steps=100, gamma=1e-3)
    tried: list[tuple[float, bool]] = []

    def nothing_dies(gamma: float, keep_momentum: bool) -> float | None:
        tried.append((gamma, keep_momentum))
        return 2.0

    decision = controller.decide(10, 2.0, nothing_dies)  # target(10) = 3.3
    assert decision.gamma == 0.0
    assert decision.take
    assert controller.gamma < 1e-3
    decision = controller.decide(60, 2.0, lambda gamma, momentum: 2.0)  # target(60) = 1.2
    assert decision.gamma == controller.gamma > 0
    assert decision.keep_momentum


def test_a_burst_of_deaths_is_split() -> None:
    controller = BudgetController(start_ratio=4.0, num_steps=100, gamma=1.0)

    def dies_by_gamma(gamma: float, keep_momentum: bool) -> float:
        return 2.0 - gamma  # the whole γ would go far below the target

    decision = controller.decide(50, 2.0, dies_by_gamma)
    lowest = controller.target(50) * 0.94
    assert decision.take
    assert 0 < decision.gamma < controller.gamma
    assert dies_by_gamma(decision.gamma, False) >= lowest
    assert dies_by_gamma(decision.gamma, False) == pytest.approx(lowest, abs=0.01)


def test_a_step_that_would_collapse_is_refused() -> None:
    controller = BudgetController(start_ratio=4.0, num_steps=10, gamma=1.0)
    for step in range(100):
        decision = controller.decide(step, 3.0, lambda gamma, momentum: None)
        assert not decision.take


def test_its_state_comes_back() -> None:
    whole, first, second = (ToySearch(num_steps=200) for _ in range(3))
    whole.run()
    first.run(0, 90)
    second.lam, second.velocity = first.lam, first.velocity
    second.random.set_state(first.random.get_state())
    second.controller.load_state_dict(first.controller.state_dict())
    second.run(90)
    assert torch.equal(second.lam, whole.lam)
    assert second.ratios == whole.ratios[90:]
    assert second.controller.state_dict() == whole.controller.state_dict()
