"""A whole study on digits, with real workers, one of which is killed on the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from dsonas_hw.architecture.architecture import architecture_from_json
from dsonas_hw.architecture.costs import TargetCosts
from dsonas_hw.cli.main import main
from dsonas_hw.run_directory import RunDirectory
from dsonas_hw.search.choose import derive
from dsonas_hw.study import scheduler
from dsonas_hw.study.load import load_study
from dsonas_hw.task import prepare_task
from dsonas_hw.train.images import space_of_config

STUDY: dict[str, Any] = {
    "name": "tiny",
    "base": {
        "preset": "digits",
        "data": {"subset": 512, "test_subset": 100},
        "space": {"levels": 2, "stages": [1], "channels": 8, "width_step": 1},
        "search": {"pretrain_epochs": 1, "epochs": 2, "batch_size": 32, "gamma": 0.1, "path_images": 16},
        "retrain": {"epochs": 1, "batch_size": 64},
    },
    "budgets": ["mac=60k", "mac=30k"],
    "random": 2,
    "random_same_width": 1,
}


class KillFirstWorker:
    """Stands for `subprocess.Popen`: knows the first worker, and can kill it."""

    def __init__(self) -> None:
        self.first: subprocess.Popen[bytes] | None = None
        self.num_started = 0
        self.popen = subprocess.Popen

    def __call__(self, command: Any, *args: Any, **options: Any) -> subprocess.Popen[bytes]:
        process = self.popen(command, *args, **options)
        if Path(command[-1]).parent.name == "jobs":  # libraries start processes of their own
            self.first = self.first or process
            self.num_started += 1
        return process


@pytest.fixture
def study_file(tmp_path: Path) -> str:
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(STUDY))
    return str(path)


def test_a_study_from_end_to_end(
    study_file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    workers = KillFirstWorker()
    monkeypatch.setattr(subprocess, "Popen", workers)
    out = tmp_path / "out"
    metrics = out / "jobs" / "search-searched-s0" / "run" / "metrics.jsonl"
    checkpoints = metrics.parent / "checkpoints"
    at_kill: list[str] = []
    run_loop = scheduler.time.sleep

    def sleep_and_kill(seconds: float) -> None:
        assert workers.first is not None
        if not at_kill and checkpoints.is_dir() and any(checkpoints.glob("*.pt")):
            os.kill(workers.first.pid, signal.SIGKILL)
            at_kill.extend(metrics.read_text().splitlines(keepends=True))
        run_loop(min(seconds, 0.02))

    monkeypatch.setattr(scheduler.time, "sleep", sleep_and_kill)
    main(["study", study_file, "--workers", "1", "--out", str(out), "--json"])
    answer = json.loads(capsys.readouterr().out)
    assert answer["failed"] == []

    # Killed, it went on from its checkpoint: the first epoch was not done again.
    assert workers.first is not None
    assert workers.first.returncode == -signal.SIGKILL
    assert workers.num_started == 1 + 9  # 1 search, 2 searched, 2 × 2 random, 2 of the same width
    assert metrics.read_text().startswith(at_kill[0])
    epochs = [(row["stage"], row["epoch"]) for row in map(json.loads, metrics.read_text().splitlines())]
    assert epochs == [("pretrain", 0), ("search", 1), ("search", 2)]

    # One row for each budget and variant, and every network holds its budget.
    rows = {(row["budget"], row["variant"]): row for row in answer["rows"]}
    assert set(rows) == {
        (b, v) for b in ("mac=60k", "mac=30k") for v in ("searched", "random", "random, same width")
    }
    assert [rows[b, "random"]["num"] for b in STUDY["budgets"]] == [2, 2]
    study = load_study(study_file, {})
    widths: dict[tuple[str, str], set[int]] = {}
    for entry in json.loads((out / "results.json").read_text()):
        limit = {"mac=60k": 60_000, "mac=30k": 30_000}[entry["budget"]]
        assert entry["costs"]["mac"] <= limit
        if entry["variant"] != "searched":
            assert entry["ratio"] >= 0.95
        widths.setdefault((entry["budget"], entry["variant"]), set()).add(entry["width"])
        assert entry["ratio"] == pytest.approx(entry["costs"]["mac"] / limit)
        assert 0 < entry["test_error"] < 1
        run = out / "jobs" / entry["job"] / "run"
        architecture = architecture_from_json(json.loads((run / "architecture.json").read_text()))
        assert TargetCosts().costs(architecture).mac == entry["costs"]["mac"]
        empty = [block.is_identity for block in architecture.blocks]
        assert [flops == 0 for flops in entry["block_flops"]] == empty
        assert 0 <= sum(entry["block_flops"]) < entry["costs"]["flops"]
    for budget in STUDY["budgets"]:
        assert widths[budget, "random, same width"] == widths[budget, "searched"]
    drawn = {
        json.dumps(json.loads((out / "jobs" / job.name / "result.json").read_text())["architecture"])
        for job in study.jobs
        if job.kind == "random"
    }
    assert len(drawn) == 6  # other architectures, not the same again
    assert (out / "table.md").read_text().count("\n") == 2 + 6

    # Done is done: another start runs nothing and tells the same.
    main(["study", study_file, "--workers", "1", "--out", str(out), "--json"])
    assert workers.num_started == 10
    assert json.loads(capsys.readouterr().out) == answer
    # Another configuration is another study.
    with pytest.raises(SystemExit) as stop:
        main(["study", study_file, "--set", "retrain.epochs=2", "--out", str(out)])
    assert stop.value.code == 2
    assert "has another configuration; choose another --out" in capsys.readouterr().err


def test_a_mistake_in_one_variant_leaves_the_others_their_results(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # A part of 256 images holds no batch of 300; only the search finds that out.
    broken = {"search": {"batch_size": 300}}
    path = tmp_path / "mixed.yaml"
    base = {**STUDY["base"], "search": {**STUDY["base"]["search"], "epochs": 1}}
    study = {**STUDY, "base": base, "random": 0, "budgets": ["mac=60k"]}
    path.write_text(yaml.safe_dump({**study, "variants": {"broken": broken, "sound": {}}}))
    with pytest.raises(SystemExit) as stop:
        main(["study", str(path), "--workers", "1", "--out", str(tmp_path / "out")])
    assert stop.value.code == 1
    shown = capsys.readouterr()
    assert "fewer than one batch of 300" in shown.err
    assert "failed: broken-mac-60k-s0-searched: needs search-broken-s0, which failed" in shown.err
    assert "| mac=60k | sound | 1 |" in shown.out


def test_a_block_found_elsewhere_is_every_block_of_the_network(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = {**STUDY["base"], "search": {**STUDY["base"]["search"], "epochs": 2}}
    elsewhere = {**small, "space": {**small["space"], "share": True, "stages": [1, 1]}}
    study = {
        "name": "carried", "base": {**small, "space": {**small["space"], "levels": 1, "stages": [2]}},
        "transfer": {"base": elsewhere, "budget": "mac=60k"}, "budgets": ["mac=80k"],
    }  # fmt: skip
    path, out = tmp_path / "carried.yaml", tmp_path / "out"
    path.write_text(json.dumps(study))  # YAML too, without aliases
    main(["study", str(path), "--workers", "1", "--out", str(out), "--json"])
    answer = json.loads(capsys.readouterr().out)
    assert answer["failed"] == []
    assert {row["variant"] for row in answer["rows"]} == {"searched", "transferred"}
    (entry,) = [e for e in json.loads((out / "results.json").read_text()) if e["variant"] == "transferred"]
    assert 0.5 < entry["ratio"] <= 1
    source = RunDirectory(out / "jobs" / "search-transferred-s0" / "run")
    config = source.load_config()
    task = prepare_task(config, space_of_config(config))
    found = derive(source, task, task.budgets).architecture
    network = json.loads((out / "jobs" / entry["job"] / "run" / "architecture.json").read_text())
    carried = architecture_from_json(network).blocks
    assert carried == (found.blocks[0],) * 2
    assert len(entry["architecture"]) == 1  # one block for all
