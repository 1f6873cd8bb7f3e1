"""The correction of a table: what whole networks teach about the sums of their kernels."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace

import pytest

from dsonas_hw.cost.fit import TimedNetwork, fit_corrections
from dsonas_hw.cost.kernel_costs import KernelCosts
from dsonas_hw.cost.kernel_fit import fit_categories
from dsonas_hw.cost.network_costs import NetworkCosts, Part, kernel_costs
from dsonas_hw.errors import ProfileError
from dsonas_hw.kernel.spec import Kernel
from dsonas_hw.table.read_rows import RowError, row_from_json
from dsonas_hw.table.rows import CorrectionRow, KernelRow

WIDTHS = (8, 16, 24, 32, 48)


def pointwise(channels: int, side: int = 16) -> Kernel:
    return Kernel(
        op="conv",
        inputs=((1, channels, side, side),),
        output=(1, channels, side, side),
        num_weights=channels**2,
        num_bias=channels,
        epilogue=("relu",),
    )


def depthwise(channels: int, side: int = 16) -> Kernel:
    return replace(pointwise(channels, side), kernel_size=(3, 3), groups=channels, num_weights=9 * channels)


def true_ms(kernel: Kernel) -> float:
    return 0.002 + 2e-8 * kernel.flops + 1e-7 * math.prod(kernel.output)


def rows(factor: float = 1.0) -> list[KernelRow]:
    return [
        KernelRow(kernel=kernel, latency_ms=factor * true_ms(kernel), source="measured", num_samples=10)
        for width in WIDTHS
        for kernel in (pointwise(width), depthwise(width))
    ]


def kernels(rng: random.Random, *, deepest: int = 40) -> list[Kernel]:
    make = rng.choices((pointwise, depthwise), k=rng.randint(3, deepest))
    return [one(rng.choice(WIDTHS)) for one in make]


def networks(count: int, latency_ms, *, seed: int = 0) -> list[TimedNetwork]:  # type: ignore[no-untyped-def]
    rng = random.Random(seed)
    drawn = [kernels(rng) for _ in range(count)]
    return [TimedNetwork(kernels=each, latency_ms=latency_ms(each)) for each in drawn]


def fit_latency(table: list[KernelRow], timed: list[TimedNetwork]) -> CorrectionRow:
    (correction,) = fit_corrections(table, timed)
    return correction


def costs_of(correction: CorrectionRow, table: list[KernelRow]) -> NetworkCosts:
    return NetworkCosts(correction, kernel_costs(correction, table))


def errors(correction: CorrectionRow, table: list[KernelRow], held_out: list[TimedNetwork]) -> list[float]:
    costs = costs_of(correction, table)
    return [abs(costs.value(costs.part(network.kernels)) / network.latency_ms - 1) for network in held_out]


def test_a_session_that_costs_something_per_kernel_and_per_run_is_learned() -> None:
    def latency_ms(each: list[Kernel]) -> float:
        return 0.03 + sum(1.1 * true_ms(kernel) + 0.001 for kernel in each)

    correction = fit_latency(rows(), networks(48, latency_ms))
    assert max(errors(correction, rows(), networks(30, latency_ms, seed=1))) < 0.02


def test_what_networks_of_a_size_share_is_carried_to_others_of_that_size() -> None:
    """Larger networks run into colder caches; no sum over kernels can say so."""

    def latency_ms(each: list[Kernel]) -> float:
        total = sum(map(true_ms, each))
        return total * (1 + 0.25 / (1 + math.exp(-4 * math.log(total / 0.3))))

    timed, held_out = networks(60, latency_ms), networks(30, latency_ms, seed=1)
    correction = fit_latency(rows(), timed)
    without = replace(correction, anchors=())
    mean = sum(errors(correction, rows(), held_out)) / 30
    assert mean < 0.02
    assert mean < 0.5 * sum(errors(without, rows(), held_out)) / 30


def test_far_from_all_networks_nothing_is_added() -> None:
    correction = fit_latency(rows(), networks(40, lambda each: 1.2 * sum(map(true_ms, each))))
    costs = costs_of(correction, rows())
    huge = Part(cost_ms=1e9, scaled=1e9, fixed=0.0, num_kernels=10**9, largest_mb=1e9)
    constant_ms = correction.values["constant_ms"]
    assert costs.value(huge) == pytest.approx(1e9 + constant_ms)


def test_the_interval_covers_the_noise_that_there_is() -> None:
    rng = random.Random(3)

    def latency_ms(each: list[Kernel]) -> float:
        return sum(map(true_ms, each)) * math.exp(rng.gauss(0, 0.05))

    correction = fit_latency(rows(), networks(80, latency_ms))
    costs = costs_of(correction, rows())
    inside = []
    for network in networks(200, latency_ms, seed=4):
        part = costs.part(network.kernels)
        low, high = costs.interval(part)
        assert math.exp(-0.16) < low < math.exp(-0.05)
        assert low * high == pytest.approx(1)
        inside.append(low <= network.latency_ms / costs.value(part) <= high)
    assert 0.82 <= sum(inside) / len(inside) <= 0.98


def test_the_interval_is_as_wide_as_the_errors_of_networks_nearby() -> None:
    """Deep networks are noisy, shallow ones are not: one width for all would be wrong for both."""
    rng = random.Random(8)

    def latency_ms(each: list[Kernel]) -> float:
        return sum(map(true_ms, each)) * math.exp(rng.gauss(0, 0.1 if len(each) > 100 else 0.01))

    drawn = random.Random(0)
    sizes = [kernels(drawn, deepest=4) if index % 2 else kernels(drawn) * 20 for index in range(80)]
    timed = [TimedNetwork(kernels=each, latency_ms=latency_ms(each)) for each in sizes]
    costs = costs_of(fit_latency(rows(), timed), rows())
    shallow, deep = (costs.interval(costs.part(each))[1] - 1 for each in (sizes[1], sizes[0]))
    assert deep > 2 * shallow


def test_what_the_profile_s_own_timings_err_by_does_not_widen_the_interval() -> None:
    rng = random.Random(3)
    noisy = networks(80, lambda each: sum(map(true_ms, each)) * math.exp(rng.gauss(0, 0.05)))
    told = [replace(network, relative_standard_error=0.05) for network in noisy]
    plain, corrected = (costs_of(fit_latency(rows(), timed), rows()) for timed in (noisy, told))
    part = plain.part(noisy[0].kernels)
    assert corrected.interval(part)[1] - 1 < 0.9 * (plain.interval(part)[1] - 1)


def test_the_interval_is_wider_for_kernels_that_are_far_from_all_rows() -> None:
    rng = random.Random(5)
    noisy = [
        replace(row, latency_ms=row.latency_ms * math.exp(rng.gauss(0, 0.15)), num_samples=1)
        for row in rows()
    ]
    correction = fit_latency(noisy, networks(60, lambda each: sum(map(true_ms, each)), seed=6))
    costs = costs_of(correction, noisy)
    near, far = costs.part([pointwise(16)] * 5), costs.part([pointwise(16, side=160)] * 5)
    assert far.deviation > 2 * near.deviation
    assert costs.interval(far)[1] >= costs.interval(near)[1]


def test_one_disturbed_network_moves_nothing() -> None:
    def latency_ms(each: list[Kernel]) -> float:
        return sum(map(true_ms, each))

    timed = networks(48, latency_ms)
    timed[7] = replace(timed[7], latency_ms=3 * timed[7].latency_ms)
    correction = fit_latency(rows(), timed)
    found = sorted(errors(correction, rows(), networks(30, latency_ms, seed=1)))
    assert found[len(found) // 2] < 0.03


def test_parts_add_up_to_the_network() -> None:
    correction = fit_latency(rows(), networks(20, lambda each: sum(map(true_ms, each))))
    costs = costs_of(correction, rows())
    every = kernels(random.Random(9))
    whole, parts = costs.part(every), costs.part(every[:5]) + costs.part(every[5:])
    assert costs.value(parts) == pytest.approx(costs.value(whole))


def test_a_width_between_two_timed_ones_costs_something_between() -> None:
    table = rows()
    costs = KernelCosts(fit_categories(table), table)
    between = pointwise(28)
    assert costs.latency_ms(between) == pytest.approx(true_ms(between), rel=0.05)
    assert costs.latency_ms(pointwise(24)) < costs.latency_ms(between) < costs.latency_ms(pointwise(32))
    assert not costs.knows(pointwise(1024))


def true_mj(each: list[Kernel]) -> float:
    """A pointwise convolution draws 80 W, a depthwise one 30 W; the board 5 mJ an inference besides."""
    return 5.0 + sum((80.0 if kernel.groups == 1 else 30.0) * true_ms(kernel) for kernel in each)


def with_energy(timed: list[TimedNetwork]) -> list[TimedNetwork]:
    return [replace(network, energy_mj=true_mj(list(network.kernels))) for network in timed]


def test_energies_of_whole_networks_tell_the_power_of_every_group() -> None:
    def latency_ms(each: list[Kernel]) -> float:
        return 0.03 + sum(map(true_ms, each))

    latency, energy = fit_corrections(rows(), with_energy(networks(60, latency_ms)))
    assert (latency.metric, energy.metric) == ("latency", "energy")
    assert latency == fit_latency(
        rows(), networks(60, latency_ms)
    )  # the same, whether a meter is there or not
    costs = NetworkCosts(energy, kernel_costs(latency, rows()))
    for kernel, watts in ((pointwise(24), 80.0), (depthwise(24), 30.0)):
        assert costs.share(costs.part([kernel])) == pytest.approx(watts * true_ms(kernel), rel=0.15)
    for network in networks(30, latency_ms, seed=1):
        part = costs.part(network.kernels)
        assert costs.value(part) == pytest.approx(true_mj(list(network.kernels)), rel=0.06)
        low, high = costs.interval(part)
        assert low < 1 < high
    assert row_from_json(json.loads(json.dumps(energy.to_json()))) == energy


def test_of_too_few_energies_nothing_is_fitted() -> None:
    timed = networks(12, lambda each: sum(map(true_ms, each)))
    assert len(fit_corrections(rows(), [*with_energy(timed[:3]), *timed[3:]])) == 1


def test_too_few_networks_are_refused() -> None:
    with pytest.raises(ProfileError, match="needs 4: profile a preset"):
        fit_latency(rows(), networks(3, lambda each: 1.0))


def test_a_correction_comes_back_from_its_line() -> None:
    correction = fit_latency(rows(), networks(12, lambda each: 1.3 * sum(map(true_ms, each))))
    assert row_from_json(json.loads(json.dumps(correction.to_json()))) == correction
    assert len(correction.anchors) == 12


@pytest.mark.parametrize(
    "anchors",
    [
        5,
        [[1, 2, 3, 4]],
        [[1, 2, 3, 4, "x"]],
        [[1, 2, 3, 4, float("inf")]],
        [[1, 2, 3, 4, True]],
        [[]] * 30_000,
    ],
)
def test_damaged_anchors_are_refused(anchors: object) -> None:
    with pytest.raises(RowError):
        row_from_json({"row": "correction", "values": {}, "anchors": anchors})
