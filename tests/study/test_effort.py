"""What `--dry-run` says a job costs is what the loops would do."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dsonas_hw.architecture.architecture import complete_architecture
from dsonas_hw.config import build_config, load_preset, overlay
from dsonas_hw.search.effort import Effort
from dsonas_hw.search.parts import SearchParts
from dsonas_hw.study.effort import count_effort
from dsonas_hw.study.spec import Job, JobKind
from dsonas_hw.train.images import load_data, space_of_config
from dsonas_hw.train.trainer import Trainer

CPU = torch.device("cpu")


def job(kind: JobKind, preset: str = "digits", *, needs: str | None = None, **changes: Any) -> Job:
    config = overlay(load_preset(preset), changes)
    return Job(name="j", kind=kind, variant="v", budgets=(), seed=0, config=config, needs=needs)


def test_the_papers_search_and_retraining_by_hand() -> None:
    # 25,000 images for W are 195 batches of 128; 120 epochs of pretraining, 120 of search, as many λ steps.
    steps = 120 * 195
    assert count_effort(job("search", "cifar10")) == Effort(
        w_steps=2 * steps, lam_steps=steps, images=3 * steps * 128
    )
    assert count_effort(job("pretrain", "cifar10")) == Effort(w_steps=steps, images=steps * 128)
    assert count_effort(job("search", "cifar10", needs="pretrain")) == Effort(
        w_steps=steps, lam_steps=steps, images=2 * steps * 128
    )
    # 630 epochs of 50,000 // 128 = 390 batches.
    assert count_effort(job("searched", "cifar10")) == Effort(w_steps=630 * 390, images=630 * 390 * 128)
    assert str(count_effort(job("pretrain", "cifar10"))) == "23,400 steps on W, 2,995,200 images"
    assert count_effort(job("derive")) == count_effort(job("measure")) == Effort()


@pytest.mark.parametrize(
    "data",
    [{}, {"subset": 400}, {"subset": 400, "split_ratio": [4, 1]}, {"split": False}],
)
def test_counts_are_those_of_the_loops(data: dict[str, Any]) -> None:
    counted = job("search", data=data, search={"w_steps": 2, "epochs": 3, "pretrain_epochs": 5})
    config = build_config(counted.config)
    dataset = load_data(config)
    space = space_of_config(config)
    parts = SearchParts(config, space, dataset, CPU)
    batches = len(parts.w_batches)
    effort = count_effort(counted)
    assert effort.lam_steps == 3 * (batches // 2)
    assert effort.w_steps == 5 * batches + 2 * effort.lam_steps
    trainer = Trainer(complete_architecture(space), dataset, config.retrain, seed=0, device=CPU)
    counted = job("random", data=data)
    assert count_effort(counted).w_steps == config.retrain.epochs * len(trainer.batches)


def test_a_studys_brief_trainings_by_hand() -> None:
    # Of 400 images 200 are for W, 3 batches of 64; 8, 4 and 2 networks for 1, 1 and 2 more epochs: 16 in all.
    changes = {
        "data": {"subset": 400},
        "select": {"candidates": 8, "epochs": 1},
        "retrain": {"batch_size": 64},
    }
    fitted = job("fit", **changes).model_copy(update={"network": "searched"})
    assert count_effort(fitted) == Effort(w_steps=16 * 3, images=16 * 3 * 64)
    assert count_effort(fitted.model_copy(update={"network": "random"})) == Effort()
    search = count_effort(job("search", **changes))
    assert count_effort(job("choose", **changes)) == search + count_effort(fitted)
    # 8 candidates of each of 2 devices and 3 budgets, for two epochs each.
    shared = job("evaluate", **changes).model_copy(
        update={"devices": ("a", "b"), "budgets": ("mac=1", "mac=2", "mac=3")}
    )
    assert count_effort(shared).w_steps == 8 * 6 * 2 * 3
