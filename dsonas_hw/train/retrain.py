"""Training of a derived architecture from scratch, with the paper's recipe (DSO-NAS, 4.2 and 4.3).

each epoch: steps on all training images → test → a line of metrics.jsonl → checkpoint
at the end: weights.npz, preprocessing.json, confusion.csv, retrain.json
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from dsonas_hw.architecture.architecture import Architecture
from dsonas_hw.config import RetrainConfig, RunConfig
from dsonas_hw.errors import RunError, UserError, command_line
from dsonas_hw.files import read_json, read_json_lines, write_json, write_text
from dsonas_hw.run_directory import OUTCOME, RunDirectory
from dsonas_hw.train import distributed
from dsonas_hw.train.confusion import CONFUSION_NAME, save_confusion
from dsonas_hw.train.curve import guessing_accuracy, rise_at_end
from dsonas_hw.train.data import Dataset
from dsonas_hw.train.identity import architecture_hash
from dsonas_hw.train.loop import DivergedError, Interrupted, Progress, StopSignal
from dsonas_hw.train.memory import check_memory, free_memory_bytes
from dsonas_hw.train.preprocess import PREPROCESSING_NAME, save_preprocessing
from dsonas_hw.train.trainable import Trainable, check_fits, num_params
from dsonas_hw.train.trainer import StoppedError, Trainer
from dsonas_hw.train.weights import WEIGHTS_NAME, save_weights

RESULT_NAME = "retrain.json"


@dataclass(frozen=True, kw_only=True)
class RetrainResult:
    """What `retrain.json` holds; the weights are in `weights.npz`."""

    architecture: str
    """`architecture_hash` of what was trained."""
    dataset: str
    epochs: int
    test_accuracy: float
    """Of the last epoch, not of the best."""
    test_error: float
    num_params: int
    seconds: float
    """Of training and testing, over all resumed parts."""
    rise_at_end: float | None = None
    """By how much the training accuracy rose in the last fifth of the epochs; None: it had levelled off."""

    guessing_accuracy: float = 0.0
    """What a network that has learned nothing may reach on these test images."""

    def advice(self, run: RunDirectory) -> str | None:
        """What to do about a training that was too short, or has taught nothing; None: nothing."""
        command = command_line("retrain", run.path, "--restart", "--epochs", 2 * self.epochs)
        if self.test_accuracy <= self.guessing_accuracy:
            return (
                f"nothing was learned: by guessing a network reaches up to {self.guessing_accuracy:.1%} of "
                "these test images, too; check the images of each class, give more of them, or train longer: "
                + command
            )
        if self.rise_at_end is None:
            return None
        return (
            f"accuracy still rose at the end, by {self.rise_at_end:.1%} in the last fifth of {self.epochs} "
            f"epochs; train longer: {command}"
        )


def retrain(
    run: RunDirectory,
    config: RunConfig,
    architecture: Trainable,
    dataset: Dataset,
    *,
    device: torch.device,
    resume: bool = False,
    epochs: int | None = None,
    teacher: nn.Module | None = None,
    progress: Progress | None = None,
) -> RetrainResult:
    """Train to the end and write weights.npz and retrain.json.

    resume: go on from the newest good checkpoint, if there is one; otherwise start over, dropping what an
        earlier retraining left in the run.
    epochs: instead of the recipe's; a resumed run keeps what it was started with.
    teacher: what `search.teacher.open_teacher` gave; needed where the recipe asks for one.

    Raises:
        Interrupted: SIGINT or SIGTERM; everything up to the last step is in a checkpoint.
        DivergedError: the loss or its gradient is no longer finite; names the step.
        RunError: the checkpoint belongs to another architecture, dataset or recipe; or it would be resumed
            where the weights are those of `save_network`.
    """
    check_fits(architecture, dataset)
    if resume and is_saved(run):
        raise RunError(
            f"{run.path / WEIGHTS_NAME} was saved by save_network, there is nothing to resume; "
            f"go on with: {command_line('export', run.path)}"
        )
    state = run.load_checkpoint("retrain")[0] if resume else None
    if state is not None and epochs is None:
        epochs = _stored_epochs(state)
    recipe = with_epochs(config.retrain, epochs) if epochs else config.retrain
    if isinstance(architecture, Architecture):
        check_memory(
            architecture,
            batch_size=recipe.batch_size,
            free_bytes=free_memory_bytes(device),
            setting=f"in {run.config_path} retrain.batch_size: ",
        )
    if (teacher is None) != (recipe.distill.teacher is None):
        raise ValueError("a teacher is given where the recipe asks for one, and only there")
    trainer = Trainer(
        architecture, dataset, recipe, seed=config.seed, device=device, num_workers=config.data.num_workers,
        teacher=teacher,
    )  # fmt: skip
    identity = {
        "architecture": architecture_hash(architecture),
        "dataset": dataset.name,
        "recipe": recipe.model_dump(mode="json"),
        "steps_per_epoch": len(trainer.batches),
        "seed": config.seed,
    }

    def save() -> None:
        run.save_checkpoint("retrain", trainer.epoch, {**identity, **trainer.state_dict()})

    def report(text: str = "") -> None:
        if progress is not None:
            progress(trainer.num_steps, recipe.epochs * len(trainer.batches), text or _describe(trainer))

    if state is None:
        _forget(run)
        save()
    else:
        _load(run, trainer, identity, state)
    distributed.begin(
        "retrain",
        {
            "config": config.model_dump(mode="json"),
            "architecture": architecture.to_json(),
            "recipe": recipe.model_dump(mode="json"),
            "device": device.type,
            "run": str(run.path),
            "state": trainer.state_dict(),
        },
    )
    try:
        _train(run, trainer, save, report)
    except UserError:
        distributed.broadcast(distributed.DONE)
        raise
    distributed.broadcast(distributed.DONE)
    return _finish(run, trainer, identity, architecture, dataset)


def _train(run: RunDirectory, trainer: Trainer, save: Callable[[], None], report: Callable[[], None]) -> None:
    """All epochs that are left, each with its test, its line in the log and its checkpoint."""
    recipe = trainer.recipe
    with StopSignal() as stop:
        while trainer.epoch < recipe.epochs:
            try:
                row = trainer.run_epoch(stop, report)
            except StoppedError:
                trainer.collect()
                save()
                raise _interrupted(run, trainer) from None
            except DivergedError as error:
                kept = run.list_checkpoints("retrain")[-1].name
                raise DivergedError(f"{error}; the last good checkpoint is {kept}") from None
            run.log("metrics.jsonl", row)
            done = trainer.epoch == recipe.epochs
            if done or stop.requested or trainer.epoch % recipe.checkpoint_every == 0:
                save()
            report()
            if stop.requested and not done:
                raise _interrupted(run, trainer)


def _finish(
    run: RunDirectory,
    trainer: Trainer,
    identity: Mapping[str, Any],
    architecture: Trainable,
    dataset: Dataset,
) -> RetrainResult:
    assert trainer.confusion is not None
    assert trainer.test_accuracy is not None
    save_preprocessing(run.path / PREPROCESSING_NAME, dataset)
    save_confusion(run.path / CONFUSION_NAME, dataset.class_names, trainer.confusion.tolist())
    save_weights(run.path / WEIGHTS_NAME, architecture, trainer.network.named_arrays())
    result = RetrainResult(
        architecture=identity["architecture"],
        dataset=identity["dataset"],
        epochs=trainer.recipe.epochs,
        test_accuracy=trainer.test_accuracy,
        test_error=1 - trainer.test_accuracy,
        num_params=num_params(architecture),
        seconds=round(trainer.seconds, 3),
        rise_at_end=_rise_at_end(run),
        guessing_accuracy=guessing_accuracy(trainer.confusion.sum(dim=1).tolist()),
    )
    write_json(run.path / RESULT_NAME, asdict(result))
    return result


def _rise_at_end(run: RunDirectory) -> float | None:
    rows = [row for row in read_json_lines(run.log_path("metrics.jsonl")) if row.get("stage") == "retrain"]
    return rise_at_end([row["train_accuracy"] for row in rows], [row["test_accuracy"] for row in rows])


def _interrupted(run: RunDirectory, trainer: Trainer) -> Interrupted:
    return Interrupted(
        f"interrupted in epoch {trainer.epoch + 1} of {trainer.recipe.epochs}; "
        f"resume with: {command_line('retrain', run.path, '--resume')}"
    )


def _describe(trainer: Trainer) -> str:
    epochs = trainer.recipe.epochs
    tested = "" if trainer.test_accuracy is None else f", test accuracy {trainer.test_accuracy:.2%}"
    return f"epoch {min(trainer.epoch + 1, epochs)} of {epochs}{tested}"


def with_epochs(recipe: RetrainConfig, epochs: int) -> RetrainConfig:
    """Return the same recipe over another number of epochs; its warm-up shrinks or grows alike."""
    if epochs == recipe.epochs:
        return recipe
    warmup = recipe.warmup_epochs * epochs / recipe.epochs
    return RetrainConfig.model_validate({**recipe.model_dump(), "epochs": epochs, "warmup_epochs": warmup})


def _stored_epochs(state: Mapping[str, Any]) -> int | None:
    recipe = state.get("recipe")
    epochs = recipe.get("epochs") if isinstance(recipe, dict) else None
    return epochs if isinstance(epochs, int) and epochs > 0 else None


def _load(run: RunDirectory, trainer: Trainer, identity: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Go on from a checkpoint of this retraining; what was logged after it is dropped."""
    different = [name for name, value in identity.items() if state.get(name) != value]
    if different:
        raise RunError(
            f"the checkpoints in {run.checkpoints} belong to a retraining with another {different[0]}; "
            "start over with --restart"
        )
    try:
        trainer.load_state_dict(state)
        run.truncate_logs(state["log_sizes"])
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError, ArithmeticError) as error:
        raise RunError(
            f"a checkpoint in {run.checkpoints} does not fit this retraining ({type(error).__name__}); "
            "start over with --restart"
        ) from None


def is_saved(run: RunDirectory) -> bool:
    """Return whether the run's weights were put there by `save_network`."""
    path = run.path / RESULT_NAME
    data = read_json(path) if path.is_file() else None
    return isinstance(data, dict) and data.get("saved") is True


def forget_outcome(run: RunDirectory) -> None:
    """Remove what came of the run's weights, and the checkpoints that would bring them back."""
    outcome = [run.path / name for name in OUTCOME if name not in (WEIGHTS_NAME, PREPROCESSING_NAME)]
    for path in [*run.list_checkpoints("retrain"), *outcome]:
        path.unlink(missing_ok=True)


def _forget(run: RunDirectory) -> None:
    """Remove an earlier retraining: checkpoints, lines of the log, weights and what came of them."""
    forget_outcome(run)
    for path in (run.path / WEIGHTS_NAME, run.path / PREPROCESSING_NAME):
        path.unlink(missing_ok=True)
    log = run.log_path("metrics.jsonl")
    if log.exists():
        rows = [row for row in read_json_lines(log) if row.get("stage") != "retrain"]
        write_text(log, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
