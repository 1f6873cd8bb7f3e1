"""How much of a limit networks need, from one verdict and a second of measuring each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from dsonas_hw.architecture.architecture import Architecture, complete_architecture
from dsonas_hw.budget import Metric, parse_budgets
from dsonas_hw.deploy.measured_use import MeasuredUse
from dsonas_hw.measure.statistics import Estimate
from dsonas_hw.space.space import SearchSpace

COMPLETE = complete_architecture(SearchSpace(levels=1, stages=(1,), channels=4, input_shape=(1, 8, 8)))
NETWORKS = [COMPLETE.with_width(width) for width in (4, 8, 12)]


class Device:
    """Takes a tenth of a millisecond per channel; its median lies 2 % above the quiet value."""

    def __init__(self) -> None:
        self.verdicts: list[int] = []
        self.briefly: list[int] = []
        self.rows: list[dict[str, Any]] = []

    def measure(self, architecture: Architecture) -> dict[str, Estimate | None]:
        self.verdicts.append(architecture.width)
        return {"latency_ms": Estimate.exact(0.1 * architecture.width * 1.02).widened(0.01)}

    def relative(self, architecture: Architecture) -> Mapping[Metric, float] | None:
        self.briefly.append(architecture.width)
        return {"latency": 7.0 * architecture.width}  # in units of its own

    def use(self, known: Any = ()) -> MeasuredUse:
        return MeasuredUse(
            parse_budgets(["latency=2ms"]), measure=self.measure, measure_relative=self.relative,
            known=known, log=lambda row: self.rows.append(dict(row)),
        )  # fmt: skip


def test_one_verdict_tells_of_all() -> None:
    device = Device()
    use = device.use()
    for network in NETWORKS:
        # median · (1 + 1.5 · 1 %) / limit: fit_measured's need.
        assert use(network) == pytest.approx(0.1 * network.width * 1.02 * 1.015 / 2.0)
    assert device.verdicts == [4]
    assert device.briefly == [4, 8, 12]
    assert use.verdict(NETWORKS[2]) == pytest.approx(use(NETWORKS[2]))


def test_what_was_logged_is_not_measured_again() -> None:
    first, second = Device(), Device()
    use = first.use()
    told = [use(network) for network in NETWORKS]
    again = second.use(known=first.rows)
    assert [again(network) for network in NETWORKS] == told
    assert second.verdicts == second.briefly == second.rows == []


def test_of_two_metrics_the_tighter_one_counts() -> None:
    """Of 4 channels 10 mJ and 1 ms; the time grows with the width, half of the energy does."""

    def measure(architecture: Architecture) -> dict[str, Estimate | None]:
        return {"latency_ms": Estimate.exact(1.0), "energy_mj": Estimate.exact(10.0)}

    def relative(architecture: Architecture) -> Mapping[Metric, float] | None:
        return {"latency": architecture.width / 4, "energy": 3.0 + 3.0 * architecture.width / 4}

    use = MeasuredUse(parse_budgets(["latency=4ms,energy=12mJ"]), measure=measure, measure_relative=relative)
    assert use(NETWORKS[0]) == pytest.approx(10 / 12)
    assert use(NETWORKS[1]) == pytest.approx(10 / 12 * 9 / 6)
    assert use(NETWORKS[2]) == pytest.approx(10 / 12 * 12 / 6)  # of the latency it needs 3/4


def test_a_target_that_is_not_here_tells_nothing() -> None:
    nothing: dict[str, Estimate | None] = {}
    use = MeasuredUse(
        parse_budgets(["latency=2ms"]), measure=lambda a: nothing, measure_relative=lambda a: None
    )
    assert use(NETWORKS[0]) is None
    assert use.verdict(NETWORKS[0]) is None
