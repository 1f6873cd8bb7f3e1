"""The path on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from paths import SPACE_JSON, falling_path

from dsonas_hw.config import build_config, load_preset
from dsonas_hw.errors import RunError, UserError
from dsonas_hw.run_directory import RunDirectory
from dsonas_hw.search.path import load_path, path_point_from_json


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    run = RunDirectory(tmp_path / "run")
    run.create(build_config(load_preset("digits")))
    return run


def test_points_come_back_from_the_log(run: RunDirectory) -> None:
    points = falling_path()
    for one in points:
        run.log("path.jsonl", one.to_json())
    assert load_path(run, SPACE_JSON) == points


def test_a_line_holds_no_space(run: RunDirectory) -> None:
    assert set(falling_path()[0].to_json()) == {
        "step", "epoch", "gamma", "width", "accuracy", "costs", "blocks",
    }  # fmt: skip


def test_without_a_search_there_is_no_path(run: RunDirectory) -> None:
    with pytest.raises(RunError, match=r"holds no search yet; run: dsonas-hw search"):
        load_path(run, SPACE_JSON)


@pytest.mark.parametrize(
    "change",
    [
        {"step": "x"},
        {"gamma": None},
        {"accuracy": "good"},
        {"costs": {}},
        {"costs": None},
        {"costs": {"flops": 1}},
        {"blocks": [{}]},
        {"blocks": [{"1.sep9": ["input"]}] * 2},
        {"width": -1},
        {"width": 10**9},
    ],
)
def test_damaged_lines_are_named(run: RunDirectory, change: dict[str, Any]) -> None:
    good = falling_path()[3].to_json()
    with open(run.log_path("path.jsonl"), "w") as file:
        file.write(json.dumps(good) + "\n" + json.dumps({**good, **change}) + "\n")
    with pytest.raises(UserError, match=r"path\.jsonl, line 2 is not"):
        load_path(run, SPACE_JSON)


def test_a_missing_field_is_named() -> None:
    row = falling_path()[0].to_json()
    del row["epoch"]
    with pytest.raises(RunError, match="line 7 is not a line of a search path: 'epoch'"):
        path_point_from_json(row, SPACE_JSON, origin="line 7")
