"""The jobs that only a study with hand-made networks has: teacher, choose, fit, train."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dsonas_hw.config import DistillConfig, RunConfig, build_config
from dsonas_hw.files import read_json, read_json_lines, write_json
from dsonas_hw.search.derive import derive_architecture
from dsonas_hw.study.codesign_work import open_run
from dsonas_hw.study.engine import RESULT
from dsonas_hw.study.hand_made import RANDOM_SEARCH
from dsonas_hw.study.hand_made_fit import MAX_DRAWS, fit_network
from dsonas_hw.study.random_points import random_point
from dsonas_hw.task import prepare_task
from dsonas_hw.train.images import load_data, space_of_config

TRIED = "random-search.jsonl"


def _config_of(job: Mapping[str, Any]) -> RunConfig:
    return build_config({**job["config"], "budget": job["budgets"]})


# -- random search -----------------------------------------------------------------------------------------


def choose(path: Path, job: dict[str, Any]) -> dict[str, Any]:
    """Random search: train random networks briefly for as long as search and selection took; take the best.

    They are trained and scored as the candidates of a selection are. How many there are depends on the
    machine's speed, and is in the result; each of them does not.
    """
    from dsonas_hw.search.brief_training import BriefTraining
    from dsonas_hw.search.halving import unhalved_epochs
    from dsonas_hw.train.loop import Interrupted, StopSignal, resolve_train_device
    from dsonas_hw.train.trainer import StoppedError

    config = _config_of(job)
    task = prepare_task(config, space_of_config(config))
    search_seconds = float(read_json(path.parent / job["needs"] / RESULT)["search_seconds"])
    run, _ = open_run(path, config)
    epochs = unhalved_epochs(config.select)
    training = BriefTraining(
        run, config, load_data(config), epochs=epochs, device=resolve_train_device(config.train_on)
    )
    with run.lock(), StopSignal() as stop:
        log = run.path / TRIED
        tried = read_json_lines(log) if log.exists() else []
        while not tried or sum(row["seconds"] for row in tried) < search_seconds:
            started = time.monotonic()
            point = random_point(task, seed=f"{RANDOM_SEARCH}/{job['seed']}", index=len(tried))
            network = derive_architecture([point], task.budgets, task.target).architecture
            training.forget()  # the one before, or one that was stopped, whose time nobody counted
            try:
                accuracy = training.score(len(tried), network, epochs, stop=stop)
            except StoppedError:
                raise Interrupted("the study was interrupted; start it again to go on") from None
            row = {
                "architecture": network.to_json(), "accuracy": accuracy,
                "seconds": round(time.monotonic() - started, 3),
            }  # fmt: skip
            run.log(TRIED, row)
            tried.append(row)
        training.forget()
    ranked = sorted(tried, key=lambda row: -row["accuracy"])
    return {
        "architectures": [row["architecture"] for row in ranked[:MAX_DRAWS]],
        "accuracy": ranked[0]["accuracy"], "num_tried": len(tried),
        "seconds": sum(row["seconds"] for row in tried), "search_seconds": search_seconds,
    }  # fmt: skip


# -- training ----------------------------------------------------------------------------------------------


def train(path: Path, job: dict[str, Any]) -> dict[str, Any]:
    """Train a fitted network from scratch; one that no width fits is skipped."""
    from dsonas_hw.search.teacher import NETWORK_NAME, open_teacher
    from dsonas_hw.train.loop import resolve_train_device
    from dsonas_hw.train.retrain import retrain
    from dsonas_hw.train.trainable import trainable_from_json

    fitted = read_json(path.parent / job["needs"] / RESULT)
    if "reason" in fitted:
        return {"skipped": fitted["reason"]}
    config = _with_teacher(_config_of(job), path, job["teacher"])
    run, begun = open_run(path, config)
    network = trainable_from_json(fitted["network"], origin=job["needs"])
    dataset, device = load_data(config), resolve_train_device(config.train_on)
    is_hand_made = "family" in fitted["network"]
    with run.lock():
        write_json(run.path / NETWORK_NAME if is_hand_made else run.architecture_path, network.to_json())
        trained = retrain(
            run, config, network, dataset, device=device, resume=begun,
            teacher=open_teacher(run, config, dataset, device=device),
        )  # fmt: skip
    return {"test_error": trained.test_error, "seconds": trained.seconds, **fitted}


def teach(path: Path, job: dict[str, Any]) -> dict[str, Any]:
    """Train the hand-made teacher of a seed, which all trainings of that seed share."""
    from dsonas_hw.search.teacher import FOLDER, open_teacher
    from dsonas_hw.train.loop import resolve_train_device
    from dsonas_hw.train.retrain import RESULT_NAME

    config = build_config(job["config"])
    run, _ = open_run(path, config)
    with run.lock():
        open_teacher(run, config, load_data(config), device=resolve_train_device(config.train_on))
    trained = read_json(run.path / FOLDER / RESULT_NAME)
    return {"test_accuracy": trained["test_accuracy"], "seconds": trained["seconds"]}


def _with_teacher(config: RunConfig, path: Path, teacher: str | None) -> RunConfig:
    """The configuration that names the run in which the study's own teacher is."""
    if teacher is None:
        return config
    from dsonas_hw.search.teacher import FOLDER

    distill = config.retrain.distill
    run = path.parent / teacher / "run"
    if distill.teacher == "supernet":
        update: dict[str, Any] = {"run": run}
    else:
        update = {"teacher": "network", "run": run / FOLDER}
    changed = DistillConfig.model_validate({**distill.model_dump(), **update})
    return config.model_copy(update={"retrain": config.retrain.model_copy(update={"distill": changed})})


HAND_MADE_KINDS = {"teacher": teach, "choose": choose, "fit": fit_network, "fitted": train}
