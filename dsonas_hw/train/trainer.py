"""One training from scratch as a state that steps forward, can be stored between any two steps, and resumed.

The order of the images, their augmentation, the learning rate and what drop-path drops depend on the position
(epoch, step) alone; weights, momentum, sums of the epoch and random state are in
`state_dict`. So a resumed training ends with the same weights, bit for bit on a CPU.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from dsonas_hw.config import RetrainConfig
from dsonas_hw.train import distributed
from dsonas_hw.train.augment import onto
from dsonas_hw.train.data import Dataset
from dsonas_hw.train.data_batches import Batch, Batches
from dsonas_hw.train.drop_path import draw_drop_masks
from dsonas_hw.train.evaluate import accuracy_of, count_confusion
from dsonas_hw.train.loop import (
    CHECK_EVERY,
    EpochMeter,
    StopSignal,
    autocast,
    keep_freed_memory,
    loss_scaler,
    random_state,
    restore_random_state,
    seed_everything,
)
from dsonas_hw.train.regularise import classification_loss, distilled_loss
from dsonas_hw.train.schedule import LearningRate
from dsonas_hw.train.trainable import Trainable, build_network


class StoppedError(Exception):
    """A stop was requested; the trainer stands between two steps and can be stored."""


class Trainer:
    """A network in training; `epoch` and `step` count what is done."""

    def __init__(
        self,
        trainable: Trainable,
        dataset: Dataset,
        recipe: RetrainConfig,
        *,
        seed: int,
        device: torch.device,
        num_workers: int | None = None,
        teacher: nn.Module | None = None,
    ) -> None:
        """teacher: gives the logits that `recipe.distill` asks for; it is not trained."""
        self.recipe, self.device, self.seed = recipe, device, seed
        self.learning_rate = LearningRate(recipe)
        keep_freed_memory()
        seed_everything(seed)
        self.network = build_network(trainable, recipe).to(device)
        self.teacher = teacher
        self.forward = self.network.forward_with_auxiliary
        if recipe.compile:
            # What a step calls; the network, and so its parameters' names, stays as it is.
            self.forward = torch.compile(self.forward)
        self.optimizer = torch.optim.SGD(  # with Nesterov momentum: the paper's NAG
            self.network.parameters(), lr=recipe.lr, momentum=recipe.momentum,
            weight_decay=recipe.weight_decay, nesterov=recipe.momentum > 0,
        )  # fmt: skip
        self.scaler = loss_scaler(device, recipe.amp)
        self.batches = Batches(
            images=dataset.train,
            dataset=dataset,
            batch_size=recipe.batch_size,
            seed=seed,
            augmentation=replace(dataset.augmentation, cutout=recipe.cutout),
            drop_last=len(dataset.train) >= recipe.batch_size,  # a rest of one image has no batch statistics
            device=device,
            num_workers=num_workers,
            rank=distributed.rank(),
            world_size=distributed.world_size(),
        )
        self.test_batches = Batches(
            images=dataset.test,
            dataset=dataset,
            batch_size=recipe.batch_size,
            shuffle=False,
            device=device,
            num_workers=num_workers,
            rank=distributed.rank(),
            world_size=distributed.world_size(),
        )
        self.num_classes = dataset.num_classes
        self.epoch, self.step = 0, 0
        self.meter = EpochMeter(device)
        self.confusion: Tensor | None = None
        """Of the test images after the last whole epoch (`count_confusion`), None if it was not tested."""
        self._seconds, self._started_s = 0.0, time.monotonic()

    @property
    def seconds(self) -> float:
        """Time spent so far, over all resumed parts."""
        return self._seconds + time.monotonic() - self._started_s

    @property
    def num_steps(self) -> int:
        return self.epoch * len(self.batches) + self.step

    @property
    def test_accuracy(self) -> float | None:
        """After the last whole epoch; None if it was not tested."""
        return None if self.confusion is None else accuracy_of(self.confusion)

    # -- going forward -------------------------------------------------------------------------------------

    def run_epoch(self, stop: StopSignal, after_steps: Callable[[], None]) -> dict[str, Any]:
        """Train for the rest of the present epoch and test, if a test is due; return the line for the log.

        after_steps: called every few steps.

        Raises:
            StoppedError: `stop` was requested.
            DivergedError: the loss or its gradient is no longer finite.
        """
        self.network.train()
        for batch in self.batches.epoch(self.epoch, self.step):
            distributed.broadcast(distributed.STEP, self.epoch, self.step)
            self.train_step(batch)
            if self.step % CHECK_EVERY == 0:
                self.check()
                after_steps()
            if stop.requested:
                raise StoppedError
        self.check()
        self.collect()
        is_due = (self.epoch + 1) % self.recipe.test_every == 0 or self.epoch + 1 == self.recipe.epochs
        self.confusion = self.test(stop) if is_due else None
        row = {
            "stage": "retrain",
            "epoch": self.epoch + 1,
            "lr": self.optimizer.param_groups[0]["lr"],
            "train_loss": self.meter.loss,
            "train_accuracy": self.meter.accuracy,
            "test_accuracy": self.test_accuracy,
            "seconds": round(self.seconds, 3),
        }
        self.epoch, self.step, self.meter = self.epoch + 1, 0, EpochMeter(self.device)
        return row

    def train_step(self, batch: Batch) -> None:
        """Take one step on this process's rows of a batch."""
        images, labels = batch
        recipe = self.recipe
        lr = self.learning_rate.at(self.epoch + self.step / len(self.batches))
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        with autocast(self.device, recipe.amp):
            logits, auxiliary = self.forward(images, self._drop_masks(len(images)))
        loss = classification_loss(
            logits.float(),
            labels,
            auxiliary_logits=None if auxiliary is None else auxiliary.float(),
            auxiliary_weight=recipe.aux_weight,
            label_smoothing=recipe.label_smoothing,
        )
        if self.teacher is not None:
            loss = distilled_loss(loss, logits.float(), self._teach(images), recipe.distill)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        distributed.average_(p.grad for p in self.network.parameters() if p.grad is not None)
        self.scaler.unscale_(self.optimizer)
        grad_norm = nn.utils.clip_grad_norm_(self.network.parameters(), recipe.grad_clip or math.inf)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if recipe.amp == "fp16":  # an overflow lowers the scale and skips the step
            grad_norm = grad_norm.nan_to_num(0.0, 0.0)
        self.meter.update(self.step, loss, logits, labels, grad_norm=grad_norm)
        self.step += 1

    @torch.no_grad()
    def _teach(self, images: Tensor) -> Tensor:
        """The teacher's logits, (N, classes)."""
        assert self.teacher is not None
        with autocast(self.device, self.recipe.amp):
            logits: Tensor = self.teacher(images)
        return logits.float()

    def _drop_masks(self, num_images: int) -> Tensor | None:
        """What the edges are multiplied with in this step; None where nothing is dropped."""
        edges = self.network.drop_edges
        if not self.recipe.drop_path or not edges.depths:
            return None
        progress = (self.num_steps + 1) / (self.recipe.epochs * len(self.batches))
        name = (self.seed, self.epoch, self.step)
        masks = draw_drop_masks(
            edges, rate=self.recipe.drop_path, progress=progress, num_images=num_images, name=name
        )
        return onto(self.device, masks)

    def collect(self) -> None:
        """Bring the sums of all processes to rank 0."""
        distributed.broadcast(distributed.COLLECT)
        self.meter.collect()

    def test(self, stop: StopSignal) -> Tensor:
        """Count what the test images are taken for.

        Raises:
            StoppedError: `stop` was requested; several processes end the test first, together.
        """
        distributed.broadcast(distributed.TEST)

        def until_stopped() -> Iterator[Batch]:
            for batch in self.test_batches.epoch(0):
                if stop.requested and distributed.world_size() == 1:
                    raise StoppedError
                yield batch

        return count_confusion(
            self.network, until_stopped(), num_classes=self.num_classes, device=self.device,
            amp=self.recipe.amp,
        )  # fmt: skip

    def check(self) -> None:
        """Refuse to go on, and to be stored, with broken weights.

        Raises:
            DivergedError: names the step.
        """
        self.meter.check(
            f"retraining, epoch {self.epoch + 1}",
            f"lower retrain.lr (now {self.recipe.lr:g}) or "
            f"retrain.grad_clip (now {self.recipe.grad_clip or 'none'})",
        )

    # -- storing and going on ------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values from which `load_state_dict` goes on."""
        self.check()
        return {
            "epoch": self.epoch,
            "step": self.step,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "random": random_state(self.device),
            "meter": self.meter.state_dict(),
            "confusion": self.confusion,
            "seconds": self.seconds,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state.get("scaler", {}))
        self.meter.load_state_dict(state["meter"])
        restore_random_state(state["random"], self.device)
        self.epoch, self.step = int(state["epoch"]), int(state["step"])
        self.confusion, self._seconds = state["confusion"], float(state["seconds"])
