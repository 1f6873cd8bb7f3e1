"""The kill test itself, with few kills; docs/faults.md tells of the long one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.kill_test import differences, half_written


def test_half_written_files_are_noticed_and_locks_are_not(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    for name in (".lock", "b1.jsonl.lock", "b1.jsonl", "checkpoints/search-000001.pt"):
        (tmp_path / name).touch()
    assert half_written(tmp_path) == []
    for name in ("checkpoints/.search-000002.pt.abcdefgh.part", "b1.jsonl.part"):
        (tmp_path / name).touch()
    assert half_written(tmp_path) == ["b1.jsonl.part", "checkpoints/.search-000002.pt.abcdefgh.part"]


def test_a_difference_is_named() -> None:
    assert differences({"weights": b"a", "log": [1]}, {"weights": b"b", "log": [1]}) == ["weights differs"]


@pytest.mark.slow
@pytest.mark.parametrize("command", ["search", "retrain"])
def test_killed_and_resumed_is_the_uninterrupted_run(command: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.kill_test", command, "--kills", "3", "--out", str(tmp_path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{command}: 3 kills, " in done.stdout
    assert "as the uninterrupted run" in done.stdout
