"""A search that starts from a shared pretraining is the search that pretrains by itself, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from dsonas_hw.config import RunConfig, build_config, load_preset, overlay
from dsonas_hw.errors import RunError
from dsonas_hw.files import read_json_lines
from dsonas_hw.run_directory import RunDirectory
from dsonas_hw.search.choose import pretrain_supernet, search_path
from dsonas_hw.search.pretraining import pretraining_config
from dsonas_hw.task import prepare_task
from dsonas_hw.train.images import load_data, space_of_config

TINY = {
    "train_on": "cpu",
    "data": {"subset": 128, "test_subset": 32},
    "space": {"levels": 2, "stages": [1], "channels": 4},
    # Nothing that pretraining depends on is at its default.
    "search": {
        "pretrain_epochs": 2,
        "epochs": 2,
        "batch_size": 32,
        "path_images": 16,
        "path_interval": 1,
        "lr": 0.04,
        "pretrain_lr": 0.03,
        "momentum": 0.8,
        "weight_decay": 0.01,
        "grad_clip": 0.05,
        "free_bn_scale": True,
    },
}


def tiny(**changes: Any) -> RunConfig:
    return build_config(overlay(overlay(load_preset("digits"), TINY), changes))


def pretrain(path: Path, config: RunConfig) -> RunDirectory:
    config = pretraining_config(config)
    run = RunDirectory(path)
    run.create(config)
    pretrain_supernet(run, prepare_task(config, space_of_config(config)), load_data(config), resume=False)
    return run


def search(path: Path, config: RunConfig, pretrained: RunDirectory | None = None) -> RunDirectory:
    run = RunDirectory(path)
    run.create(config)
    task = prepare_task(config, space_of_config(config))
    search_path(run, task, load_data(config), resume=False, pretrained=pretrained)
    return run


def without_times(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


def same(a: Any, b: Any) -> bool:
    """Whether two checkpoints are equal to the last bit, times and file sizes apart."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        ignored = {"elapsed_s", "log_sizes", "seconds"}
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a if k not in ignored)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


@pytest.mark.parametrize("epochs", [2, 0])
def test_a_shared_pretraining_changes_nothing(tmp_path: Path, epochs: int) -> None:
    settings = {"pretrain_epochs": epochs}
    pretrained = pretrain(tmp_path / "pretrained", tiny(search=settings, budget=["mac=30k"]))
    # Another budget, another γ, another target, other steps: none of it is there yet in pretraining.
    config = tiny(budget=["mac=20k"], search={**settings, "gamma": 0.02, "w_steps": 2, "adaptive": "block"})
    alone = search(tmp_path / "alone", config)
    shared = search(tmp_path / "shared", config, pretrained)
    for name in ("path.jsonl", "lambda.jsonl", "metrics.jsonl"):
        rows = without_times(read_json_lines(shared.log_path(name)))
        assert rows == without_times(read_json_lines(alone.log_path(name)))
        assert rows
    ends = [run.load_checkpoint("search")[0] for run in (alone, shared)]
    assert ends[0] is not None
    assert same(ends[0], ends[1])


def test_another_pretraining_is_refused(tmp_path: Path) -> None:
    pretrained = pretrain(tmp_path / "pretrained", tiny())
    for other in (tiny(seed=1), tiny(search={"lr": 0.01}), tiny(space={"channels": 8})):
        with pytest.raises(RunError, match="pretrained with another configuration"):
            search(tmp_path / f"{other.seed}-{other.search.lr}-{other.space.channels}", other, pretrained)


def test_an_unfinished_pretraining_is_refused(tmp_path: Path) -> None:
    pretrained = pretrain(tmp_path / "pretrained", tiny())
    pretrained.list_checkpoints("search")[-1].unlink()
    with pytest.raises(RunError, match="has not ended"):
        search(tmp_path / "run", tiny(), pretrained)
