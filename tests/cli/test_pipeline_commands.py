"""The whole job on a tiny space, as commands: what they write and print, and what they say to bad files."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

TINY = {
    "preset": "digits",
    "data": {"subset": 256, "test_subset": 50},
    "space": {"levels": 2, "stages": [1, 1], "channels": 8, "operations": ["sep3", "max3"]},
    "search": {"pretrain_epochs": 0, "epochs": 4, "batch_size": 16, "path_interval": 3, "path_images": 32},
    "select": {"candidates": 2, "epochs": 1},
    "retrain": {"epochs": 1, "batch_size": 32},
}
FILES = {"config.yaml", "metrics.jsonl", "path.jsonl", "lambda.jsonl", "selection.jsonl", "checkpoints",
         "architecture.json",
         "weights.npz", "preprocessing.json", "confusion.csv", "retrain.json", "model.onnx", "infer.py",
         "validation.json", "report.html"}  # fmt: skip


def write_config(folder: Path) -> Path:
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY))
    return path


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, dsonas: Any) -> Iterator[Path]:
    """A data directory in which `run` measures this machine on eight networks instead of forty."""
    from dsonas_hw.profile import profile_space as profiling

    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DSONAS_HW_HOME", str(folder))
        patch.setenv("OMP_NUM_THREADS", "1")
        few = partial(profiling.profile_space, num_networks=8, num_checked=2)
        patch.setattr(profiling, "profile_space", few)
        yield folder


@pytest.fixture(scope="module")
def finished(home: Path, tmp_path_factory: pytest.TempPathFactory, dsonas: Any) -> Path:
    """A run that went through every stage, and a config file beside it."""
    folder = tmp_path_factory.mktemp("work")
    config, run = write_config(folder), folder / "run"
    result = dsonas("run", "--config", config, "--budget", "mac=20k,latency=1us", "--out", run)
    assert (
        "latency=0.001ms is below the smallest network of this space" in result.err
    )  # told by a new profile
    assert (result.code, run.exists()) == (2, False)
    costs = dsonas("run", "--config", config, "--dry-run", "--json").json["costs"]
    limit_ms = 0.9 * costs["largest network"]["latency_ms"]
    budget = f"mac=20k,latency={limit_ms:.6f}ms"
    result = dsonas("run", "--config", config, "--budget", budget, "--out", run, "--json")
    assert result.code == 0, result.err
    assert result.json["run"] == str(run)
    return run


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished run, to be spoiled."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def test_run_ends_with_a_measured_network_that_holds_its_budgets(finished: Path) -> None:
    assert {path.name for path in finished.iterdir() if path.name != ".lock"} == FILES
    validation = json.loads((finished / "validation.json").read_text())
    assert (validation["holds"], validation["source"]) == (True, "measured")
    assert [budget["name"] for budget in validation["budgets"]] == ["mac", "latency"]
    for budget in validation["budgets"]:
        assert (budget["holds"], budget["verdict"]) == (True, "holds")
        assert 0 < budget["measured"] <= (budget["high"] or budget["measured"]) <= budget["limit"]


def test_a_finished_run_can_be_resumed_and_does_nothing_twice(finished: Path, dsonas: Any) -> None:
    names = ("path.jsonl", "weights.npz", "metrics.jsonl", "validation.json")  # not measured again either
    kept = {name: (finished / name).read_bytes() for name in names}
    result = dsonas("run", "--resume", finished)
    assert result.code == 0, result.err
    assert "every budget holds, measured on local (ort-cpu, fp32, batch 1)" in result.out
    assert {name: (finished / name).read_bytes() for name in kept} == kept


def test_another_budget_is_served_without_another_search(finished: Path, tmp_path: Path, dsonas: Any) -> None:
    out = tmp_path / "smaller"
    result = dsonas("derive", finished, "--budget", "mac=14k", "--out", out, "--json")
    assert result.code == 0, result.err
    assert 0 < result.json["predicted"]["mac"] <= 14_000
    assert (out / "path.jsonl").read_bytes() == (finished / "path.jsonl").read_bytes()
    text = dsonas("derive", out).out
    assert "of 14k" in text
    assert f"next: dsonas-hw retrain {out}" in text


def test_predict_reads_the_exported_network(finished: Path, dsonas: Any) -> None:
    validation = json.loads((finished / "validation.json").read_text())
    result = dsonas("predict", finished / "model.onnx", "--json")
    assert result.code == 0, result.err
    assert result.json["source"] == "measured"
    assert result.json["unknown_kernels"] == []
    assert result.json["mac"] == validation["costs"]["mac"]
    absent = dsonas("predict", finished / "model.onnx", "--device", "1080ti", "--json")
    assert (absent.code, absent.json["source"]) == (3, "estimated")


def test_trained_weights_are_not_written_over_by_derive(copy: Path, dsonas: Any) -> None:
    assert "--out" in dsonas("derive", copy, "--budget", "mac=14k").refused()


@pytest.mark.parametrize(
    ("spoil", "command", "message"),
    [
        ({"config.yaml": "preset: ["}, ["retrain"], "config.yaml"),
        ({"config.yaml": None}, ["derive"], "is not a run directory"),
        ({"path.jsonl": "{}\n{}\n"}, ["derive"], "path.jsonl, line 1"),
        ({"path.jsonl": None}, ["derive"], "holds no search yet"),
        ({"architecture.json": '{"blocks": 1}'}, ["export"], "architecture.json"),
        ({"architecture.json": None}, ["retrain"], "has no architecture yet"),
        ({"weights.npz": "junk"}, ["export"], "weights.npz"),
        ({"model.onnx": "junk"}, ["validate"], "model.onnx"),
        ({"model.onnx": None}, ["validate"], "dsonas-hw export"),
        ({"checkpoints/*.pt": "junk"}, ["retrain", "--resume"], "no checkpoint in"),
    ],
)
def test_a_damaged_or_missing_file_is_one_line(
    spoil: dict[str, str | None], command: list[str], message: str, copy: Path, dsonas: Any
) -> None:
    for pattern, text in spoil.items():
        for path in list(copy.glob(pattern)):
            path.unlink()
            if text is not None:
                path.write_text(text)
    name, *options = command
    assert message in dsonas(name, copy, *options).refused()


def test_a_damaged_table_is_one_line(
    finished: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dsonas: Any
) -> None:
    spoiled = tmp_path / "home"
    shutil.copytree(home, spoiled)
    monkeypatch.setenv("DSONAS_HW_HOME", str(spoiled))
    (table,) = spoiled.rglob("*.jsonl")
    for text in ("junk\n", table.read_text().replace('"fingerprint": "', '"fingerprint": "0', 1)):
        table.write_text(text)
        for command in (["predict", finished / "model.onnx"], ["derive", finished]):
            assert str(table) in dsonas(*command).refused()


@pytest.mark.parametrize("command", ["run", "search"])
def test_a_run_of_another_configuration_is_refused(command: str, finished: Path, dsonas: Any) -> None:
    line = dsonas(command, "--resume", finished, "--set", "search.epochs=5").refused()
    assert "belongs to another configuration (differs in search.epochs)" in line
    line = dsonas(command, "--out", finished).refused()
    assert "holds a run already; choose another --out, or go on there: dsonas-hw run --resume" in line
    line = dsonas(command, "--resume", finished, "--out", finished.parent / "else").refused()
    assert "leave --out away" in line


def test_ctrl_c_leaves_a_search_that_goes_on(home: Path, tmp_path: Path, dsonas: Any) -> None:
    config, run = write_config(tmp_path), tmp_path / "run"
    long = ["--set", "search.epochs=24", "--budget", "mac=20k"]
    arguments = ["run", "--config", str(config), *long, "--out", str(run)]
    with subprocess.Popen(
        [sys.executable, "-m", "dsonas_hw", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        deadline = time.monotonic() + 120
        while not list(run.glob("checkpoints/search-*.pt")) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (130, ""), err
    last = err.splitlines()[-1]
    assert last.endswith(f"; go on with: dsonas-hw run --resume {run}"), err
    assert "Traceback" not in err
    before = (run / "metrics.jsonl").read_bytes()
    # The rest in this process; the few epochs that are done are kept.
    text = (run / "config.yaml").read_text()
    assert yaml.safe_load(text)["search"]["epochs"] == 24
    result = dsonas("search", "--resume", run)
    assert result.code == 0, result.err
    assert (run / "metrics.jsonl").read_bytes().startswith(before)
    assert os.path.exists(run / "architecture.json")


@pytest.mark.parametrize("command", ["profile", "run"])
def test_ctrl_c_while_measuring_says_how_to_go_on(
    command: str, empty_folder: Path, monkeypatch: pytest.MonkeyPatch, dsonas: Any
) -> None:
    from dsonas_hw.profile import generic_profile
    from dsonas_hw.profile import profile_space as profiling

    def stop(*_: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(profiling, "profile_space", stop)
    monkeypatch.setattr(generic_profile, "profile_generic", stop)
    result = dsonas(command)
    assert (result.code, result.out) == (130, "")
    assert result.err.splitlines()[-1].startswith("interrupted; ")
    assert "the same command" in result.err
    assert not (empty_folder / "runs").exists()
