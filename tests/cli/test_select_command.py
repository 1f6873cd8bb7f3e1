"""`select` between search and retrain, on a tiny search; and what a dry run tells of it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from dsonas_hw.files import read_json, read_json_lines

TINY = {
    "preset": "digits",
    "data": {"subset": 256, "test_subset": 50},
    "space": {"levels": 2, "stages": [1], "channels": 8, "operations": ["sep3", "max3"]},
    "search": {"pretrain_epochs": 0, "epochs": 4, "batch_size": 16, "path_interval": 3, "path_images": 32},
    "select": {"candidates": 3, "epochs": 1},
    "retrain": {"epochs": 2, "batch_size": 32},
}


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory, dsonas: Any) -> Path:
    folder = tmp_path_factory.mktemp("searched")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    options = ("--config", folder / "tiny.yaml", "--budget", "mac=10k", "--out", folder / "run")
    said = dsonas("search", *options)
    assert "γ by mac" in said.out
    assert f"next: dsonas-hw select {folder / 'run'}" in said.out
    return folder / "run"


def test_it_takes_a_candidate_that_holds_and_says_what_is_next(
    searched: Path, tmp_path: Path, dsonas: Any
) -> None:
    run = shutil.copytree(searched, tmp_path / "run")
    said = dsonas("select", run)
    assert said.code == 0
    assert f"next: dsonas-hw retrain {run}" in said.out
    rows = read_json_lines(run / "selection.jsonl")
    (chosen,) = (row for row in rows if row["kind"] == "chosen")
    candidate = next(r for r in rows if r["kind"] == "candidate" and r["index"] == chosen["index"])
    architecture = read_json(run / "architecture.json")
    assert architecture["width"] == candidate["width"]
    assert architecture["derived"]["ratio"] == candidate["use"] <= 1.0
    again = dsonas("select", run, "--json").json  # nothing is trained twice
    assert again["width"] == candidate["width"]
    assert read_json_lines(run / "selection.jsonl") == rows
    dsonas("report", run)
    assert "Candidates" in (run / "report.html").read_text()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"select": {"candidates": 0, "epochs": 1}}, "select.candidates=0"),
        ({"budget": []}, "no budget"),
        ({"budget": ["mac=1.5k"]}, "no architecture of this path meets mac=1.5k"),
    ],
)
def test_what_cannot_be_selected_is_one_line(
    searched: Path, tmp_path: Path, dsonas: Any, change: dict[str, Any], words: str
) -> None:
    run = shutil.copytree(searched, tmp_path / "run")
    config = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump({**config, **change}))
    assert words in dsonas("select", run).refused()


def test_a_dry_run_tells_what_the_trainings_cost(dsonas: Any) -> None:
    command = ("search", "--preset", "fashion-mnist", "--budget", "mac=500k", "--dry-run")
    found = dsonas(*command, "--json").json["selection"]
    assert found["rounds"] == [{"num_networks": n, "epochs": e} for n, e in ((8, 1), (4, 2), (2, 4))]
    # (8·1 + 4·1 + 2·2) epochs on half of the images, beside 10 on all of them.
    assert found["relative_to_retraining"] == 16 / 2 / 10
    assert "80% of a retraining's images" in dsonas(*command).out
    assert dsonas(*command, "--set", "select.candidates=0", "--json").json["selection"] is None
