"""`profile --model`: a network from a file joins the table and is then predicted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dsonas_hw.architecture.architecture import complete_architecture
from dsonas_hw.architecture.onnx import model_bytes
from dsonas_hw.space.space import SearchSpace

SPACE = SearchSpace(levels=1, stages=(1,), channels=8, input_shape=(1, 12, 12))


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    paths = []
    for width in (8, 16, 24, 32):
        path = tmp_path / f"width{width}.onnx"
        path.write_bytes(model_bytes(complete_architecture(SPACE, width=width)))
        paths.append(str(path))
    return paths


def test_networks_of_files_make_a_table_that_predicts_them(
    files: list[str], tmp_path: Path, dsonas: Any
) -> None:
    models = [part for path in files for part in ("--model", path)]
    directory = ["--profiles", str(tmp_path / "profiles")]
    assert dsonas("profile", *models, *directory).code == 0
    table = next((tmp_path / "profiles").rglob("*.jsonl"))
    before = table.read_text()
    assert dsonas("profile", *models, *directory).code == 0
    assert table.read_text() == before, "timed already"
    result = dsonas("predict", *files, *directory, "--json")
    found = [json.loads(line) for line in result.out.splitlines()]
    assert [entry["unknown_kernels"] for entry in found] == [[]] * 4
    latencies = [entry["latency_ms"] for entry in found]
    assert latencies[-1] > latencies[0] > 0


def test_too_few_networks_and_wrong_company_are_one_line(
    files: list[str], tmp_path: Path, dsonas: Any
) -> None:
    directory = ["--profiles", str(tmp_path / "profiles")]
    result = dsonas("profile", "--model", files[0], *directory)
    assert result.code == 2
    assert "profile a preset" in result.err
    for more, why in (
        (["--device", "1080ti"], "--model is for what is measured"),
        (["--check", "3"], "--model is measured"),
        (["--mode", "estimate"], "local is this machine's CPU: it is measured"),
    ):
        result = dsonas("profile", "--model", files[0], *more, *directory)
        assert result.code == 2
        assert why in result.err
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(b"\x08\x07 nonsense")
    result = dsonas("profile", "--model", str(damaged), *directory)
    assert result.code == 2
    assert "damaged.onnx" in result.err
