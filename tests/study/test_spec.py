"""A study file stands for its jobs; what cannot be is refused by name before anything runs."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from dsonas_hw.cli.main import main
from dsonas_hw.config import load_preset
from dsonas_hw.errors import UserError
from dsonas_hw.study.check import check_study
from dsonas_hw.study.spec import MAX_JOBS, Study, StudyFile, expand, load_study, shipped_studies


def study_of(**fields: Any) -> Study:
    return expand(StudyFile.model_validate({"name": "s", "base": {}, "budgets": ["mac=100k"], **fields}))


def write(path: Path, **fields: Any) -> str:
    file = path / "study.yaml"
    file.write_text(yaml.safe_dump({"name": "s", "base": {}, "budgets": ["mac=100k"], **fields}))
    return str(file)


# -- expansion --------------------------------------------------------------------------------------------


def test_one_search_serves_every_budget() -> None:
    study = study_of(budgets=["mac=100k", "mac=50k,flops=1M"])
    assert [(job.name, job.kind, job.budgets, job.needs) for job in study.jobs] == [
        ("search-searched-s0", "search", ("mac=100k", "mac=50k,flops=1M"), None),
        ("searched-mac-100k-s0-searched", "searched", ("mac=100k",), "search-searched-s0"),
        ("searched-mac-50k-flops-1M-s0-searched", "searched", ("mac=50k,flops=1M",), "search-searched-s0"),
    ]


def test_or_one_search_for_each_budget() -> None:
    study = study_of(budgets=["mac=100k", "mac=50k"], search_per_budget=True)
    searches = [job for job in study.jobs if job.kind == "search"]
    assert [job.budgets for job in searches] == [("mac=100k",), ("mac=50k",)]
    assert [job.needs for job in study.jobs if job.kind == "searched"] == [job.name for job in searches]


def test_variants_seeds_and_budgets_multiply_and_random_takes_the_first_variant() -> None:
    variants = {"plain": {"search": {"adaptive": "none"}}, "share": {"space": {"share": True}}}
    study = study_of(variants=variants, seeds=[3, 5], budgets=["mac=100k", "mac=50k"], random=4, measure=True)
    kinds = [job.kind for job in study.jobs]
    assert {kind: kinds.count(kind) for kind in kinds} == {"search": 4, "searched": 8, "random": 16}
    assert kinds[:4] == ["search"] * 4  # what others wait for comes first
    assert len({job.name for job in study.jobs}) == len(kinds)
    names = {job.name for job in study.jobs if job.kind == "search"}
    for job in study.jobs:
        assert job.config["seed"] == job.seed
        assert job.config["preset"] == "digits"
        if job.kind == "searched":
            assert job.needs in names
            assert job.measure
        if job.kind == "random":
            assert job.needs is None
            assert job.config["search"]["adaptive"] == "none"
            assert not job.config["space"]["share"]
        elif job.variant == "share":
            assert job.config["space"]["share"]
    assert {job.index for job in study.jobs if job.kind == "random"} == {0, 1, 2, 3}


def test_random_ones_of_the_searched_width_wait_for_it() -> None:
    study = study_of(variants={"a": {}, "b": {}}, random=2, random_same_width=1)
    baseline = [job for job in study.jobs if job.kind == "random"]
    assert [(job.variant, job.needs) for job in baseline] == [
        ("random", None), ("random", None), ("random, same width", "a-mac-100k-s0-searched"),
    ]  # fmt: skip
    assert [job.index for job in baseline] == [0, 1, 2]  # none is drawn twice


def test_a_grid_is_every_combination() -> None:
    grid = {"search.adaptive": ["none", "operation"], "search.epochs": [2, 4], "preset": ["fashion-mnist"]}
    study = study_of(grid=grid)
    searches = [job for job in study.jobs if job.kind == "search"]
    assert [job.variant for job in searches] == [
        f"adaptive={adaptive}, epochs={epochs}, preset=fashion-mnist"
        for adaptive in ("none", "operation")
        for epochs in (2, 4)
    ]
    assert [job.config["search"]["epochs"] for job in searches] == [2, 4, 2, 4]
    assert {job.config["data"]["dataset"] for job in searches} == {"fashion-mnist"}
    own = load_preset("fashion-mnist")["search"]["batch_size"]
    assert own != load_preset("digits")["search"]["batch_size"]
    assert {job.config["search"]["batch_size"] for job in searches} == {own}  # nothing of the digits preset


def test_changes_are_laid_over_the_base_and_under_the_variants(tmp_path: Path) -> None:
    base = {"search": {"epochs": 3}, "data": {"subset": 500}}
    path = write(tmp_path, base=base, variants={"long": {"search": {"epochs": 9}}})
    study = load_study(path, {"search": {"epochs": 5, "batch_size": 32}})
    config = study.jobs[0].config
    assert (config["search"]["epochs"], config["search"]["batch_size"], config["data"]["subset"]) == (
        9,
        32,
        500,
    )


@pytest.mark.parametrize("name", shipped_studies())
def test_the_shipped_studies_can_be_run(name: str) -> None:
    study = load_study(name, {})
    assert study.file.name == name
    assert study.file.description
    if name != "latency":  # needs a profile of this machine
        check_study(study)


def test_the_promised_studies_are_shipped() -> None:
    assert {"random-baseline", "table3", "fig5", "fig6", "latency"} <= set(shipped_studies())
    baseline = load_study("random-baseline", {}).file
    assert baseline.random * len(baseline.seeds) >= 8


# -- what is refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"budgetz": ["mac=1M"]}, r"unknown field 'budgetz'\. Did you mean budgets"),
        ({"name": "No Spaces"}, r"name: "),
        ({"budgets": []}, r"budgets: "),
        ({"budgets": ["macs=1M"]}, r"ambiguous"),
        ({"seeds": []}, r"seeds: "),
        ({"random": -1}, r"random: "),
        ({"base": {"preset": "digit"}}, r"unknown preset 'digit'\. Did you mean digits"),
        ({"base": {"search": {"epoch": 3}}}, r"unknown key 'search\.epoch'\. Did you mean epochs"),
        ({"variants": {"a": {"serch": {}}}}, r"variant a: unknown key 'serch'\. Did you mean search"),
        ({"variants": {"a": {"search": {"lr": -1}}}}, r"variant a: search\.lr"),
        ({"variants": {"random": {}}}, r"a variant cannot be called random"),
        ({"variants": {"random, same width": {}}}, r"a variant cannot be called random, same width"),
        ({"variants": {"a": {"seed": 3}}}, r"list it under seeds"),
        ({"base": {"budget": ["mac=1M"]}}, r"list it under budgets"),
        ({"grid": {"search.epoch": [1]}}, r"variant epoch=1: unknown key 'search\.epoch'"),
        ({"grid": {"search.epochs": []}}, r"search\.epochs has no values"),
        ({"grid": {"seed": [1]}}, r"list it under seeds"),
        ({"variants": {"a": {}}, "grid": {"search.epochs": [1]}}, r"variants or a grid, not both"),
        ({"seeds": [1, 1]}, r"make the same job search-searched-s1"),
        ({"variants": {"a b": {}, "a-b": {}}}, r"make the same job search-a-b-s0"),
        ({"random": 1000, "seeds": list(range(11))}, rf"more than {MAX_JOBS}"),
    ],
)
def test_what_is_wrong_is_named(fields: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        load_study(write(tmp_path, **fields), {})


def test_unknown_studies_and_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"unknown study 'fig7'\. Did you mean fig"):
        load_study("fig7", {})
    with pytest.raises(UserError, match="cannot read"):
        load_study(str(tmp_path / "none.yaml"), {})
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(UserError, match="must hold a mapping"):
        load_study(str(tmp_path / "list.yaml"), {})


def test_budgets_that_no_network_meets_are_refused_before_any_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, budgets=["mac=100k", "mac=10"], variants={"a": {}})
    with pytest.raises(SystemExit) as stop:
        main(["study", path, "--out", str(tmp_path / "out")])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert "study s, variant a: budget mac=10 is below the smallest network" in error
    assert "feasible: " in error
    assert not (tmp_path / "out").exists()


def test_a_device_to_be_measured_must_be_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = SimpleNamespace(find=lambda name: None)
    monkeypatch.setattr("dsonas_hw.device.detect.detect_devices", lambda: nothing)
    study = load_study(write(tmp_path, measure=True, base={"target": {"device": "1080ti"}}), {})
    with pytest.raises(UserError, match=r"variant searched: 1080ti is not here"):
        check_study(study)


def test_images_that_are_missing_are_said_once_before_any_job(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, base={"data": {"dataset": f"folder:{tmp_path}/none"}}, random=2)
    with pytest.raises(SystemExit) as stop:
        main(["study", path, "--out", str(tmp_path / "out")])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert "none is not a directory" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_list_and_dry_run_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["study", "--list", "--json"])
    listed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [entry["name"] for entry in listed] == shipped_studies()
    assert all(entry["num_jobs"] > 0 and entry["description"] for entry in listed)
    main(["study", write(tmp_path), "--dry-run", "--json"])
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [
        {"name": "search-searched-s0", "budgets": ["mac=100k"]},
        {"name": "searched-mac-100k-s0-searched", "budgets": ["mac=100k"]},
    ]
    main(["study", "codesign", "--devices", "v100", "--budget", "mac=50k", "--dry-run", "--json"])
    assert [json.loads(line)["name"] for line in capsys.readouterr().out.splitlines()] == [
        "pretrain-s0",
        "search-v100-s0",
        "derive-v100-mac-50k-s0",
    ]


def test_dry_run_lists_the_jobs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["study", write(tmp_path, random=2), "--dry-run", "--out", str(tmp_path / "out")])
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [
        "search-searched-s0",
        "searched-mac-100k-s0-searched",
        "random-mac-100k-s0-1",
        "random-mac-100k-s0-2",
    ]
    assert not (tmp_path / "out").exists()
