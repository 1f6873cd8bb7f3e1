"""Reading runs that are finished, that stopped anywhere, and that someone damaged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from synthetic_run import PRETRAIN_EPOCHS, RETRAIN_EPOCHS, SEARCH_EPOCHS, make_run

from dsonas_hw.errors import RunError, UserError
from dsonas_hw.files import read_json, read_json_lines, write_json
from dsonas_hw.report.run_load import load_run_data
from dsonas_hw.run_directory import RunDirectory


def test_a_finished_run_is_read_whole(share_run: RunDirectory) -> None:
    data = load_run_data(share_run)
    assert data.notes == ()
    assert len(data.stage("pretrain")) == PRETRAIN_EPOCHS
    assert len(data.stage("search")) == SEARCH_EPOCHS == len(data.lam)
    assert len(data.stage("retrain")) == RETRAIN_EPOCHS
    assert len(data.path) == len(read_json_lines(share_run.log_path("path.jsonl")))
    assert data.test_accuracy == read_json_lines(share_run.log_path("metrics.jsonl"))[-1]["test_accuracy"]
    assert data.validation is not None
    assert data.validation.is_measured
    assert [b.name for b in data.validation.budgets] == ["mac", "latency"]
    assert "torch" in data.versions


def test_the_chosen_point_is_the_one_that_was_derived(share_run: RunDirectory) -> None:
    data = load_run_data(share_run)
    assert data.chosen is not None
    assert data.architecture is not None
    assert data.chosen.blocks == data.architecture.blocks
    assert data.chosen.step == read_json(share_run.architecture_path)["derived"]["step"]


def test_derived_budgets_replace_those_of_the_search(small_run: RunDirectory) -> None:
    raw = read_json(small_run.architecture_path)
    raw["derived"]["limits"] = {"flops": 5e6}
    write_json(small_run.architecture_path, raw)
    assert [(b.name, b.limit) for b in load_run_data(small_run).budgets] == [("flops", 5e6)]


@pytest.mark.parametrize(
    ("until", "missing"),
    [
        ("config", ["derived", "architecture", "λ", "training", "validated"]),
        ("search", ["derived", "validated"]),
        ("derive", ["retrained", "validated"]),
        ("retrain", ["validated"]),
    ],
)
def test_an_unfinished_run_says_what_is_missing(tmp_path: Path, until: str, missing: list[str]) -> None:
    data = load_run_data(make_run(tmp_path / "run", stages=(1,), until=until))
    assert data.validation is None
    assert len(data.notes) == len(missing)
    for word in missing:
        assert any(word in note for note in data.notes), word


def test_not_a_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"not a run directory"):
        load_run_data(RunDirectory(tmp_path))


def test_a_damaged_configuration_is_refused(small_run: RunDirectory) -> None:
    small_run.config_path.write_text("preset: [")
    with pytest.raises(UserError, match=r"config\.yaml"):
        load_run_data(small_run)


DAMAGE = [
    ("architecture.json", "{"),
    ("architecture.json", '{"schema": 1, "width": "x", "space": {}, "blocks": 3}'),
    ("architecture.json", "[]"),
    ("validation.json", "[]"),
    ("validation.json", '{"budgets": [{"name": "nonsense", "limit": 1}], "holds": true}'),
    ("validation.json", '{"budgets": 7, "holds": true}'),
    ("validation.json", '{"budgets": [{"name": "mac", "limit": NaN}], "holds": true}'),
    ("path.jsonl", '{"step": 1}\n'),
    ("path.jsonl", '{"step": 1, "epoch": 1, "width": 4, "costs": [], "blocks": [{"output": ["9.sep3"]}]}\n'),
    ("path.jsonl", "{\n{}\n"),
    ("lambda.jsonl", '{"step": 1, "lam": [[1, 2]]}\n'),
    ("lambda.jsonl", '{"step": 1, "lam": "x"}\n'),
    ("lambda.jsonl", '{"step": Infinity, "lam": []}\n'),
    ("path.jsonl", '{"step": Infinity, "epoch": 1, "width": 4, "costs": {}, "blocks": []}\n'),
    ("metrics.jsonl", "5\n{}\n"),
]


@pytest.mark.parametrize(("name", "content"), DAMAGE)
def test_a_damaged_part_becomes_a_note(small_run: RunDirectory, name: str, content: str) -> None:
    (small_run.path / name).write_text(content)
    notes = load_run_data(small_run).notes
    assert len(notes) >= 1
    assert all(len(note) < 1000 for note in notes)


def test_a_stage_that_was_done_again_counts_once(small_run: RunDirectory) -> None:
    with small_run.log_path("metrics.jsonl").open("a") as file:
        for epoch in range(3):
            file.write(json.dumps({"stage": "retrain", "epoch": epoch, "loss": 1.0}) + "\n")
    assert [row.epoch for row in load_run_data(small_run).stage("retrain")] == [0, 1, 2]


def test_numbers_that_are_none_are_left_out(small_run: RunDirectory) -> None:
    row = {"stage": "retrain", "epoch": 99, "loss": "bad", "accuracy": True, "test_accuracy": 0.5}
    with small_run.log_path("metrics.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n" + '{"stage": "retrain", "epoch": 100, "loss": Infinity}\n')
    rows = load_run_data(small_run).stage("retrain")
    assert dict(rows[-2].values) == {"epoch": 99, "test_accuracy": 0.5}
    assert rows[-1].get("loss") is None
