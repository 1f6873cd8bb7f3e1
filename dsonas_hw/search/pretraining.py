"""Pretraining once for many searches: of a configuration, only this part decides the pretrained supernet.

Weights are trained on all edges, with every λ at one: neither the device nor the budget matters yet. So
searches that differ in them alone may start from the same supernet.
"""

from __future__ import annotations

from typing import Any

from dsonas_hw.config import DeviceConfig, RetrainConfig, RunConfig, SearchConfig, SelectConfig
from dsonas_hw.errors import RunError
from dsonas_hw.files import read_json_lines
from dsonas_hw.run_directory import RunDirectory

_DECISIVE = (
    "pretrain_epochs", "batch_size", "lr", "pretrain_lr", "momentum", "weight_decay", "free_bn_scale",
    "grad_clip", "amp", "checkpoint_activations",
)  # fmt: skip
"""Fields of `SearchConfig` that pretraining depends on."""


def pretraining_config(config: RunConfig) -> RunConfig:
    """The configuration of the pretraining: what it does not depend on is left at its default."""
    search = SearchConfig(adaptive="none", **{name: getattr(config.search, name) for name in _DECISIVE})
    return config.model_copy(
        update={
            "budget": (), "search": search, "select": SelectConfig(), "retrain": RetrainConfig(),
            "target": DeviceConfig(),
        }
    )  # fmt: skip


def load_pretrained(pretrained: RunDirectory, config: RunConfig) -> dict[str, Any]:
    """The state that pretraining ended with.

    Raises:
        RunError: it was not pretrained as `config` asks, has not ended, or cannot be read.
    """
    if pretrained.load_config() != pretraining_config(config):
        raise RunError(f"{pretrained.path} was pretrained with another configuration; pretrain again")
    state, warnings = pretrained.load_checkpoint("search")
    if warnings:
        raise RunError(warnings[0].partition(";")[0])
    if state is None or state.get("epoch") != config.search.pretrain_epochs:
        raise RunError(f"the pretraining in {pretrained.path} has not ended; finish it first")
    return state


def copy_pretraining_log(pretrained: RunDirectory, run: RunDirectory) -> None:
    """The epochs of the pretraining, as if this run had logged them."""
    for row in read_json_lines(pretrained.log_path("metrics.jsonl")):
        run.log("metrics.jsonl", row)
