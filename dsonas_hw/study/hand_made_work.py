"""The jobs that only a study with hand-made networks has: teacher, choose, fit, train."""

from __future__ import annotations

import time
from typing import Any

from dsonas_hw.config import DistillConfig, RunConfig
from dsonas_hw.files import read_json, read_json_lines, write_json
from dsonas_hw.search.derive import derive_architecture
from dsonas_hw.study.hand_made import RANDOM_SEARCH
from dsonas_hw.study.hand_made_fit import MAX_DRAWS, fit_network
from dsonas_hw.study.random_points import random_point
from dsonas_hw.study.work import Work

TRIED = "random-search.jsonl"


# -- random search -----------------------------------------------------------------------------------------


def choose(work: Work) -> dict[str, Any]:
    """Train random networks briefly for as long as search and selection took, and take the best.

    They are trained and scored as the candidates of a selection are. How many there are depends on the
    machine's speed, and is in the result; each of them does not.
    """
    from dsonas_hw.search.brief_training import BriefTraining
    from dsonas_hw.search.halving import unhalved_epochs
    from dsonas_hw.train.loop import Interrupted, StopSignal, resolve_train_device
    from dsonas_hw.train.trainer import StoppedError

    config, task = work.config, work.task
    search_seconds = float(work.needed_result["search_seconds"])
    run, _ = work.open_run()
    epochs = unhalved_epochs(config.select)
    training = BriefTraining(
        run, config, work.load_data(), epochs=epochs, device=resolve_train_device(config.train_on)
    )
    with run.lock(), StopSignal() as stop:
        log = run.path / TRIED
        tried = read_json_lines(log) if log.exists() else []
        while not tried or sum(row["seconds"] for row in tried) < search_seconds:
            started = time.monotonic()
            point = random_point(task, seed=f"{RANDOM_SEARCH}/{work.job.seed}", index=len(tried))
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


def train(work: Work) -> dict[str, Any]:
    """Train a fitted network from scratch; one that no width fits is skipped."""
    from dsonas_hw.search.teacher import NETWORK_NAME, open_teacher
    from dsonas_hw.train.loop import resolve_train_device
    from dsonas_hw.train.retrain import retrain
    from dsonas_hw.train.trainable import trainable_from_json

    fitted = work.needed_result
    if "reason" in fitted:
        return {"skipped": fitted["reason"]}
    config = _with_teacher(work)
    run, begun = work.open_run(config)
    network = trainable_from_json(fitted["network"], origin=str(work.job.needs))
    dataset, device = work.load_data(), resolve_train_device(config.train_on)
    is_hand_made = "family" in fitted["network"]
    with run.lock():
        write_json(run.path / NETWORK_NAME if is_hand_made else run.architecture_path, network.to_json())
        trained = retrain(
            run, config, network, dataset, device=device, resume=begun,
            teacher=open_teacher(run, config, dataset, device=device),
        )  # fmt: skip
    return {"test_error": trained.test_error, "seconds": trained.seconds, **fitted}


def teach(work: Work) -> dict[str, Any]:
    """Train the hand-made teacher of a seed, which all trainings of that seed share."""
    from dsonas_hw.search.teacher import FOLDER, open_teacher
    from dsonas_hw.train.loop import resolve_train_device
    from dsonas_hw.train.retrain import RESULT_NAME

    config = work.config
    run, _ = work.open_run()
    with run.lock():
        open_teacher(run, config, work.load_data(), device=resolve_train_device(config.train_on))
    trained = read_json(run.path / FOLDER / RESULT_NAME)
    return {"test_accuracy": trained["test_accuracy"], "seconds": trained["seconds"]}


def _with_teacher(work: Work) -> RunConfig:
    """The configuration that names the run in which the study's own teacher is."""
    config = work.config
    if work.job.teacher is None:
        return config
    from dsonas_hw.search.teacher import FOLDER

    distill = config.retrain.distill
    run = work.run_of(work.job.teacher).path
    if distill.teacher == "supernet":
        update: dict[str, Any] = {"run": run}
    else:
        update = {"teacher": "network", "run": run / FOLDER}
    changed = DistillConfig.model_validate({**distill.model_dump(), **update})
    return config.model_copy(update={"retrain": config.retrain.model_copy(update={"distill": changed})})


HAND_MADE_KINDS = {"teacher": teach, "choose": choose, "fit": fit_network, "fitted": train}
