"""The presets named after the paper hold its numbers: each is pinned here with the section that states it."""

from __future__ import annotations

import re
from importlib import resources
from typing import Any

import pytest

from dsonas_hw.config import build_config, load_preset, overlay

RELEASE, OURS, ADDITION = "release", "ours", "an addition"
"""Sources of numbers that the paper does not state."""

CIFAR10: dict[str, tuple[Any, str]] = {
    "data.dataset": ("cifar10", "4.2"),
    "data.split": (True, "3.3"),
    "data.split_ratio": ([1, 1], "4.2"),
    "data.pad_value": ("mean", "4.2"),
    "space.levels": (4, "4.1"),
    "space.operations": (["sep3", "sep5", "avg3", "max3"], "3.2"),
    "space.stages": ([8, 8, 8], "4.2"),
    "space.channels": (48, RELEASE),
    "space.stem": ("cifar", RELEASE),
    "space.share": (True, "3.2"),
    "space.width_step": (4, OURS),
    "search.pretrain_epochs": (120, "4.2"),
    "search.epochs": (120, "4.2"),
    "search.batch_size": (128, "4.2"),
    "search.lr": (0.1, "4.2"),
    "search.momentum": (0.9, "4.1"),
    "search.weight_decay": (3e-4, "4.2"),
    "search.lam_lr": (0.1, "4.2"),
    "search.lam_momentum": (0.9, "4.1"),
    "search.gamma": (1e-3, RELEASE),
    "search.gamma_control": (False, "3.2"),
    "search.path_strength": (False, "an addition of this project"),
    "search.adaptive": ("block", "4.2"),
    "search.adaptive_cost": ("flops", "4.2"),
    "search.w_steps": (1, "4.4.2"),
    "search.grad_clip": (2.0, ADDITION),
    "search.prune_every": (5, RELEASE),
    "select.candidates": (0, "4.2"),
    "retrain.epochs": (630, "4.2"),
    "retrain.batch_size": (128, "4.2"),
    "retrain.schedule": ("cosine-restarts", "4.2"),
    "retrain.lr": (0.05, "4.2"),
    "retrain.min_lr": (0.001, "4.2"),
    "retrain.restart_epochs": (10, "4.2"),
    "retrain.restart_factor": (2, "4.2"),
    "retrain.momentum": (0.9, "4.1"),
    "retrain.weight_decay": (3e-4, "4.2"),
    "retrain.init": ("he", "4.1"),
    "retrain.dropout": (0.4, "4.2"),  # "probability 0.6", which the release keeps: docs/method.md
    "retrain.drop_path": (0.5, "4.2"),
    "retrain.cutout": (16, "4.2"),
    "retrain.aux_weight": (0.4, "4.2"),
    "retrain.label_smoothing": (0.0, "4.2"),
    "retrain.grad_clip": (5.0, ADDITION),
    "retrain.width": (48, "no rule"),
}
IMAGENET: dict[str, tuple[Any, str]] = {
    "data.dataset": ("imagenet", "4.3"),
    "data.image_size": (224, RELEASE),
    "data.split": (True, "3.3"),
    "data.split_ratio": ([4, 1], "4.3"),
    "data.num_workers": (8, OURS),
    "space.levels": (4, "4.1"),
    "space.operations": (["sep3", "sep5", "avg3", "max3"], "3.2"),
    "space.stages": ([2, 2, 13, 6], "4.3"),
    "space.channels": (28, RELEASE),
    "space.stem": ("imagenet", RELEASE),
    "space.share": (True, "3.2"),
    "space.width_step": (4, OURS),
    "search.pretrain_epochs": (30, "4.3"),
    "search.epochs": (30, "4.3"),
    "search.batch_size": (256, "4.3"),
    "search.lr": (0.1, "4.3"),
    "search.momentum": (0.9, "4.1"),
    "search.weight_decay": (4e-5, "4.3"),
    "search.lam_lr": (0.1, "4.3"),
    "search.lam_momentum": (0.9, "4.1"),
    "search.gamma": (1e-2, RELEASE),
    "search.gamma_control": (False, "3.2"),
    "search.path_strength": (False, "an addition of this project"),
    "search.adaptive": ("none", RELEASE),
    "search.w_steps": (4, "4.4.2"),
    "search.grad_clip": (2.0, ADDITION),
    "search.prune_every": (1, RELEASE),
    "select.candidates": (0, "4.3"),
    "retrain.epochs": (240, "4.3"),
    "retrain.batch_size": (1024, "4.3"),
    "retrain.schedule": ("linear", "4.3"),
    "retrain.lr": (0.5, "4.3"),
    "retrain.min_lr": (0.0, "4.3"),
    "retrain.warmup_epochs": (0.0, "4.3"),
    "retrain.momentum": (0.9, "4.1"),
    "retrain.weight_decay": (4e-5, "4.3"),
    "retrain.init": ("he", "4.1"),
    "retrain.dropout": (0.0, "4.3"),
    "retrain.drop_path": (0.0, "4.3"),
    "retrain.cutout": (0, "4.3"),
    "retrain.aux_weight": (0.4, "4.3"),
    "retrain.label_smoothing": (0.1, "4.3"),
    "retrain.grad_clip": (None, "neither the paper nor the release"),
    "retrain.width": (36, RELEASE),
}
#: What the configuration of the authors' code sets; where the code has no such number, what it does.
RELEASE_NUMBERS: dict[str, Any] = {
    "data.dataset": "cifar10", "data.split": True, "data.split_ratio": [1, 1], "data.pad_value": 127,
    "space.levels": 4, "space.operations": ["sep3", "sep5", "avg3", "max3"], "space.stages": [8, 8, 8],
    "space.channels": 48, "space.stem": "cifar", "space.share": False, "space.first_level_lambda": False,
    "space.stage_shortcut": True, "space.width_step": 4,
    "search.pretrain_epochs": 120, "search.pretrain_lr": 0.05, "search.epochs": 120, "search.batch_size": 128,
    "search.lr": 0.1, "search.momentum": 0.9, "search.weight_decay": 1e-4, "search.free_bn_scale": True,
    "search.lam_lr": 0.1, "search.lam_momentum": 0.9, "search.gamma": 1e-3, "search.gamma_control": False,
    "search.path_strength": False, "search.adaptive": "none", "search.w_steps": 1,
    "search.grad_clip": 2.0, "search.prune_every": 5,
    "select.candidates": 0,
    "retrain.epochs": 630, "retrain.batch_size": 128, "retrain.schedule": "cosine-restarts",
    "retrain.lr": 0.05, "retrain.min_lr": 1e-4, "retrain.restart_epochs": 10, "retrain.restart_factor": 2,
    "retrain.momentum": 0.9, "retrain.weight_decay": 3e-4, "retrain.init": "he", "retrain.dropout": 0.4,
    "retrain.drop_path": 0.5, "retrain.cutout": 16, "retrain.aux_weight": 0.4, "retrain.label_smoothing": 0.0,
    "retrain.grad_clip": None, "retrain.width": 48,
}  # fmt: skip


def flat(preset: str) -> dict[str, Any]:
    """Every number that the preset states, by its dotted name."""
    data = load_preset(preset)
    del data["preset"]
    return {f"{section}.{key}": value for section, fields in data.items() for key, value in fields.items()}


def comments(preset: str) -> dict[str, str]:
    """What the preset's file says beside each number."""
    found: dict[str, str] = {}
    section = ""
    text = (resources.files("dsonas_hw") / "presets" / f"{preset}.yaml").read_text("utf-8")
    for line in text.splitlines():
        if top := re.fullmatch(r"(\w+):", line):
            section = top[1]
        elif entry := re.fullmatch(r"  (\w+): [^#]*(?:# (.*))?", line):
            found[f"{section}.{entry[1]}"] = entry[2] or ""
    return found


@pytest.mark.parametrize(("preset", "table"), [("cifar10", CIFAR10), ("imagenet", IMAGENET)])
def test_every_number_of_a_paper_preset_is_the_papers(preset: str, table: dict[str, tuple[Any, str]]) -> None:
    assert flat(preset) == {name: value for name, (value, _) in table.items()}
    said = comments(preset)
    silent = {"data.split", "data.dataset", "search.adaptive_cost"}  # said on the line before or after
    for name, (_, source) in table.items():
        if name not in silent:
            assert source in said[name], f"{name} is said to be of {said[name]!r}, not of {source}"
    build_config(load_preset(preset))


def test_six_periods_of_restarts_are_the_papers_epochs() -> None:
    # 10 + 20 + … + 320 = 630 epochs (4.2): six whole periods of the restarts.
    retrain = build_config(load_preset("cifar10")).retrain
    assert sum(retrain.restart_epochs * retrain.restart_factor**n for n in range(6)) == retrain.epochs


def test_the_full_space_differs_in_its_space_alone() -> None:
    changed = overlay(load_preset("cifar10"), {"preset": "cifar10-full", "space": {"share": False}})
    assert load_preset("cifar10-full") == changed


def test_the_release_is_the_release() -> None:
    assert flat("release") == RELEASE_NUMBERS


@pytest.mark.parametrize("name", ["cifar10", "imagenet"])
def test_own_choices_have_a_preset_of_their_own_that_retrains_as_the_paper(name: str) -> None:
    paper, own = (build_config(load_preset(preset)) for preset in (name, f"{name}-steered"))
    assert own.search.gamma_control
    assert (own.search.adaptive, own.search.adaptive_cost) == ("operation", None)
    papers = paper.retrain.model_dump()
    different = {k for k, v in own.retrain.model_dump().items() if v != papers[k]}
    assert different <= {"width", "warmup_epochs", "warmup_lr", "grad_clip"}
    assert own.space == paper.space
