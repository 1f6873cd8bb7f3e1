"""The configuration that studies are tested with: seconds, on digits."""

from __future__ import annotations

from dsonas_hw.config import load_preset, overlay

TINY = overlay(
    load_preset("digits"),
    {
        "preset": "digits",
        "train_on": "cpu",
        "data": {"subset": 160, "test_subset": 40},
        "space": {"levels": 2, "stages": [1], "channels": 8},
        "search": {
            "pretrain_epochs": 1, "epochs": 12, "batch_size": 16, "path_images": 16, "path_interval": 1,
            "adaptive_cost": "latency", "gamma": 0.05, "lam_lr": 0.2, "checkpoint_every": 12,
        },
        "select": {"candidates": 3, "epochs": 1},
        "retrain": {"epochs": 1},
    },
)  # fmt: skip
