"""A runtime that only this file knows profiles, searches, validates and reports."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import onnx
import pytest
import yaml

from dsonas_hw.kernel.onnx.from_onnx import network_from_onnx
from dsonas_hw.kernel.spec import Kernel
from dsonas_hw.measure.measurement import Turn, measure_together
from dsonas_hw.measure.rounds import measure_rounds
from dsonas_hw.runtime.base import NetworkTiming, NodeTiming, ProfiledSession, Runtime, Session
from dsonas_hw.runtime.libraries import Library
from dsonas_hw.runtime.registry import register, unregister
from dsonas_hw.table.table import load_table
from dsonas_hw.target import Target

NAME = "stand-in"
CONSTANT_MS = 0.02
"""What a network takes besides its kernels."""
TINY = {
    "preset": "digits",
    "data": {"subset": 256, "test_subset": 50},
    "space": {"levels": 2, "stages": [1, 1], "channels": 8, "operations": ["sep3", "max3"]},
    "search": {"pretrain_epochs": 0, "epochs": 4, "batch_size": 16, "path_interval": 3, "path_images": 32},
    "retrain": {"epochs": 1, "batch_size": 32},
}


def made_up_ms(kernel: Kernel) -> float:
    """Of each multiply-add half a nanosecond, of each element moved two, of each kernel five microseconds."""
    return 0.005 + 5e-7 * kernel.flops + 2e-6 * kernel.mac


class Clock:
    """Goes on only when something is run."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s

    def advance(self, seconds: float) -> None:
        self.now_s += seconds


CLOCK = Clock()


class StandInSession:
    """Takes as long as it is made up to take, by the made-up clock, and tells its kernels."""

    runtime = NAME
    versions = {NAME: "1.0"}  # noqa: RUF012

    def __init__(self, model: bytes, target: Target) -> None:
        network = network_from_onnx(onnx.load_model_from_string(model), batch_size=target.batch_size)
        self.kernels = [step.kernel for step in network.schedule.kernels]
        self.seconds = 1e-3 * (CONSTANT_MS + sum(map(made_up_ms, self.kernels)))

    def run(self) -> object:
        CLOCK.advance(self.seconds)
        return None

    def synchronize(self) -> None:
        """Nothing runs on by itself."""

    def close(self) -> None:
        """Nothing to give back."""

    def finish(self, turns: Sequence[Turn], yardstick_ms: float | None = None) -> NetworkTiming:
        return NetworkTiming(
            nodes=tuple(NodeTiming(kernel=kernel, latency_ms=made_up_ms(kernel)) for kernel in self.kernels)
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class StandIn(Runtime):
    name = NAME
    title = "made-up times"
    on_cpu = True
    on_gpu = False
    times_kernels = True
    distributions = (NAME,)
    module = "stand_in"

    def library(self) -> Library:
        return Library(distribution=NAME, version="1.0", folder=None, cuda=None)

    def open_session(self, model: bytes, target: Target) -> Session:
        return StandInSession(model, target)

    def open_profiled(self, model: bytes, target: Target) -> ProfiledSession:
        return StandInSession(model, target)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A data directory, a profile of few networks, and the made-up clock wherever something is timed."""
    from dsonas_hw.deploy import measure
    from dsonas_hw.profile import check, profile_space, profiler

    folder = tmp_path_factory.mktemp("home")
    register(StandIn())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DSONAS_HW_HOME", str(folder))
        together = partial(measure_together, clock_s=CLOCK)
        patch.setattr(profiler, "measure_together", together)
        patch.setattr(check, "measure_together", together)
        rounds = partial(measure_rounds, clock_s=CLOCK, rest=CLOCK.advance)
        patch.setattr(measure, "measure_rounds", rounds)
        few = partial(profile_space.profile_space, num_networks=8, num_checked=4)
        patch.setattr(profile_space, "profile_space", few)
        yield folder
    unregister(NAME)


@pytest.fixture(scope="module")
def finished(home: Path, dsonas: Any) -> tuple[Path, Any]:
    """A run through every stage, under a budget that its predictions, then its measurement, decide."""
    config, run = home / "tiny.yaml", home / "run"
    config.write_text(yaml.safe_dump({**TINY, "target": {"runtime": NAME}}))
    done = dsonas("run", "--config", config, "--budget", "mac=20k,latency=0.15ms", "--out", run)
    return run, done


def test_it_is_listed_with_the_others(home: Path, dsonas: Any) -> None:
    (row,) = [row for row in dsonas("devices", "local", "--json").json["runtimes"] if row["runtime"] == NAME]
    assert (row["usable"], row["version"]) == (True, "1.0")
    assert NAME in dsonas("predict", "x.onnx", "--runtime", "stand-inn").refused()


def test_it_profiles_searches_validates_and_reports(finished: tuple[Path, Any]) -> None:
    run, done = finished
    assert done.code == 0, done
    validation = json.loads((run / "validation.json").read_text())
    assert (validation["runtime"], validation["source"], validation["holds"]) == (NAME, "measured", True)
    assert NAME in (run / "report.html").read_text()


def test_its_table_tells_the_made_up_times(home: Path, finished: tuple[Path, Any]) -> None:
    table = load_table(home / "profiles" / "local" / f"{NAME}-fp32-b1.jsonl")
    assert table.header.target == Target(runtime=NAME)
    for row in table.kernels.values():
        assert row.source == "measured"
        assert row.latency_ms == pytest.approx(made_up_ms(row.kernel), rel=0.1)
    assert all(check.num_networks == 4 for check in table.checks.values())


def test_a_prediction_is_what_the_network_takes(home: Path, finished: tuple[Path, Any], dsonas: Any) -> None:
    model = finished[0] / "model.onnx"
    predicted = dsonas("predict", model, "--runtime", NAME, "--json").json
    takes_ms = 1e3 * StandInSession(model.read_bytes(), Target(runtime=NAME)).seconds
    assert predicted["source"] == "measured"
    assert predicted["unknown_kernels"] == []
    assert predicted["latency_ms"] == pytest.approx(takes_ms, rel=0.15)
