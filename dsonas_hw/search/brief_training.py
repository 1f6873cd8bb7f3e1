"""Brief trainings that rank networks, for selections and random search: one at a time, so many epochs in all.

The recipe is that of the retraining, but for the learning rate: a cosine wave every e epochs, e those of the
first round. So every round ends at the bottom of a wave, and a network goes on with its weights. Images of W
train, images of λ score; a test image is never seen. Every network sees the same batches, in the same order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from dsonas_hw.architecture.architecture import Architecture
from dsonas_hw.checkpoint_file import load_checkpoint_file
from dsonas_hw.config import RetrainConfig, RunConfig, SelectConfig
from dsonas_hw.errors import RunError
from dsonas_hw.run_directory import RunDirectory
from dsonas_hw.train import distributed
from dsonas_hw.train.data import Dataset
from dsonas_hw.train.evaluate import batch_accuracy
from dsonas_hw.train.loop import StopSignal
from dsonas_hw.train.seeding import seeded_generator
from dsonas_hw.train.trainer import StoppedError, Trainer


def brief_recipe(recipe: RetrainConfig, select: SelectConfig, *, epochs: int) -> RetrainConfig:
    """Return the recipe of the brief trainings: the retraining's in waves of the first round's epochs.

    epochs: of the longest.
    """
    return recipe.model_copy(
        update={
            "epochs": epochs, "schedule": "cosine-restarts", "restart_epochs": select.epochs,
            "restart_factor": 1, "min_lr": min(recipe.min_lr, recipe.lr), "warmup_epochs": 0.0,
            "test_every": epochs, "compile": False,
        }
    )  # fmt: skip


class BriefTraining:
    """Trains networks for a number of epochs in all, and scores them; goes on from where each was stopped."""

    def __init__(
        self, run: RunDirectory, config: RunConfig, dataset: Dataset, *, epochs: int, device: torch.device
    ) -> None:
        """epochs: of the longest training.

        Raises:
            DataError: a class has too few images for a part of the W:λ split.
        """
        self.run, self.config, self.device = run, config, device
        w_images, lam_images = dataset.split_for_search(config.data.split_ratio, seed=config.seed)
        # Scores take batch norms by the batch: one of a single class, as folders list them, tells nothing.
        mixed = torch.randperm(len(lam_images), generator=seeded_generator("select", config.seed))
        self.dataset = replace(dataset, train=w_images, test=lam_images.take(mixed))
        self.recipe = brief_recipe(config.retrain, config.select, epochs=epochs)

    def score(
        self,
        index: int,
        architecture: Architecture,
        epochs: int,
        *,
        stop: StopSignal,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> float:
        """Train network number `index` until it has so many epochs; return its accuracy on the images of λ.

        Raises:
            StoppedError: `stop` was requested; the checkpoint is written.
            DivergedError: the loss is no longer a number.
        """
        with distributed.alone():
            trainer = Trainer(
                architecture, self.dataset, self.recipe, seed=self.config.seed, device=self.device,
                num_workers=self.config.data.num_workers,
            )  # fmt: skip
            self._restore(index, trainer)
            try:
                while trainer.epoch < epochs:
                    trainer.run_epoch(
                        stop, lambda: progress(trainer.num_steps, epochs * len(trainer.batches))
                    )
            except StoppedError:
                self._save(index, trainer)
                raise
            self._save(index, trainer)
            return batch_accuracy(trainer.network, trainer.test_batches.epoch(0), amp=self.recipe.amp)

    def _save(self, index: int, trainer: Trainer) -> None:
        self.run.save_checkpoint("select", index, trainer.state_dict(), keep=None)

    def _restore(self, index: int, trainer: Trainer) -> None:
        """Go on from the network's checkpoint; without one that can be read it starts over."""
        path = self.run.checkpoint_path("select", index)
        if path.exists():
            try:
                trainer.load_state_dict(load_checkpoint_file(path))
            except (RunError, KeyError, TypeError, ValueError, RuntimeError, AttributeError):
                raise RunError(f"the checkpoint {path} cannot be used; delete it and resume") from None

    def forget(self) -> None:
        """Remove the checkpoints of all networks."""
        for path in self.run.list_checkpoints("select"):
            path.unlink(missing_ok=True)
