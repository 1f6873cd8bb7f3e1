"""Fronts, carrying and preferences on a study of four networks and two devices, by hand.

   accuracy   on a   on b   found for
A    0.90     1.0    4.0    a, 1 ms
B    0.95     2.0    5.0    a, 2 ms
C    0.90     3.0    1.0    b, 1 ms
D    0.96     4.0    2.0    b, 2 ms
"""

from __future__ import annotations

import dataclasses
import math

import pytest

from dsonas_hw.architecture.architecture import Architecture, close_block
from dsonas_hw.architecture.costs import Costs
from dsonas_hw.budget import parse_budgets
from dsonas_hw.space.space import SearchSpace
from dsonas_hw.study.codesign import Codesign, StudyDevice
from dsonas_hw.study.codesign_analysis import answers, carried, holds, pareto_front, preferences
from dsonas_hw.study.codesign_result import Cell, CodesignResult, Network, Origin

SPACE = SearchSpace(levels=1, operations=("sep3", "max3"), stages=(1,), channels=4, input_shape=(1, 8, 8))
# Nodes: 1 sep3, 2 max3; the output is node 3.
ONLY_SEP = close_block(SPACE, [(0, 1), (1, 3)])
BOTH = close_block(SPACE, [(0, 1), (0, 2), (1, 3), (2, 3)])
TABLE = {
    "A": (0.90, 1.0, 4.0, "a", "latency=1ms", ONLY_SEP),
    "B": (0.95, 2.0, 5.0, "a", "latency=2ms", BOTH),
    "C": (0.90, 3.0, 1.0, "b", "latency=1ms", BOTH),
    "D": (0.96, 4.0, 2.0, "b", "latency=2ms", BOTH),
}


@pytest.fixture
def result() -> CodesignResult:
    devices = tuple(
        StudyDevice(name=n, title=n, runtime="r", source="estimated", is_here=False, mean_error=None)
        for n in "ab"
    )
    networks, cells = [], []
    for name, (accuracy, on_a, on_b, device, budget, block) in TABLE.items():
        networks.append(
            Network(
                name=name, identity=name, architecture=Architecture(space=SPACE, blocks=(block,), width=4),
                origins=(Origin(device=device, budget=budget, seed=0),), accuracies=(accuracy,),
                costs=Costs(flops=1, mac=1, params=1, memory_bytes=1),
            )
        )  # fmt: skip
        for where, latency in (("a", on_a), ("b", on_b)):
            cells.append(
                Cell(
                    network=name, device=where, latency_ms=latency, latency_ms_low=latency,
                    latency_ms_high=latency, source="estimated", is_measured=False, predicted_ms=latency,
                    energy_mj=None,
                )
            )  # fmt: skip
    study = Codesign(devices=devices, budgets=("latency=1ms", "latency=2ms"), config={})
    return CodesignResult(study=study, networks=tuple(networks), cells=tuple(cells), missing=(), num_jobs=0)


def test_the_front_is_what_no_other_beats(result: CodesignResult) -> None:
    assert pareto_front(result, "a") == ["A", "B", "D"]  # C is as accurate as A and slower
    assert pareto_front(result, "b") == ["C", "D"]


def test_of_two_equally_accurate_ones_the_faster_is_on_the_front(result: CodesignResult) -> None:
    cells = tuple(
        dataclasses.replace(c, latency_ms=1.5) if (c.network, c.device) == ("C", "a") else c
        for c in result.cells
    )
    assert pareto_front(dataclasses.replace(result, cells=cells), "a") == ["A", "B", "D"]


def test_the_answer_is_the_most_accurate_that_holds_whatever_it_was_found_for(result: CodesignResult) -> None:
    found = {(a.device, a.budget[8:]): a.network.name if a.network else None for a in answers(result)}
    assert found == {("a", "1ms"): "A", ("a", "2ms"): "B", ("b", "1ms"): "C", ("b", "2ms"): "D"}
    # On b, A becomes as fast as C and more accurate: it is b's answer though it was found for a.
    a, *others = result.networks
    networks = (dataclasses.replace(a, accuracies=(0.91,)), *others)
    cells = tuple(
        dataclasses.replace(c, latency_ms=0.8) if (c.network, c.device) == ("A", "b") else c
        for c in result.cells
    )
    changed = dataclasses.replace(result, networks=networks, cells=cells)
    for answer in answers(changed):
        assert answer.network is not None
        assert answer.network.name in pareto_front(changed, answer.device)
        if (answer.device, answer.budget) == ("b", "latency=1ms"):
            assert answer.network.name == "A"


def test_an_estimated_answer_is_as_likely_as_its_interval_says(result: CodesignResult) -> None:
    def chance(cell: Cell) -> float | None:
        cells = tuple(cell if (c.network, c.device) == ("B", "a") else c for c in result.cells)
        found = answers(dataclasses.replace(result, cells=cells))
        return next(a.probability for a in found if (a.device, a.budget) == ("a", "latency=2ms"))

    (cell,) = (c for c in result.cells if (c.network, c.device) == ("B", "a"))
    # The limit is the value itself, then the upper end of an interval of 90 %.
    assert chance(dataclasses.replace(cell, latency_ms_low=1.6, latency_ms_high=2.5)) == pytest.approx(0.5)
    narrow = dataclasses.replace(cell, latency_ms=1.6, latency_ms_low=1.28, latency_ms_high=2.0)
    assert chance(narrow) == pytest.approx(0.95, abs=0.001)
    assert chance(dataclasses.replace(cell, is_measured=True)) is None


def test_a_budget_on_energy_is_held_by_what_is_measured_or_predicted_of_it(result: CodesignResult) -> None:
    study = result.study.model_copy(update={"budgets": ("latency=2ms,energy=8mJ",)})

    def on_a(**energy: float | bool | None) -> tuple[str | None, float | None]:
        cells = tuple(dataclasses.replace(c, **energy) for c in result.cells if c.network == "B")  # type: ignore[arg-type]
        answer = answers(dataclasses.replace(result, study=study, cells=cells))[0]
        return answer.network.name if answer.network else None, answer.probability

    assert on_a() == (None, None)  # nobody knows its energy
    # The upper end of an interval of 90 %; its latency is its limit.
    name, chance = on_a(energy_mj=6.4, energy_mj_low=5.12, energy_mj_high=8.0, latency_ms=1.0)
    assert (name, chance) == ("B", pytest.approx(0.95, abs=0.001))
    assert on_a(energy_mj=8.1, energy_mj_low=7.0, energy_mj_high=9.0) == (None, None)
    measured = {"is_measured": True, "energy_mj": 7.0, "energy_mj_low": 6.0}
    assert on_a(**measured, energy_mj_high=8.0) == ("B", None)
    assert on_a(**measured, energy_mj_high=8.1) == on_a(**measured) == (None, None)


def test_without_a_trained_network_that_holds_there_is_no_answer(result: CodesignResult) -> None:
    untrained = tuple(dataclasses.replace(n, accuracies=()) for n in result.networks)
    assert {a.network for a in answers(dataclasses.replace(result, networks=untrained))} == {None}


def test_what_carrying_a_network_costs(result: CodesignResult) -> None:
    found = {(c.source, c.target, c.budget[8:]): c for c in carried(result)}
    # A on b takes 4; the fastest of b's own that reaches 0.90 is C, with 1. So 4 times.
    assert found["a", "b", "1ms"].relative_latency == pytest.approx(4.0)
    # B (0.95) on b takes 5; of b's own only D (0.96) reaches that, with 2.
    assert found["a", "b", "2ms"].relative_latency == pytest.approx(2.5)
    # C (0.90) on a takes 3; A takes 1. D (0.96) has no equal among a's own.
    assert found["b", "a", "1ms"].relative_latency == pytest.approx(3.0)
    assert found["b", "a", "2ms"].relative_latency is None
    # None of a's networks runs within 2 ms on b, none of b's within 2 ms on a.
    assert {c.accuracy_loss for (s, t, _), c in found.items() if s != t} == {None}


def test_at_home_nothing_is_lost(result: CodesignResult) -> None:
    for c in carried(result):
        if c.source == c.target:
            assert (c.relative_latency, c.accuracy_loss) == (1.0, 0.0)


def test_accuracy_lost_at_an_equal_budget(result: CodesignResult) -> None:
    # Were C fast on a, and A on b: within 1 ms on a, b's networks would reach C's 0.90, as A does.
    cells = tuple(
        dataclasses.replace(c, latency_ms=0.5) if (c.network, c.device) in {("C", "a"), ("A", "b")} else c
        for c in result.cells
    )
    fast = dataclasses.replace(result, cells=cells)
    found = {(c.source, c.target, c.budget[8:]): c for c in carried(fast)}
    assert found["b", "a", "1ms"].accuracy_loss == pytest.approx(0.0)
    assert found["b", "a", "2ms"].accuracy_loss == pytest.approx(0.05)  # B's 0.95 − C's 0.90
    assert found["a", "b", "2ms"].accuracy_loss == pytest.approx(0.06)  # D's 0.96 − A's 0.90


def test_operations_are_counted_over_all_blocks(result: CodesignResult) -> None:
    found = {(p.device, p.operation): p for p in preferences(result)}
    # a: A has one sep, B one sep and one max; edges: 2 of A's sep, 2 and 2 of B's.
    assert found["a", "sep3"].share_of_nodes == pytest.approx(2 / 3)
    assert found["a", "sep3"].share_of_edges == pytest.approx(4 / 6)
    assert found["a", "max3"].share_of_nodes == pytest.approx(1 / 3)
    assert found["b", "sep3"].share_of_nodes == pytest.approx(1 / 2)


def test_a_measured_latency_holds_a_budget_with_its_whole_interval(result: CodesignResult) -> None:
    def held(cell: Cell) -> bool:
        cells = tuple(cell if (c.network, c.device) == ("A", "a") else c for c in result.cells)
        changed = dataclasses.replace(result, cells=cells)
        return holds(changed, changed.network("A"), "a", parse_budgets(["latency=1ms"]))

    cell = next(c for c in result.cells if (c.network, c.device) == ("A", "a"))
    predicted = dataclasses.replace(cell, latency_ms=0.99, latency_ms_low=0.9, latency_ms_high=1.1)
    measured = dataclasses.replace(predicted, is_measured=True)
    assert held(predicted)
    assert not held(measured)
    assert held(dataclasses.replace(measured, latency_ms_high=1.0))
    assert not held(dataclasses.replace(measured, latency_ms_high=math.inf))
