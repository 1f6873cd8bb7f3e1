"""Retraining with a teacher: found, trained first, refused; and resumed bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dsonas_hw.architecture.architecture import complete_architecture
from dsonas_hw.config import RunConfig, build_config, load_preset, overlay
from dsonas_hw.errors import RunError, UserError
from dsonas_hw.run_directory import RunDirectory
from dsonas_hw.search.choose import search_path
from dsonas_hw.search.teacher import check_teacher, open_teacher
from dsonas_hw.task import prepare_task
from dsonas_hw.train.data import Dataset
from dsonas_hw.train.images import load_data, space_of_config
from dsonas_hw.train.retrain import retrain
from dsonas_hw.train.weights import load_weights

CPU = torch.device("cpu")
TINY = {
    "train_on": "cpu",
    "data": {"subset": 128, "test_subset": 32},
    "space": {"levels": 2, "stages": [1], "channels": 4, "width_step": 1},
    "search": {"pretrain_epochs": 1, "epochs": 1, "batch_size": 32, "path_images": 16},
    "retrain": {"epochs": 2, "batch_size": 32},
}


def tiny(**distill: Any) -> RunConfig:
    changes = overlay(TINY, {"retrain": {"distill": distill}})
    return build_config(overlay(load_preset("digits"), changes))


def new_run(path: Path, config: RunConfig) -> RunDirectory:
    run = RunDirectory(path)
    run.create(config)
    return run


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return load_data(tiny())


def test_no_teacher_is_asked_for(tmp_path: Path, dataset: Dataset) -> None:
    config = tiny()
    assert open_teacher(new_run(tmp_path / "run", config), config, dataset, device=CPU) is None


def test_a_family_is_trained_first_and_read_again(tmp_path: Path, dataset: Dataset) -> None:
    config = tiny(teacher="resnet", width=0.5)
    run = new_run(tmp_path / "run", config)
    teacher = open_teacher(run, config, dataset, device=CPU)
    assert teacher is not None
    assert not teacher.training
    assert not any(p.requires_grad for p in teacher.parameters())
    log = (run.path / "teacher" / "metrics.jsonl").read_bytes()
    again = open_teacher(run, config, dataset, device=CPU)
    assert again is not None
    assert (run.path / "teacher" / "metrics.jsonl").read_bytes() == log  # not trained twice
    images = torch.randn(4, 1, 8, 8)
    assert torch.equal(teacher(images), again(images))
    wider = open_teacher(run, tiny(teacher="resnet", width=1.0), dataset, device=CPU)
    assert wider is not None
    assert sum(p.numel() for p in wider.parameters()) > sum(p.numel() for p in teacher.parameters())
    teacher = open_teacher(run, config, dataset, device=CPU)  # the first one again, trained anew
    assert teacher is not None
    assert torch.equal(teacher(images), again(images))
    # Another run learns from it as a trained network.
    other = tiny(teacher="network", run=str(run.path / "teacher"))
    third = open_teacher(new_run(tmp_path / "other", other), other, dataset, device=CPU)
    assert third is not None
    assert torch.equal(third(images), teacher(images))


def test_with_a_teacher_a_resumed_retraining_is_the_uninterrupted_one(
    tmp_path: Path, dataset: Dataset
) -> None:
    config = tiny(teacher="resnet", width=0.5)
    architecture = complete_architecture(space_of_config(config))

    class KilledError(Exception):
        pass

    def kill(done: int, total: int, text: str) -> None:
        if done >= 5:
            raise KilledError

    runs = [new_run(tmp_path / name, config) for name in ("whole", "killed")]
    teachers = [open_teacher(run, config, dataset, device=CPU) for run in runs]
    retrain(runs[0], config, architecture, dataset, device=CPU, teacher=teachers[0])
    with pytest.raises(KilledError):
        retrain(runs[1], config, architecture, dataset, device=CPU, teacher=teachers[1], progress=kill)
    teacher = open_teacher(runs[1], config, dataset, device=CPU)
    retrain(runs[1], config, architecture, dataset, device=CPU, teacher=teacher, resume=True)
    weights, others = (load_weights(run.path / "weights.npz", architecture) for run in runs)
    assert all(np.array_equal(weights[name], others[name]) for name in weights)
    # The teacher matters.
    alone = tiny()
    run = new_run(tmp_path / "alone", alone)
    retrain(run, alone, architecture, dataset, device=CPU)
    plain = load_weights(run.path / "weights.npz", architecture)
    assert any(not np.array_equal(plain[name], weights[name]) for name in weights)


def test_the_supernet_of_a_search(tmp_path: Path, dataset: Dataset) -> None:
    config = tiny(teacher="supernet")
    run = new_run(tmp_path / "run", config)
    with pytest.raises(RunError, match="has no checkpoint of a search, so no supernet to learn from"):
        open_teacher(run, config, dataset, device=CPU)
    search_path(run, prepare_task(config, space_of_config(config)), dataset, resume=False)
    before = torch.get_rng_state()
    teacher = open_teacher(run, config, dataset, device=CPU)
    assert teacher is not None
    assert torch.equal(torch.get_rng_state(), before)
    state, _ = run.load_checkpoint("search")
    assert state is not None
    assert torch.equal(teacher.get_parameter("lam"), state["model"]["lam"])
    assert teacher(torch.randn(2, 1, 8, 8)).shape == (2, 10)


def test_teachers_that_do_not_fit(tmp_path: Path, dataset: Dataset) -> None:
    config = tiny(teacher="network")
    run = new_run(tmp_path / "run", config)
    with pytest.raises(UserError, match="needs the run that holds it"):
        open_teacher(run, config, dataset, device=CPU)
    config = tiny(teacher="network", run=str(tmp_path / "none"))
    with pytest.raises(RunError, match="holds no network to learn from"):
        open_teacher(run, config, dataset, device=CPU)
    config = tiny(teacher="resnext")
    with pytest.raises(UserError, match="unknown family 'resnext'"):
        open_teacher(run, config, dataset, device=CPU)


def test_a_teacher_of_another_number_of_classes_is_refused(tmp_path: Path, dataset: Dataset) -> None:
    from dsonas_hw.files import write_json
    from dsonas_hw.train.hand_made import parse_family

    held = new_run(tmp_path / "held", tiny())
    network = parse_family("resnet", input_shape=(1, 8, 8), num_classes=100)
    write_json(held.path / "network.json", network.to_json())
    config = tiny(teacher="network", run=str(held.path))
    match = "tells 100 classes, digits has 10; name another run"
    with pytest.raises(UserError, match=match):
        check_teacher(config, dataset)  # before anything is searched
    with pytest.raises(UserError, match=match) as found:
        open_teacher(new_run(tmp_path / "run", config), config, dataset, device=CPU)
    assert "\n" not in str(found.value)
    assert found.value.exit_code == 2
