"""Retraining: a resumed run is the uninterrupted run; stops are polite; broken weights are never kept."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dsonas_hw.architecture.architecture import Architecture, complete_architecture
from dsonas_hw.config import DataConfig, RetrainConfig, RunConfig, build_config, load_preset, overlay
from dsonas_hw.errors import RunError, UserError
from dsonas_hw.files import read_json, read_json_lines
from dsonas_hw.run_directory import RunDirectory
from dsonas_hw.space.space import SearchSpace
from dsonas_hw.train.confusion import load_confusion
from dsonas_hw.train.data import Dataset, load_dataset
from dsonas_hw.train.loop import DivergedError, Interrupted, StopSignal
from dsonas_hw.train.retrain import RetrainResult, retrain, with_epochs
from dsonas_hw.train.trainer import Trainer
from dsonas_hw.train.weights import load_weights

CPU = torch.device("cpu")
EVERYTHING_ON = {
    "epochs": 3, "batch_size": 32, "dropout": 0.2, "drop_path": 0.3, "aux_weight": 0.4, "cutout": 2,
    "label_smoothing": 0.1, "schedule": "cosine-restarts", "restart_epochs": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset(DataConfig(dataset="digits", subset=200, test_subset=100))


@pytest.fixture(scope="module")
def architecture() -> Architecture:
    space = SearchSpace(levels=1, stages=(1, 1), channels=4, input_shape=(1, 8, 8))
    return complete_architecture(space)


def config_with(**recipe: Any) -> RunConfig:
    return build_config(overlay(load_preset("digits"), {"retrain": {**EVERYTHING_ON, **recipe}}))


def new_run(path: Path, config: RunConfig) -> RunDirectory:
    run = RunDirectory(path)
    run.create(config)
    run.log("metrics.jsonl", {"stage": "search", "epoch": 1})
    return run


def logged(run: RunDirectory) -> list[dict[str, Any]]:
    """Rows of the log without what a clock wrote."""
    return [
        {k: v for k, v in row.items() if k != "seconds"}
        for row in read_json_lines(run.log_path("metrics.jsonl"))
    ]


class KilledError(Exception):
    pass


class KillAt:
    """A progress callback that fails once a number of steps is done."""

    def __init__(self, num_steps: int) -> None:
        self.num_steps = num_steps

    def __call__(self, done: int, total: int, text: str) -> None:
        if done >= self.num_steps:
            raise KilledError


def test_other_epochs_scale_the_warm_up() -> None:
    recipe = with_epochs(build_config(load_preset("imagenet-steered")).retrain, 24)
    assert (recipe.epochs, recipe.warmup_epochs) == (24, 0.5)
    assert with_epochs(recipe, 24) is recipe


@pytest.mark.parametrize("momentum", [0.9, 0.0])
def test_weight_decay_is_on_every_parameter(
    architecture: Architecture, digits: Dataset, momentum: float
) -> None:
    recipe = RetrainConfig(momentum=momentum, cutout=0)
    trainer = Trainer(architecture, digits, recipe, seed=0, device=CPU)
    (group,) = trainer.optimizer.param_groups
    assert len(group["params"]) == len(list(trainer.network.parameters()))
    assert (group["weight_decay"], group["nesterov"]) == (3e-4, momentum > 0)


@pytest.fixture(scope="module")
def uninterrupted(
    tmp_path_factory: pytest.TempPathFactory, architecture: Architecture, digits: Dataset
) -> RunDirectory:
    config = config_with()
    run = new_run(tmp_path_factory.mktemp("runs") / "whole", config)
    retrain(run, config, architecture, digits, device=CPU)
    return run


def assert_same_end(run: RunDirectory, other: RunDirectory, architecture: Architecture) -> None:
    weights, others = (load_weights(r.path / "weights.npz", architecture) for r in (run, other))
    assert all(np.array_equal(weights[name], others[name]) for name in others)
    assert logged(run) == logged(other)
    states = [torch.load(r.list_checkpoints("retrain")[-1], weights_only=True) for r in (run, other)]
    momentum = [s["optimizer"]["state"] for s in states]
    for index, slot in momentum[0].items():
        assert torch.equal(slot["momentum_buffer"], momentum[1][index]["momentum_buffer"])
    assert torch.equal(states[0]["random"]["cpu"], states[1]["random"]["cpu"])


def test_result_and_log_tell_the_same(
    uninterrupted: RunDirectory, architecture: Architecture, digits: Dataset
) -> None:
    result = RetrainResult(**read_json(uninterrupted.path / "retrain.json"))
    rows = logged(uninterrupted)
    assert [(row["stage"], row["epoch"]) for row in rows] == [
        ("search", 1), ("retrain", 1), ("retrain", 2), ("retrain", 3),
    ]  # fmt: skip
    assert result.test_accuracy == rows[-1]["test_accuracy"] == pytest.approx(1 - result.test_error)
    assert result.epochs == 3
    assert result.num_params > 0
    confusion = load_confusion(uninterrupted.path / "confusion.csv")
    correct = sum(row[i] for i, row in enumerate(confusion.counts))
    assert correct / sum(map(sum, confusion.counts)) == result.test_accuracy
    assert confusion.class_names == digits.class_names


def test_tests_every_few_epochs_and_in_the_end(tmp_path: Path, architecture: Architecture) -> None:
    config = config_with(epochs=5, test_every=2)
    run = new_run(tmp_path / "run", config)
    dataset = load_dataset(DataConfig(dataset="digits", subset=100, test_subset=50))
    result = retrain(run, config, architecture, dataset, device=CPU)
    accuracies = [row["test_accuracy"] for row in logged(run)[1:]]
    assert [accuracy is not None for accuracy in accuracies] == [False, True, False, True, True]
    assert result.test_accuracy == accuracies[-1]


def test_training_learns(tmp_path: Path, architecture: Architecture) -> None:
    config = config_with(
        epochs=6, dropout=0.0, drop_path=0.0, cutout=0, label_smoothing=0.0, aux_weight=0.0,
        schedule="cosine", lr=0.1,
    )  # fmt: skip
    run = new_run(tmp_path / "run", config)
    dataset = load_dataset(DataConfig(dataset="digits", subset=400, test_subset=100))
    result = retrain(run, config, architecture.with_width(8), dataset, device=CPU)
    assert result.test_accuracy > 0.6  # chance is 0.1
    losses = [row["train_loss"] for row in logged(run)[1:]]
    assert losses[-1] < losses[0] / 2


@pytest.mark.parametrize("num_steps", [1, 6, 12, 18])
def test_killed_and_resumed_is_the_uninterrupted_run(
    tmp_path: Path, uninterrupted: RunDirectory, architecture: Architecture, digits: Dataset, num_steps: int
) -> None:
    config = config_with(checkpoint_every=2)  # after 6 steps, one epoch (200 // 32), the log is ahead
    run = new_run(tmp_path / "run", config)
    with pytest.raises(KilledError):
        retrain(run, config, architecture, digits, device=CPU, progress=KillAt(num_steps))
    torch.manual_seed(999)  # another process starts with another random state
    retrain(run, config, architecture, digits, device=CPU, resume=True)
    assert_same_end(run, uninterrupted, architecture)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("step", [0, 8, 17])
def test_a_signal_stops_after_the_step_and_resumes_alike(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    uninterrupted: RunDirectory,
    architecture: Architecture,
    digits: Dataset,
    number: signal.Signals,
    step: int,
) -> None:
    from dsonas_hw.train.trainer import Trainer

    config = config_with()
    run = new_run(tmp_path / "run", config)
    train_step = Trainer.train_step

    def train_step_with_signal(self: Trainer, batch: Any) -> None:
        if self.num_steps == step:
            os.kill(os.getpid(), number)
        train_step(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_step", train_step_with_signal)
        with pytest.raises(Interrupted, match=f"resume with: dsonas-hw retrain {run.path} --resume"):
            retrain(run, config, architecture, digits, device=CPU)
    state, _ = run.load_checkpoint("retrain")
    assert state is not None
    assert 6 * state["epoch"] + state["step"] == step + 1  # 6 steps an epoch
    retrain(run, config, architecture, digits, device=CPU, resume=True)
    assert_same_end(run, uninterrupted, architecture)


def test_a_damaged_checkpoint_falls_back_to_the_one_before(
    tmp_path: Path,
    uninterrupted: RunDirectory,
    architecture: Architecture,
    digits: Dataset,
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = config_with()
    run = new_run(tmp_path / "run", config)
    with pytest.raises(KilledError):
        retrain(run, config, architecture, digits, device=CPU, progress=KillAt(12))
    newest = run.list_checkpoints("retrain")[-1]
    newest.write_bytes(newest.read_bytes()[:5000])
    retrain(run, config, architecture, digits, device=CPU, resume=True)  # says it without a progress bar
    assert [newest.name in text and "falling back" in text for text in caplog.messages] == [True]
    assert_same_end(run, uninterrupted, architecture)


def test_starting_over_leaves_one_retraining(
    tmp_path: Path, uninterrupted: RunDirectory, architecture: Architecture, digits: Dataset
) -> None:
    config = config_with()
    run = new_run(tmp_path / "run", config)
    retrain(run, config, architecture, digits, device=CPU, epochs=1)
    assert RetrainResult(**read_json(run.path / "retrain.json")).epochs == 1
    retrain(run, config, architecture, digits, device=CPU)
    assert_same_end(run, uninterrupted, architecture)


def test_resuming_keeps_the_epochs_it_was_started_with(
    tmp_path: Path, architecture: Architecture, digits: Dataset
) -> None:
    config = config_with()
    run = new_run(tmp_path / "run", config)
    with pytest.raises(KilledError):
        retrain(run, config, architecture, digits, device=CPU, epochs=2, progress=KillAt(6))
    assert retrain(run, config, architecture, digits, device=CPU, resume=True).epochs == 2


def test_a_checkpoint_of_something_else_is_refused(
    tmp_path: Path, architecture: Architecture, digits: Dataset
) -> None:
    config = config_with(epochs=1)
    run = new_run(tmp_path / "run", config)
    retrain(run, config, architecture, digits, device=CPU)
    with pytest.raises(RunError, match=r"another architecture.*--restart"):
        retrain(run, config, architecture.with_width(8), digits, device=CPU, resume=True)
    with pytest.raises(RunError, match=r"another recipe.*--restart"):
        retrain(run, config_with(epochs=1, lr=0.01), architecture, digits, device=CPU, resume=True)
    with pytest.raises(UserError, match=r"images of 1×8×8 and 10 classes; digits has 1×16×16"):
        retrain(
            run, config, architecture, load_dataset(DataConfig(dataset="digits", image_size=16)), device=CPU
        )


@pytest.mark.filterwarnings("ignore:.*lr_scheduler")
def test_divergence_names_the_step_and_keeps_the_last_good_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, architecture: Architecture, digits: Dataset
) -> None:
    from dsonas_hw.train.trainer import Trainer

    config = config_with()
    run = new_run(tmp_path / "run", config)
    train_step = Trainer.train_step

    def poisoned(self: Trainer, batch: Any) -> None:
        images, labels = batch
        train_step(self, (images * float("nan"), labels) if self.num_steps == 8 else batch)

    monkeypatch.setattr(Trainer, "train_step", poisoned)
    with pytest.raises(DivergedError, match=r"epoch 2, step 3; .*lr.*checkpoint is retrain-000001\.pt"):
        retrain(run, config, architecture, digits, device=CPU)
    state, warnings = run.load_checkpoint("retrain")
    assert state is not None
    assert not warnings
    assert all(torch.isfinite(value).all() for value in state["network"].values())
    assert not (run.path / "weights.npz").exists()


def test_mixed_precision_trains(tmp_path: Path, architecture: Architecture, digits: Dataset) -> None:
    config = config_with(epochs=1, amp="bf16")
    run = new_run(tmp_path / "run", config)
    assert retrain(run, config, architecture, digits, device=CPU).test_accuracy >= 0.0
    assert all(a.dtype == np.float32 for a in load_weights(run.path / "weights.npz", architecture).values())


def test_the_steps_of_a_training_are_compiled(
    architecture: Architecture, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backend that only counts stands in for the compiler: every step must go through it, in one graph."""
    graphs, runs = [], []

    def count(graph: torch.fx.GraphModule, _: list[torch.Tensor]) -> Any:
        graphs.append(graph)

        def run(*args: Any) -> Any:
            runs.append(graph)
            return graph(*args)

        return run

    compile_network = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function: compile_network(function, backend=count))
    recipe = config_with(epochs=4, compile=True).retrain
    trainer = Trainer(architecture, digits, recipe, seed=0, device=CPU)
    for _ in range(3):
        trainer.run_epoch(StopSignal(), lambda: None)
    assert len(graphs) == 1  # the masks of drop-path are its input, whatever the rate
    assert len(runs) == trainer.num_steps
    plain = Trainer(architecture, digits, config_with(epochs=4).retrain, seed=0, device=CPU)
    assert list(trainer.network.state_dict()) == list(plain.network.state_dict())
    for _ in range(3):
        plain.run_epoch(StopSignal(), lambda: None)
    for name, value in plain.network.state_dict().items():
        assert torch.allclose(trainer.network.state_dict()[name], value, atol=1e-5), name
