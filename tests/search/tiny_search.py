"""A search small enough to be run a dozen times: digits, two blocks of two levels, four channels."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dsonas_hw.architecture.costs import TargetCosts
from dsonas_hw.config import DataConfig, RunConfig, build_config, load_preset, overlay
from dsonas_hw.files import read_json_lines
from dsonas_hw.run_directory import RunDirectory
from dsonas_hw.search.loop import Search, SearchResult
from dsonas_hw.search.path import PathPoint, load_path
from dsonas_hw.space.space import SearchSpace
from dsonas_hw.train.data import Dataset, load_dataset
from dsonas_hw.train.images import build_space
from dsonas_hw.train.loop import Progress

TINY: dict[str, Any] = {
    "data": {"subset": 192, "test_subset": 50},
    "space": {"levels": 2, "stages": [1, 1], "channels": 4, "share": False},
    "search": {
        "pretrain_epochs": 1, "epochs": 6, "batch_size": 16, "lr": 0.05, "lam_lr": 0.05, "gamma": 1e-2,
        "prune_every": 2, "path_interval": 3, "path_images": 64,
    },
    "budget": ["mac=16k"],
}  # fmt: skip
STEPS_PER_EPOCH = 6  # 96 images of the W half, 16 a batch


def tiny_config(**changes: Any) -> RunConfig:
    return build_config(overlay(overlay(load_preset("digits"), TINY), changes))


def tiny_space(config: RunConfig) -> SearchSpace:
    return build_space(config, (1, 8, 8), 10)


class TinyRun:
    """A run directory and the searches in it."""

    def __init__(self, path: Path, config: RunConfig, dataset: Dataset | None = None) -> None:
        self.config = config
        self.space = tiny_space(config)
        self.dataset = dataset or load_dataset(DataConfig(dataset="digits", subset=192, test_subset=50))
        self.directory = RunDirectory(path)
        self.directory.create(config)
        self.search: Search | None = None

    def run(self, *, resume: bool = False, progress: Progress | None = None) -> SearchResult:
        self.search = Search(
            self.directory, self.config, self.space, self.dataset, TargetCosts(),
            budgets=self.config.budgets, progress=progress,
        )  # fmt: skip
        return self.search.run(resume=resume)

    def path(self) -> list[PathPoint]:
        assert self.search is not None
        space_json = self.search.steering.architecture.to_json()
        return load_path(self.directory, space_json["space"])

    def metrics(self) -> list[dict[str, Any]]:
        """Rows of metrics.jsonl without what a clock wrote."""
        rows = read_json_lines(self.directory.log_path("metrics.jsonl"))
        return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]

    def log(self, name: str) -> bytes:
        return self.directory.log_path(name).read_bytes()


class KilledError(Exception):
    """Stands for a process that ends without a word."""


def at_step(number: int, act: Callable[[], None]) -> Progress:
    """A progress callback that acts once, after so many steps of this process."""
    calls = 0

    def progress(done: int, total: int, text: str) -> None:
        nonlocal calls
        calls += 1
        if calls == number:
            act()

    return progress


def press_ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def kill() -> None:
    raise KilledError
