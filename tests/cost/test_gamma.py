"""Eq. 9 and Eq. 10, by hand and as laws."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsonas_hw.cost.gamma import adaptive_gamma_per_block, adaptive_gamma_per_operation

costs = st.just(0.0) | st.floats(1e-3, 1e9)
networks = st.lists(st.lists(costs, min_size=3, max_size=3), min_size=1, max_size=5)
gammas = st.floats(1e-6, 1.0)


def test_eq_9_by_hand() -> None:
    # γ_b = cost_b(t) / cost_b(complete) · γ: a block that lost three quarters of its cost has a quarter of γ
    assert adaptive_gamma_per_block([100.0, 25.0, 0.0], [100.0, 100.0, 50.0], gamma=0.01) == pytest.approx(
        [0.01, 0.0025, 0.0]
    )


def test_eq_10_by_hand() -> None:
    # γ_(m,n) = cost_(m,n) / max over the complete network · γ; the largest there is 160, and dead by now.
    now, complete = [[40.0, 0.0], [80.0, 20.0]], [[40.0, 10.0], [80.0, 160.0]]
    assert adaptive_gamma_per_operation(now, complete, gamma=0.01) == [
        pytest.approx([0.0025, 0.0]),
        pytest.approx([0.005, 0.00125]),
    ]


def test_when_only_cheap_operations_are_left_their_gamma_stays_small() -> None:
    # Pools (45) were charged 0.45 · γ beside a sep-conv (100); without it they are still.
    complete = [[100.0, 45.0, 45.0]]
    before, after = (
        adaptive_gamma_per_operation(now, complete, gamma=1.0) for now in (complete, [[0.0, 45.0, 45.0]])
    )
    assert before == [pytest.approx([1.0, 0.45, 0.45])]
    assert after == [pytest.approx([0.0, 0.45, 0.45])]


def test_a_block_without_cost_has_no_gamma() -> None:
    assert adaptive_gamma_per_block([0.0], [0.0], gamma=0.1) == [0.0]
    assert adaptive_gamma_per_operation([[0.0, 0.0]], [[0.0, 0.0]], gamma=0.1) == [[0.0, 0.0]]
    assert adaptive_gamma_per_operation([], [], gamma=0.1) == []


def test_blocks_must_correspond() -> None:
    with pytest.raises(ValueError, match="zip"):
        adaptive_gamma_per_block([1.0], [1.0, 2.0], gamma=0.1)


@given(networks, gammas)
def test_the_dearest_operation_has_the_whole_gamma(network: list[list[float]], gamma: float) -> None:
    result = adaptive_gamma_per_operation(network, network, gamma=gamma)
    flat = [(c, g) for cs, gs in zip(network, result, strict=True) for c, g in zip(cs, gs, strict=True)]
    assert all(0.0 <= g <= gamma * (1 + 1e-9) for _, g in flat)
    if max(c for c, _ in flat) > 0:
        assert max(flat)[1] == pytest.approx(gamma)
    assert [c for c, _ in sorted(flat)] == sorted(c for c, _ in flat)
    assert [g for _, g in sorted(flat)] == sorted(g for _, g in flat)


@given(networks, gammas, st.floats(1e-3, 1e3))
def test_the_unit_of_the_cost_does_not_matter(
    network: list[list[float]], gamma: float, factor: float
) -> None:
    scaled = [[factor * cost for cost in block] for block in network]
    for one, other in zip(
        adaptive_gamma_per_operation(network, network, gamma=gamma),
        adaptive_gamma_per_operation(scaled, scaled, gamma=gamma),
        strict=True,
    ):
        assert one == pytest.approx(other, rel=1e-6, abs=1e-12)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(1e-3, 1e9)), min_size=1, max_size=8), gammas)
def test_gamma_falls_as_a_block_gets_cheaper(blocks: list[tuple[float, float]], gamma: float) -> None:
    complete = [cost for _, cost in blocks]
    now = [share * cost for share, cost in blocks]
    result = adaptive_gamma_per_block(now, complete, gamma=gamma)
    assert result == pytest.approx([gamma * share for share, _ in blocks], rel=1e-6, abs=1e-12)
    cheaper = adaptive_gamma_per_block([cost / 2 for cost in now], complete, gamma=gamma)
    assert cheaper == pytest.approx([g / 2 for g in result])
