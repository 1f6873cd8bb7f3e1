"""Writing the path: each architecture that a search passes for the first time, some with their accuracy."""

from __future__ import annotations

import torch

from dsonas_hw.architecture.architecture import Block
from dsonas_hw.config import RunConfig
from dsonas_hw.run_directory import RunDirectory
from dsonas_hw.search.parts import SearchParts
from dsonas_hw.search.path import PathPoint, load_path
from dsonas_hw.search.steering import Steering
from dsonas_hw.train.data import Dataset
from dsonas_hw.train.data_batches import Batch, Batches
from dsonas_hw.train.evaluate import batch_accuracy


class PathRecorder:
    """Appends to a run's path.jsonl."""

    def __init__(
        self,
        run: RunDirectory,
        config: RunConfig,
        parts: SearchParts,
        dataset: Dataset,
        steering: Steering,
        device: torch.device,
    ) -> None:
        self.run_directory, self.config, self.steering = run, config, steering
        self.supernet = parts.supernet
        self.seen: set[tuple[Block, ...]] = set()
        """Block tuples that are on the path."""
        self.last_scored = -(10**9)
        """λ step of the last accuracy."""
        self._images = _images_that_score(config, parts, dataset, device)

    def record(self, *, epoch: int, lam_step: int, gamma: float) -> None:
        """Append what is alive if it is new; score it unless a point was scored just before."""
        steering, search = self.steering, self.config.search
        if steering.blocks in self.seen:
            return
        self.seen.add(steering.blocks)
        accuracy = None
        if lam_step - self.last_scored >= search.path_interval or steering.has_ended:
            accuracy = batch_accuracy(self.supernet, self._images, amp=search.amp)
            self.last_scored = lam_step
        architecture = steering.architecture
        point = PathPoint(
            step=lam_step, epoch=epoch, gamma=gamma, architecture=architecture,
            costs=steering.target.costs(architecture), accuracy=accuracy,
        )  # fmt: skip
        self.run_directory.log("path.jsonl", point.to_json())

    def reload(self) -> None:
        """Take note of what path.jsonl holds."""
        if self.run_directory.log_sizes()["path.jsonl"]:
            points = load_path(self.run_directory, self.steering.architecture.to_json()["space"])
            self.seen = {point.architecture.searched_blocks for point in points}


def _images_that_score(
    config: RunConfig, parts: SearchParts, dataset: Dataset, device: torch.device
) -> list[Batch]:
    """Fixed images of the λ part, not augmented."""
    images, number = parts.lam_images, config.search.path_images
    chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(config.seed))
    batches = Batches(
        images=images.take(chosen[:number].sort().values), dataset=dataset, batch_size=number,
        shuffle=False, device=device, num_workers=0,
    )  # fmt: skip
    return list(batches.epoch(0))
