"""`kill -9` at any moment of a retraining: the resumed run is the uninterrupted one, and no file is half."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from dsonas_hw.architecture.architecture import Architecture, complete_architecture
from dsonas_hw.config import build_config, load_preset, overlay
from dsonas_hw.files import read_json_lines, write_json
from dsonas_hw.run_directory import RunDirectory
from dsonas_hw.space.space import SearchSpace
from dsonas_hw.train.weights import load_weights

NUM_KILLS = 6
NUM_EPOCHS = 40
COMMAND = [sys.executable, "-m", "dsonas_hw", "retrain"]


def new_run(path: Path) -> tuple[RunDirectory, Architecture]:
    changes = {
        "data": {"subset": 300, "test_subset": 100},
        "train_on": "cpu",
        "space": {"levels": 1, "stages": [1, 1], "channels": 8},
        "search": {"pretrain_epochs": 0, "epochs": 2},
        "retrain": {"epochs": NUM_EPOCHS, "batch_size": 32, "aux_weight": 0.4, "drop_path": 0.2},
    }
    config = build_config(overlay(load_preset("digits"), changes))
    run = RunDirectory(path)
    run.create(config)
    run.log("metrics.jsonl", {"stage": "search", "epoch": 1})
    space = SearchSpace(**config.space.model_dump(), input_shape=(1, 8, 8), num_classes=10)
    architecture = complete_architecture(space)
    write_json(run.architecture_path, architecture.to_json())
    return run, architecture


def num_rows(run: RunDirectory) -> int:
    log = run.log_path("metrics.jsonl")
    return log.read_bytes().count(b"\n") if log.exists() else 0


def kill_somewhere(run: RunDirectory, arguments: list[str], rng: random.Random) -> None:
    """Start a retraining and kill it soon after it has got a little further."""
    before = num_rows(run)
    process = subprocess.Popen([*COMMAND, *arguments], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    while process.poll() is None and num_rows(run) < before + 1:
        time.sleep(0.01)
    time.sleep(rng.uniform(0.0, 0.5))
    process.kill()
    _, stderr = process.communicate()
    assert process.returncode == -signal.SIGKILL, f"it ended before it could be killed: {stderr.decode()}"


@pytest.mark.slow
def test_kill_9_at_random_moments(tmp_path: Path) -> None:
    whole, architecture = new_run(tmp_path / "whole")
    subprocess.run([*COMMAND, str(whole.path)], check=True, capture_output=True)

    run, _ = new_run(tmp_path / "killed")
    rng = random.Random(0)
    for kill in range(NUM_KILLS):
        kill_somewhere(run, [str(run.path), *(["--resume"] if kill else [])], rng)
    subprocess.run([*COMMAND, str(run.path), "--resume"], check=True, capture_output=True)

    weights, expected = (load_weights(r.path / "weights.npz", architecture) for r in (run, whole))
    assert all(np.array_equal(weights[name], expected[name]) for name in expected)
    rows, expected_rows = (
        [{**row, "seconds": 0} for row in read_json_lines(r.log_path("metrics.jsonl"))] for r in (run, whole)
    )
    assert rows == expected_rows
