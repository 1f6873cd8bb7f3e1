"""A brief training that only ranks networks: on a part of the training images, scored on the rest."""

from __future__ import annotations

from dataclasses import replace

import torch

from dsonas_hw.config import DistillConfig, RunConfig
from dsonas_hw.train.data import Dataset
from dsonas_hw.train.data_split import split_for_search
from dsonas_hw.train.loop import Interrupted, StopSignal
from dsonas_hw.train.recipe import with_epochs
from dsonas_hw.train.trainable import Trainable
from dsonas_hw.train.trainer import StoppedError, Trainer


def train_briefly(
    trainable: Trainable,
    config: RunConfig,
    dataset: Dataset,
    *,
    epochs: int,
    device: torch.device,
    stop: StopSignal,
) -> float:
    """Train on the images of W by the retraining's recipe and return the accuracy on those of λ.

    Raises:
        Interrupted: `stop` was requested; nothing is kept.
        DivergedError: the loss is no longer finite.
    """
    ratio = config.data.split_ratio if config.data.split else (1, 1)
    for_w, for_lam = split_for_search(dataset, ratio, seed=config.seed)
    recipe = with_epochs(config.retrain, epochs).model_copy(
        update={"test_every": epochs, "distill": DistillConfig()}
    )
    trainer = Trainer(
        trainable, replace(dataset, train=for_w, test=for_lam), recipe, seed=config.seed, device=device,
        num_workers=config.data.num_workers,
    )  # fmt: skip
    try:
        while trainer.epoch < epochs:
            trainer.run_epoch(stop, lambda: None)
    except StoppedError:
        raise Interrupted("interrupted in a brief training; start it again to go on") from None
    assert trainer.test_accuracy is not None
    return trainer.test_accuracy
