"""The landing table: one small search, and what is counted as landed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import landing
from dsonas_hw.files import write_json


def row(unfitted: float, fitted: float) -> dict[str, Any]:
    return {
        "preset": "digits", "fraction": 0.4, "budget": "mac=100", "seed": 0, "unfitted": unfitted,
        "fitted": fitted, "width": 16, "num_points": 3, "seconds": 1.0,
    }  # fmt: skip


def test_one_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short = {"data": {"subset": 300}, "search": {"pretrain_epochs": 0, "epochs": 3, "batch_size": 32}}
    monkeypatch.setitem(landing.DATASETS, "digits", short)
    case = landing.Case(preset="digits", fraction=0.6, seed=1)
    found = landing.search(case, tmp_path, None)
    assert (found["preset"], found["fraction"], found["seed"]) == ("digits", 0.6, 1)
    assert 0 < found["fitted"] <= 1
    assert 0 < found["unfitted"] < found["start"]
    assert (
        landing.search(case, tmp_path, None)["unfitted"] == found["unfitted"]
    )  # goes on: nothing left to do


@pytest.mark.parametrize(
    ("unfitted", "fitted", "landed"),
    [(0.9, 0.95, True), (1.1, 1.0, True), (0.89, 1.0, False), (1.11, 1.0, False), (1.0, 0.94, False)],
)
def test_what_has_landed(unfitted: float, fitted: float, landed: bool) -> None:
    assert landing.has_landed(row(unfitted, fitted)) == landed


@pytest.mark.parametrize(("fitted", "code"), [(0.97, 0), (0.5, 1)])
def test_what_is_done_is_not_searched_again(
    fitted: float, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_json(tmp_path / "digits-0.4-s0.json", row(1.0, fitted))
    assert landing.main(["--quick", "--out", str(tmp_path), "--workers", "1"]) == code
    shown = capsys.readouterr().out
    assert f"{1 - code} of 1 searches landed." in shown
    assert (tmp_path / "landing.md").read_text() == shown
