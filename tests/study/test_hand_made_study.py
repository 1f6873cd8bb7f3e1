"""A study with hand-made families: its jobs, its widths, and all of it on digits with real workers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from dsonas_hw.budget import Budget, parse_budgets
from dsonas_hw.cli.main import main
from dsonas_hw.config import DeviceConfig
from dsonas_hw.errors import BudgetError, UserError
from dsonas_hw.files import read_json
from dsonas_hw.study.check import check_study
from dsonas_hw.study.family_width import FamilyWidths
from dsonas_hw.study.load import load_study
from dsonas_hw.train.families import FAMILIES
from dsonas_hw.train.hand_made import parse_family

STUDY: dict[str, Any] = {
    "name": "tiny",
    "base": {
        "preset": "digits",
        "data": {"subset": 256, "test_subset": 50},
        "space": {"levels": 2, "stages": [1], "channels": 8, "width_step": 1},
        "search": {"pretrain_epochs": 1, "epochs": 2, "batch_size": 32, "gamma": 0.1, "path_images": 16},
        "retrain": {"epochs": 1, "batch_size": 64},
    },
    "budgets": ["mac=30k"],
    "hand_made": ["resnet-s2", "efficientnet"],
    "random": 1,
    "random_search": True,
}


@pytest.fixture
def study_file(tmp_path: Path) -> str:
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(STUDY))
    return str(path)


def test_a_family_is_fitted_once_and_trained_for_every_seed(study_file: str) -> None:
    jobs = {job.name: job for job in load_study(study_file, {}, seeds=[0, 1]).jobs}
    trained = [job for job in jobs.values() if job.variant == "resnet-s2" and job.kind == "fitted"]
    assert [job.seed for job in trained] == [0, 1]
    assert {job.needs for job in trained} == {"fit-resnet-s2-mac-30k"}
    assert {job.needs for job in jobs.values() if job.kind == "choose"} == {
        "fit-searched-mac-30k-s0", "fit-searched-mac-30k-s1",
    }  # fmt: skip
    assert all(need in jobs for job in jobs.values() for need in job.all_needs)


def test_what_measures_runs_alone(study_file: str) -> None:
    for budget, alone in (("mac=30k", False), ("latency=1ms", True)):
        jobs = load_study(study_file, {}, budgets=[budget]).jobs
        assert {job.exclusive for job in jobs if job.kind == "fit"} == {alone}
        assert not any(job.exclusive for job in jobs if job.kind != "fit")


@pytest.mark.parametrize(
    ("teacher", "job"), [("supernet", "search-searched-s1"), ("resnet", "teacher-s1"), (None, None)]
)
def test_every_network_of_a_seed_has_the_same_teacher(
    study_file: str, teacher: str | None, job: str | None
) -> None:
    study = load_study(study_file, {"retrain": {"distill": {"teacher": teacher}}}, seeds=[1])
    assert {j.teacher for j in study.jobs if j.kind == "fitted"} == {job}
    assert job is None or job in {j.name for j in study.jobs}


def test_an_unknown_family_is_refused_before_anything_runs(study_file: str) -> None:
    file = {**STUDY, "hand_made": ["resnext"]}
    Path(study_file).write_text(yaml.safe_dump(file))
    with pytest.raises(UserError, match=r"unknown family 'resnext'\. Did you mean resnet"):
        check_study(load_study(study_file, {}))


# -- widths --------------------------------------------------------------------------------------------


def widths_of(name: str) -> FamilyWidths:
    network = parse_family(name, input_shape=(1, 8, 8), num_classes=10)
    return FamilyWidths(network=network, target=DeviceConfig(), timed=False)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_width_that_is_taken_holds_and_the_next_does_not(family: str) -> None:
    widths, budgets = widths_of(family), parse_budgets(["flops=2M"])
    taken = widths.fit(budgets)
    assert widths.ratio(taken, budgets) <= 1
    index = widths.networks.index(taken)
    assert index + 1 == len(widths.networks) or widths.ratio(widths.networks[index + 1], budgets) > 1


def test_no_width_fits() -> None:
    with pytest.raises(BudgetError, match=r"no width of ShuffleNetV2 fits mac.*: the narrowest takes mac"):
        widths_of("shufflenetv2").fit(parse_budgets(["mac=1k"]))


def test_latency_steps_are_looked_beyond(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wider network that fills a vector may be the faster one."""
    widths = widths_of("resnet")
    costs = {n: 1.0 + i for i, n in enumerate(widths.networks)}
    costs[widths.networks[6]] = 4.5

    def ratio(self: FamilyWidths, network: Any, budgets: Sequence[Budget]) -> float:
        return costs[network] / 5.0

    monkeypatch.setattr(FamilyWidths, "ratio", ratio)
    assert widths.fit(()) == widths.networks[6]  # of 5 at most: 0 to 4 hold, 5 misses, 6 holds


# -- all of it -----------------------------------------------------------------------------------------


def test_a_study_from_end_to_end(study_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    main(["study", study_file, "--workers", "1", "--out", str(out), "--json"])
    answer = json.loads(capsys.readouterr().out)
    assert answer["failed"] == []
    # EfficientNet's narrowest needs more: a line, and the rest goes on.
    assert len(answer["skipped"]) == 1
    assert "no width of EfficientNet fits" in answer["skipped"][0]
    rows = {row["variant"]: row for row in answer["rows"]}
    assert set(rows) == {"searched", "resnet-s2", "random", "random search"}
    assert all(row["num"] == row["num_holding"] == 1 and row["mac"] <= 30_000 for row in rows.values())
    results = {r["variant"]: r for r in json.loads((out / "results.json").read_text())}
    chosen = read_json(out / "jobs" / "choose-mac-30k-s0" / "result.json")
    assert results["random search"]["num_tried"] == chosen["num_tried"] >= 1
    assert chosen["seconds"] >= chosen["search_seconds"] > 0  # of equal time: the last one ends after it
    page = (out / "report.html").read_text()
    assert "no width of EfficientNet fits" in page
    assert "resnet-s2" in page

    main(["study", study_file, "--workers", "1", "--out", str(out), "--json"])
    assert json.loads(capsys.readouterr().out) == answer  # done is done
