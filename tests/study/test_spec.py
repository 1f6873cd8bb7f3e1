"""A study file stands for its jobs; what cannot be is refused by name before anything runs."""

from __future__ import annotations

import json
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from dsonas_hw.architecture.costs import TargetCosts
from dsonas_hw.architecture.fit import fit_width
from dsonas_hw.architecture.sample import random_architecture
from dsonas_hw.budget import parse_budgets
from dsonas_hw.cli.main import main
from dsonas_hw.config import build_config, load_preset, overlay
from dsonas_hw.errors import UserError
from dsonas_hw.search.candidates import WELL_FILLED
from dsonas_hw.study.check import check_study
from dsonas_hw.study.expand import MAX_JOBS, expand
from dsonas_hw.study.load import load_study, shipped_studies
from dsonas_hw.study.spec import Study, StudyFile
from dsonas_hw.train.images import space_of_config


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


def test_variants_seeds_and_budgets_multiply_and_each_space_has_its_random_ones() -> None:
    variants = {"plain": {"search": {"adaptive": "none"}}, "share": {"space": {"share": True}}}
    study = study_of(variants=variants, seeds=[3, 5], budgets=["mac=100k", "mac=50k"], random=4, measure=True)
    kinds = [job.kind for job in study.jobs]
    assert {kind: kinds.count(kind) for kind in kinds} == {"search": 4, "searched": 8, "random": 32}
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
            assert job.variant in ("random plain", "random share")
            assert job.config["space"]["share"] == (job.variant == "random share")
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


def test_variants_of_one_space_share_their_random_ones() -> None:
    variants = {"a": {}, "b": {"search": {"epochs": 3}}, "c": {"space": {"share": True}}}
    study = study_of(variants=variants, random=1, random_same_width=1)
    assert {variant: (b.random, b.same_width) for variant, b in study.baselines.items()} == {
        "a": ("random a", "random a, same width"),
        "b": ("random a", "random a, same width"),
        "c": ("random c", "random c, same width"),
    }
    needed = {job.variant: job.needs for job in study.jobs if job.kind == "random"}
    assert needed == {
        "random a": None, "random c": None,
        "random a, same width": "a-mac-100k-s0-searched", "random c, same width": "c-mac-100k-s0-searched",
    }  # fmt: skip


def test_a_block_found_elsewhere_is_carried_into_the_base() -> None:
    elsewhere = {"preset": "fashion-mnist", "space": {"levels": 2}}
    study = study_of(
        base={"space": {"levels": 3}}, seeds=[0, 4], transfer={"base": elsewhere, "budget": "mac=600k"}
    )
    search, carried = (
        [job for job in study.jobs if job.variant == "transferred" and job.kind == kind]
        for kind in ("search", "transferred")
    )
    assert [job.name for job in search] == ["search-transferred-s0", "search-transferred-s4"]
    assert [(job.name, job.needs) for job in carried] == [
        ("transferred-mac-100k-s0", "search-transferred-s0"),
        ("transferred-mac-100k-s4", "search-transferred-s4"),
    ]
    assert {job.config["preset"] for job in search} == {"fashion-mnist"}
    assert {job.budgets for job in search} == {("mac=600k",)}
    for job in carried:  # the base's network, of blocks like those of the search
        assert job.config["data"]["dataset"] == "digits"
        assert (job.config["space"]["levels"], job.config["space"]["share"]) == (2, True)


# -- what the command line lays over a study --------------------------------------------------------------


def test_preset_budgets_and_seeds_take_the_place_of_the_files(tmp_path: Path) -> None:
    path = write(tmp_path, base={"search": {"epochs": 3}}, seeds=[7])
    study = load_study(path, {}, preset="fashion-mnist", budgets=["mac=600k", "params=30k"], seeds=[0, 1])
    assert (study.file.budgets, study.file.seeds) == (["mac=600k", "params=30k"], [0, 1])
    config = study.jobs[0].config
    assert (config["preset"], config["data"]["dataset"]) == ("fashion-mnist", "fashion-mnist")
    assert config["search"]["epochs"] == 3  # what the study itself asks for stays
    assert load_study(path, {"preset": "fashion-mnist"}, budgets=["mac=600k"]).jobs[0].config["preset"] == (
        "fashion-mnist"
    )
    assert load_study(path, {}, preset="digits").file.budgets == ["mac=100k"]  # its own: as it is


def test_a_file_may_have_fields_for_other_presets(tmp_path: Path) -> None:
    special = {"budgets": ["mac=600k"], "random": 1, "base": {"space": {"width_step": 4}}}
    path = write(tmp_path, base={"search": {"epochs": 3}}, for_preset={"fashion-mnist": special})
    study = load_study(path, {}, preset="fashion-mnist")
    assert (study.file.budgets, study.file.random) == (["mac=600k"], 1)
    config = study.jobs[0].config
    assert (config["preset"], config["space"]["width_step"]) == ("fashion-mnist", 4)
    assert config["search"]["epochs"] != 3
    assert load_study(path, {}, preset="fashion-mnist", budgets=["mac=500k"]).file.budgets == ["mac=500k"]


@pytest.mark.parametrize(
    ("fields", "options", "message"),
    [
        ({}, {"preset": "fashion-mnist"}, r"budgets of study s are for digits, not for fashion-mnist; give"),
        ({}, {"preset": "cifar"}, r"unknown preset 'cifar'\. Did you mean"),
        ({"grid": {"preset": ["digits"]}}, {"preset": "digits"}, r"varies the preset itself"),
        (
            {"transfer": {"base": {"space": {"share": True}}, "budget": "mac=50k"}},
            {"preset": "fashion-mnist", "budgets": ["mac=600k"]},
            r"transfers into digits only, not into fashion-mnist",
        ),
        (
            {"transfer": {"base": {"space": {"share": False}}, "budget": "mac=50k"}},
            {},
            r"transfer needs a search of one block",
        ),
        ({"transfer": {"base": {}}}, {}, r"transfer\.budget: Field required"),
        ({"for_preset": {"digits": {"budgetz": []}}}, {"preset": "digits"}, r"unknown field 'budgetz'"),
    ],
)
def test_presets_that_do_not_fit_a_study_are_refused(
    fields: dict[str, Any], options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        load_study(write(tmp_path, **fields), {}, **options)


def test_settings_below_transfer_are_of_the_search_elsewhere(tmp_path: Path) -> None:
    transfer = {"base": {"space": {"share": True}}, "budget": "mac=50k"}
    study = load_study(write(tmp_path, transfer=transfer), {"transfer": {"search": {"epochs": 2}}})
    epochs = {job.variant: job.config["search"]["epochs"] for job in study.jobs if job.kind == "search"}
    assert epochs["transferred"] == 2 != epochs["searched"]
    with pytest.raises(UserError, match="transfers nothing"):
        load_study(write(tmp_path), {"transfer": {"search": {"epochs": 2}}})


PAPER = [
    ("table1", "cifar10", "params=3M"), ("table3", "cifar10", "params=3M"), ("fig5", "cifar10", "params=3M"),
    ("fig6", "cifar10", "mac=80M"), ("random-baseline", "cifar10", "params=3M"),
    ("random-baseline", "cifar10-full", "params=3M"), ("random-baseline", "imagenet", "flops=600M"),
    ("transfer", "imagenet", "flops=600M"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "preset", "budget"), PAPER)
def test_the_papers_studies_in_the_papers_setting(name: str, preset: str, budget: str) -> None:
    study = load_study(name, {}, preset=preset)
    assert budget in study.file.budgets
    check_study(study)
    configs = [job.config for job in study.jobs if job.variant != "transferred"]
    assert {config["preset"] for config in configs} == {preset}
    # Random networks have widths in fine steps there: in steps of 4 no dense one would fill 95 %.
    assert {config["space"]["width_step"] for config in configs} <= {1, 2}
    for config in configs:  # beside it, only what the study varies is not the preset's
        own = load_preset(preset)
        assert {k: v for k, v in config["retrain"].items() if v != own["retrain"][k]} == {}
        assert not config["search"]["gamma_control"]


def test_dense_random_networks_fill_the_papers_budget_too() -> None:
    """The more edges, the narrower at 3M params, and the larger a step of the width in the cost."""

    def share_accepted(width_step: int) -> float:
        config = build_config(overlay(load_preset("cifar10"), {"space": {"width_step": width_step}}))
        space, target = space_of_config(config), TargetCosts()
        rng = random.Random(0)
        drawn = [random_architecture(space, rng) for _ in range(40)]
        dense = [a for a in drawn if a.blocks[0].num_edges > 96]
        assert len(dense) >= 5
        fits = [fit_width(a, parse_budgets(["params=3M"]), target) for a in dense]
        return sum(fit is not None and fit.ratio >= WELL_FILLED for fit in fits) / len(fits)

    assert share_accepted(1) > 0.7
    assert share_accepted(4) < 0.3


def test_table_3_has_the_papers_eight_rows() -> None:
    rows = set()
    for job in load_study("table3", {}, preset="cifar10").jobs:
        if job.kind == "search":
            config = build_config(job.config)
            ratio = f"{config.search.w_steps}:1" if config.data.split else "-"
            assert not config.data.split or config.data.split_ratio == (config.search.w_steps, 1)
            space = "share" if config.space.share else "full"
            rows.add((space, config.data.split, config.search.pretrain_epochs > 0, ratio))
    assert rows == {
        (space, *row)
        for space in ("full", "share")
        for row in ((True, False, "1:1"), (True, True, "1:1"), (True, True, "4:1"), (False, True, "-"))
    }


def test_adaptive_flops_are_studied_where_they_can_balance_blocks() -> None:
    for preset in ("cifar10-small", "cifar10"):
        jobs = load_study("fig5", {}, preset=preset).jobs
        assert not any(job.config["space"]["share"] for job in jobs)


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
    if name not in ("latency", "hand-made"):  # which need a profile of this machine
        check_study(study)


def test_the_promised_studies_are_shipped() -> None:
    assert {"random-baseline", "table3", "fig5", "fig6", "latency", "hand-made"} <= set(shipped_studies())
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
        ({"variants": {"random": {}}}, r"random is the name of a baseline"),
        ({"variants": {"random, same width": {}}}, r"random, same width is the name of a baseline"),
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
    monkeypatch.setattr("dsonas_hw.runtime.detect.detect_devices", lambda: nothing)
    study = load_study(write(tmp_path, measure=True, base={"target": {"device": "1080ti"}}), {})
    with pytest.raises(UserError, match=r"variant searched: 1080ti is not on this machine"):
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
        # 1,438 images, 719 for W: 11 batches of 64 in an epoch, 6 of pretraining and 16 of search; 22 of 30.
        {
            "name": "search-searched-s0",
            "budgets": ["mac=100k"],
            "w_steps": 242,
            "lam_steps": 176,
            "images": 26752,
        },
        {
            "name": "searched-mac-100k-s0-searched",
            "budgets": ["mac=100k"],
            "w_steps": 660,
            "lam_steps": 0,
            "images": 42240,
        },
    ]
    main(["study", "codesign", "--devices", "v100", "--budget", "mac=50k", "--dry-run", "--json"])
    assert [json.loads(line)["name"] for line in capsys.readouterr().out.splitlines()] == [
        "pretrain-s0",
        "search-v100-s0",
        "evaluate-s0",
        "derive-v100-mac-50k-s0",
    ]


def test_dry_run_lists_the_jobs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["study", write(tmp_path, random=2), "--dry-run", "--out", str(tmp_path / "out")])
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [
        "search-searched-s0",
        "searched-mac-100k-s0-searched",
        "random-mac-100k-s0-1",
        "random-mac-100k-s0-2",
        "in",
    ]
    assert not (tmp_path / "out").exists()


def test_what_measures_runs_alone(tmp_path: Path) -> None:
    """Another job on the same GPU would be in the timing."""
    for measure in (True, False):
        jobs = load_study(write(tmp_path, measure=measure, random=2), {}).jobs
        assert {job.exclusive for job in jobs if job.kind != "search"} == {measure}
        assert not any(job.exclusive for job in jobs if job.kind == "search")
