"""A co-design study: planned, run in this process on tiny data, stopped half-way, and read back."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_study import TINY

from dsonas_hw.architecture.architecture import complete_architecture
from dsonas_hw.architecture.costs import TargetCosts
from dsonas_hw.architecture.fit import budget_ratio
from dsonas_hw.budget import Metric, parse_budgets
from dsonas_hw.config import build_config, overlay
from dsonas_hw.cost.model import Prediction
from dsonas_hw.device.spec import load_device
from dsonas_hw.errors import BudgetError, DeviceError, UserError
from dsonas_hw.estimate.estimate import EstimatedLatency
from dsonas_hw.files import read_json, read_json_lines
from dsonas_hw.kernel.spec import Kernel
from dsonas_hw.report.codesign_cross import cross_table
from dsonas_hw.report.codesign_tables import cells_table
from dsonas_hw.report.draw_network import draw_architecture
from dsonas_hw.study import codesign_work
from dsonas_hw.study.codesign import Codesign, load_codesign, save_codesign
from dsonas_hw.study.codesign_jobs import finished_derivations, network_jobs, search_jobs
from dsonas_hw.study.codesign_plan import plan_codesign
from dsonas_hw.study.codesign_result import load_result, network_name
from dsonas_hw.study.codesign_share import load_evaluated
from dsonas_hw.study.job import run_job
from dsonas_hw.study.job_files import job_directory
from dsonas_hw.study.scheduler import run_jobs
from dsonas_hw.study.spec import Job, slug
from dsonas_hw.target import Target
from dsonas_hw.task import target_costs
from dsonas_hw.train.images import space_of_config

DEVICES = ("1080ti", "2080ti")


def _complete_ms(device: str) -> float:
    """Latency of the complete network."""
    config = build_config(overlay(TINY, {"target": {"device": device}}))
    latency = target_costs(config.target).cost(complete_architecture(space_of_config(config)), "latency_ms")
    assert latency is not None
    return latency


_LARGEST_MS = min(map(_complete_ms, DEVICES))
BUDGETS = (f"latency={0.95 * _LARGEST_MS:.4f}ms", f"latency={0.88 * _LARGEST_MS:.4f}ms")


@pytest.fixture(autouse=True)
def _no_profiles(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSONAS_HW_HOME", str(tmp_path_factory.mktemp("home")))


class Done:
    """A job that has run in this process."""

    def poll(self) -> int:
        return 0

    def terminate(self) -> None: ...

    def wait(self) -> int:
        return 0


class HereEngine:
    """Runs jobs in this process, and remembers which."""

    def __init__(self) -> None:
        self.started: list[str] = []

    def start(self, job: Job, folder: Path, command: Sequence[str]) -> Done:
        self.started.append(job.name)
        run_job(folder)
        return Done()

    def close(self) -> None: ...


def run_study(path: Path, study: Codesign) -> list[str]:
    """Run what is not done; returns the names of what ran."""
    engine = HereEngine()
    save_codesign(path, study)
    searches = search_jobs(study)
    assert run_jobs(path, searches, num_workers=2, engine=engine) == []
    networks = network_jobs(study, finished_derivations(path, searches))
    assert run_jobs(path, networks, num_workers=2, engine=engine) == []
    return engine.started


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    path = tmp_path_factory.mktemp("study")
    return path, run_study(path, plan_codesign(DEVICES, BUDGETS, TINY))


# -- planning ---------------------------------------------------------------------------------------------


def test_an_unknown_device_names_the_close_ones() -> None:
    with pytest.raises(DeviceError, match=r"unknown device '2080tii'\. Did you mean 2080ti"):
        plan_codesign(["1080ti", "2080tii", "t4"], BUDGETS, TINY)


def test_a_device_under_two_names_is_refused() -> None:
    with pytest.raises(DeviceError, match="1080ti is listed twice"):
        plan_codesign(["1080ti", "GTX 1080 Ti"], BUDGETS, TINY)


def test_budgets_that_fit_no_network_are_refused_or_left_out() -> None:
    budgets = (BUDGETS[1], "latency=9ms")
    with pytest.raises(BudgetError, match=r"2080ti: budget latency=9ms is above .*--skip-infeasible"):
        plan_codesign(DEVICES, budgets, TINY)
    study = plan_codesign(DEVICES, budgets, TINY, skip_infeasible=True)
    assert [(p.device, p.budget) for p in study.skipped] == [(d, "latency=9ms") for d in DEVICES]
    assert [job.name for job in search_jobs(study) if job.kind == "derive"] == [
        f"derive-{device}-{slug(BUDGETS[1])}-s0" for device in DEVICES
    ]
    with pytest.raises(BudgetError, match="no budget fits any device"):
        plan_codesign(DEVICES, ("latency=9ms",), TINY, skip_infeasible=True)


def test_one_pretraining_and_one_search_per_device() -> None:
    jobs = search_jobs(plan_codesign(DEVICES, BUDGETS, TINY, seeds=(0, 1)))
    kinds = [job.kind for job in jobs]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "pretrain": 2, "search": 4, "evaluate": 2, "derive": 8,
    }  # fmt: skip
    assert {job.needs for job in jobs if job.kind == "search"} == {"pretrain-s0", "pretrain-s1"}
    each = search_jobs(plan_codesign(DEVICES, BUDGETS, TINY, search_per_budget=True))
    assert [job.kind for job in each].count("search") == 4


# -- running ----------------------------------------------------------------------------------------------


def test_a_study_from_end_to_end(finished: tuple[Path, list[str]]) -> None:
    path, started = finished
    result = load_result(path)
    assert result.missing == ()
    assert result.num_jobs == len(started)
    # Every device and budget has a network that holds it, by what is predicted of it.
    for device in DEVICES:
        for budget in BUDGETS:
            (network,) = result.found_for(device, budget)
            cell = result.cell(network.name, device)
            assert cell is not None
            assert cell.latency_ms <= parse_budgets([budget])[0].limit
            assert cell.latency_ms_low < cell.latency_ms < cell.latency_ms_high
            assert (cell.source, cell.is_measured, cell.energy_mj) == ("estimated", False, None)
    # Each distinct network is trained once, and is a row with a cell for every device.
    assert sum(name.startswith("train-") for name in started) == len(result.networks)
    assert len({network.identity for network in result.networks}) == len(result.networks)
    assert len(result.cells) == len(result.networks) * len(DEVICES)
    assert all(network.accuracy is not None for network in result.networks)


def test_no_device_is_given_less_than_the_best_candidate_that_holds_there(
    finished: tuple[Path, list[str]],
) -> None:
    path, _ = finished
    evaluated = load_evaluated(job_directory(path, "evaluate-s0") / "result.json")
    assert len({one.architecture for one in evaluated}) == len(evaluated) > 1
    accuracies = {one.architecture: one.accuracy for one in evaluated}
    result = load_result(path)
    for device in DEVICES:
        costs = target_costs(build_config(overlay(TINY, {"target": {"device": device}})).target)
        for budget in BUDGETS:
            (taken,) = result.found_for(device, budget)
            holding = [
                accuracy
                for architecture, accuracy in accuracies.items()
                if budget_ratio(architecture, parse_budgets([budget]), costs) <= 1.0
            ]
            assert accuracies[taken.architecture] == max(holding)


def test_searches_share_the_pretraining(finished: tuple[Path, list[str]]) -> None:
    path, started = finished
    assert started.count("pretrain-s0") == 1
    (pretrained,) = read_json_lines(path / "jobs/pretrain-s0/run/metrics.jsonl")
    for device in DEVICES:
        rows = read_json_lines(path / f"jobs/search-{device}-s0/run/metrics.jsonl")
        assert [row["stage"] for row in rows] == ["pretrain", *["search"] * 12]
        assert rows[0] == pretrained


def test_what_is_done_is_not_done_again(finished: tuple[Path, list[str]], tmp_path: Path) -> None:
    path = shutil.copytree(finished[0], tmp_path / "study")
    assert run_study(path, load_codesign(path)) == []
    before = load_result(path)
    gone = f"train-{before.networks[0].identity}-s0"
    (job_directory(path, gone) / "result.json").unlink()
    half = load_result(path)
    assert [missing.job for missing in half.missing] == [gone]
    assert half.networks[0].accuracy is None
    assert run_study(path, load_codesign(path)) == [gone]
    assert load_result(path) == before


def test_an_unfinished_study_says_what_is_missing(finished: tuple[Path, list[str]], tmp_path: Path) -> None:
    path = shutil.copytree(finished[0], tmp_path / "study")
    for job in (*path.glob("jobs/*2080ti*"), path / "jobs" / "evaluate-s0"):
        shutil.rmtree(job)
    reasons = {missing.job: missing.reason for missing in load_result(path).missing}
    assert reasons["search-2080ti-s0"] == "not started"
    assert reasons[f"derive-2080ti-{slug(BUDGETS[1])}-s0"] == "waits for evaluate-s0"
    assert reasons["evaluate-s0"] == "waits for search-2080ti-s0"
    (path / "jobs/search-2080ti-s0").mkdir()
    (path / "jobs/search-2080ti-s0/log.txt").write_text("out of memory\n")
    reasons = {missing.job: missing.reason for missing in load_result(path).missing}
    assert reasons["search-2080ti-s0"] == "out of memory"


@pytest.mark.parametrize("has_energies", [False, True])
def test_energy_is_predicted_where_the_profile_has_energies(
    has_energies: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Profile(EstimatedLatency):
        """Its energy is twice its latency."""

        def why_not(self, metric: Metric) -> str:
            return "" if has_energies or metric == "latency" else "never measured"

        def predict(self, kernels: Sequence[Kernel], metric: Metric = "latency") -> Prediction:
            found = super().predict(kernels)
            factor = 2 if metric == "energy" else 1
            return replace(found, **{key: factor * getattr(found, key) for key in ("value", "low", "high")})

    model = Profile(load_device("t4"), Target(device="t4", runtime="tensorrt"))
    monkeypatch.setattr(codesign_work, "target_costs", lambda target, needs: TargetCosts(model))
    config = build_config(TINY)
    found = codesign_work.predict(complete_architecture(space_of_config(config)), config, "t4")
    energy = (found.energy_mj, found.energy_mj_low, found.energy_mj_high)
    latency = (found.latency_ms, found.latency_ms_low, found.latency_ms_high)
    assert energy == (tuple(2 * ms for ms in latency) if has_energies else (None, None, None))


def test_a_device_that_is_here_is_measured(
    finished: tuple[Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dsonas_hw.deploy import measure
    from dsonas_hw.measure.measurement import LatencyMeasurement, Turn

    path = shutil.copytree(finished[0], tmp_path / "study")
    study = load_codesign(path)
    here = study.devices[0].model_copy(update={"is_here": True})
    study = study.model_copy(update={"devices": (here, *study.devices[1:])})
    # Ten rounds that are alike: 0.05 to 0.06 ms, the median 0.055 with what is known of machines, 1 %.
    samples = tuple(0.05 + 0.00001 * i for i in range(1001)) * 10
    turns = (Turn(num_warmup=1, num_samples=1001, low_ms=0.05),) * 10
    measured = measure.TargetMeasurement(
        latency=LatencyMeasurement(samples_ms=samples, converged=True, turns=turns), energy=None,
        runtime="fake", versions={}, device_title="",
    )  # fmt: skip
    monkeypatch.setattr(measure, "measure_on_target", lambda model, target: measured)
    # What was derived before the device was here stays; its networks are measured now.
    derivations = finished_derivations(path, search_jobs(study))
    jobs = network_jobs(study, derivations)
    assert all(job.exclusive for job in jobs if job.kind == "measure")
    save_codesign(path, study)
    assert run_jobs(path, jobs, num_workers=2, engine=HereEngine()) == []
    result = load_result(path)
    for network in result.networks:
        cell = result.cell(network.name, here.name)
        assert cell is not None
        assert cell.is_measured
        assert cell.source == "measured"
        values = (cell.latency_ms_low, cell.latency_ms, cell.latency_ms_high)
        assert values == pytest.approx((0.99 * 0.055, 0.055, 1.01 * 0.055))
        assert (cell.p50_ms, cell.p95_ms, cell.p99_ms) == pytest.approx((0.055, 0.0595, 0.0599))
        assert cell.quiet_ms == pytest.approx(0.0505)
        other = result.cell(network.name, "2080ti")
        assert other is not None
        assert not other.is_measured


def test_results_are_tables(finished: tuple[Path, list[str]]) -> None:
    pandas = pytest.importorskip("pandas")
    result = load_result(finished[0])
    frame = cells_table(result).to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert len(frame) == len(result.cells)
    assert {"network", "device", "latency_ms", "source", "on_front"} <= set(frame.columns)
    assert "<table" in cross_table(result)._repr_html_()
    assert "<svg" in draw_architecture(result.networks[0].architecture)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda data: data.pop("devices"), "devices"),
        (lambda data: data.update(unknown=1), "unknown"),
        (lambda data: data["devices"][0].update(name="../../etc"), "devices.0.name"),
        (lambda data: data.update(schema_version=99), "schema_version"),
    ],
)
def test_a_damaged_study_is_refused(
    finished: tuple[Path, list[str]], tmp_path: Path, change: Any, words: str
) -> None:
    from dsonas_hw.files import write_json

    data = read_json(finished[0] / "codesign.json")
    change(data)
    write_json(tmp_path / "codesign.json", data)
    with pytest.raises(UserError, match=words):
        load_codesign(tmp_path)


def test_networks_have_names_of_letters() -> None:
    assert [network_name(n) for n in (0, 25, 26, 51, 52, 701, 702)] == [
        "A",
        "Z",
        "AA",
        "AZ",
        "BA",
        "ZZ",
        "AAA",
    ]
