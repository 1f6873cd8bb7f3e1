"""A co-design study's directory as the scheduler leaves it, made by arithmetic instead of training."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from dsonas_hw.architecture.costs import TargetCosts
from dsonas_hw.architecture.sample import random_architecture
from dsonas_hw.config import build_config, load_preset, overlay
from dsonas_hw.files import write_json
from dsonas_hw.space.space import SearchSpace
from dsonas_hw.study.codesign import Codesign, StudyDevice, save_codesign
from dsonas_hw.study.codesign_jobs import finished_derivations, network_jobs, search_jobs
from dsonas_hw.study.job_files import job_directory
from dsonas_hw.study.spec import Job
from dsonas_hw.train.identity import architecture_hash

DEVICES = {"1080ti": 9e-7, "v100": 5e-7, "local": 2e-6}
"""Name → ms per element of memory access."""
BUDGETS = ("latency=0.5ms", "latency=0.3ms")


def make_study(
    path: Path, *, until: str = "measure", share: bool = False, budgets: tuple[str, ...] = BUDGETS
) -> Path:
    """Write a study that got as far as `until`: plan, derive, train or measure."""
    rng = random.Random(0)
    config = overlay(load_preset("digits"), {"preset": "digits", "space": {"share": share}})
    space = SearchSpace(**build_config(config).space.model_dump(), input_shape=(1, 8, 8), num_classes=10)
    study = Codesign(
        devices=tuple(
            StudyDevice(
                name=name, title=f"The {name}", runtime="ort-cpu" if name == "local" else "tensorrt",
                source="measured" if name == "local" else "estimated", is_here=name == "local",
                mean_error=0.031 if name == "local" else None,
            )
            for name in DEVICES
        ),
        budgets=budgets,
        config=config,
    )  # fmt: skip
    save_codesign(path, study)
    if until == "plan":
        return path
    searches = search_jobs(study)
    for job in searches:
        _finish(path, job, _derived(job, space, rng) if job.kind == "derive" else {})
    if until == "derive":
        return path
    for job in network_jobs(study, finished_derivations(path, searches)):
        if job.kind == "train":
            _finish(path, job, {"test_accuracy": round(0.9 + 0.09 * rng.random(), 4), "seconds": 1.0})
        elif until == "measure":
            latency = 0.1 + 0.3 * rng.random()
            _finish(
                path, job,
                {"latency_ms": latency, "latency_ms_low": latency, "latency_ms_high": 1.04 * latency,
                 "energy_mj": None},
            )  # fmt: skip
    return path


def _derived(job: Job, space: SearchSpace, rng: random.Random) -> dict[str, Any]:
    architecture = random_architecture(space, rng).with_width(rng.choice((8, 12, 16, 20)))
    costs = TargetCosts().costs(architecture)
    return {
        "network": architecture_hash(architecture),
        "architecture": architecture.to_json(),
        "costs": costs.to_dict(),
        "predicted": {
            name: {
                "latency_ms": costs.mac * slope, "latency_ms_low": 0.8 * costs.mac * slope,
                "latency_ms_high": 1.25 * costs.mac * slope,
                "source": "measured" if name == "local" else "estimated",
            }
            for name, slope in DEVICES.items()
        },
    }  # fmt: skip


def _finish(path: Path, job: Job, result: dict[str, Any]) -> None:
    folder = job_directory(path, job.name)
    write_json(folder / "job.json", job.model_dump(mode="json"))
    write_json(folder / "result.json", result)
