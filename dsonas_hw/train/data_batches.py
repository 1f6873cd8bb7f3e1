"""Batches of normalised images, reproducible from (seed, epoch, step) alone.

The order of an epoch comes from (seed, epoch), the augmentation of a batch from (seed, epoch, step): a run
that resumes in the middle of an epoch gets the very same batches without going through the earlier ones.
With several ranks, rank r takes images r, r + world_size, … of every batch: the union over ranks is the batch
that one process would have seen.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from dsonas_hw.errors import DataError
from dsonas_hw.train.augment import Augmentation, crop_and_flip, cut_out, draw, onto
from dsonas_hw.train.data import Dataset
from dsonas_hw.train.data_decode import (
    augment_image,
    image_to_tensor,
    load_image,
    resize_and_crop_centre,
)
from dsonas_hw.train.data_images import ImageFiles, Images, num_usable_cpus
from dsonas_hw.train.distributed import local_world_size
from dsonas_hw.train.seeding import derive_seed, seeded_generator

Batch = tuple[Tensor, Tensor]
"""Images (N, C, H, W), float32, normalised; labels (N,), int64."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Batches:
    """The batches of some images: `for images, labels in batches.epoch(3): …`.

    `len(batches)` is the number of steps in an epoch.
    """

    images: Images
    dataset: Dataset
    """Whose mean and std normalise the images."""
    batch_size: int
    """Over all ranks together."""
    seed: int = 0
    shuffle: bool = True
    augmentation: Augmentation | None = None
    drop_last: bool = False
    """Leave out the last, smaller batch. Training with several ranks must: it would give them unequal shares,
    some of them none."""
    device: torch.device | str = "cpu"
    rank: int = 0
    world_size: int = 1
    num_workers: int | None = None
    """Processes that decode image files, for each rank; default one per core up to 8. Not used for images in
    memory."""

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise DataError(f"the batch size must be at least 1, got {self.batch_size}")
        if not 0 <= self.rank < self.world_size:
            raise ValueError(f"rank {self.rank} does not exist in a world of {self.world_size}")
        if self.batch_size % self.world_size:
            raise DataError(
                f"a batch of {self.batch_size} cannot be shared by {self.world_size} processes; "
                f"give a multiple of {self.world_size}"
            )
        if len(self) == 0:
            raise DataError(
                f"{self.dataset.name}: {len(self.images)} image(s) do not fill one batch of "
                f"{self.batch_size}; give a smaller batch size or more images"
            )

    def __len__(self) -> int:
        full, rest = divmod(len(self.images), self.batch_size)
        return full + (1 if rest and not self.drop_last else 0)

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        """Yield the batches of one epoch, from one step on."""
        device, order = torch.device(self.device), self._order(epoch)
        steps = range(start_step, len(self))
        chosen = [order[step * self.batch_size : (step + 1) * self.batch_size] for step in steps]
        if isinstance(self.images, ImageFiles):
            decoded = self._decode_files(self.images, epoch, steps, chosen)
        else:
            decoded = (self.images.images[positions[self._mine]] for positions in chosen)
        for step, positions, images in zip(steps, chosen, decoded, strict=True):
            labels = onto(device, self.images.labels[positions[self._mine]])
            yield self._finish(onto(device, images), epoch, step, len(positions)), labels

    def stream(self, start_step: int = 0) -> Iterator[Batch]:
        """Yield batches of epoch after epoch without end, from a step counted over all epochs."""
        epoch, step = divmod(start_step, len(self))
        while True:
            yield from self.epoch(epoch, step)
            epoch, step = epoch + 1, 0

    @property
    def _mine(self) -> slice:
        return slice(self.rank, None, self.world_size)

    def _order(self, epoch: int) -> Tensor:
        if not self.shuffle:
            return torch.arange(len(self.images))
        return torch.randperm(len(self.images), generator=seeded_generator("order", self.seed, epoch))

    def _finish(self, images: Tensor, epoch: int, step: int, num_images: int) -> Tensor:
        """Augment what is left to augment, and normalise. num_images: of the whole batch, over all ranks."""
        augmentation = self.augmentation
        if augmentation is None or len(images) == 0:
            return normalise(images, self.dataset.mean, self.dataset.std)
        height, width = images.shape[2:]
        generator = seeded_generator("augment", self.seed, epoch, step)
        drawn = draw(augmentation, num_images, height, width, generator).rows(self._mine, images.device)
        if not isinstance(self.images, ImageFiles):  # files were cropped and mirrored when decoded
            images = crop_and_flip(images, augmentation, drawn)
        return cut_out(normalise(images, self.dataset.mean, self.dataset.std), augmentation, drawn)

    def _decode_files(
        self, files: ImageFiles, epoch: int, steps: range, chosen: list[Tensor]
    ) -> Iterator[Tensor]:
        """Decode in worker processes; each image's augmentation is named by (seed, epoch, step, place)."""
        requests = (  # made as they are needed: an epoch can have a million
            [
                (position, derive_seed("file", self.seed, epoch, step, place))
                for place, position in list(enumerate(positions.tolist()))[self._mine]
            ]
            for step, positions in zip(steps, chosen, strict=True)
        )
        cpus = max(1, num_usable_cpus() // local_world_size())
        num_workers = min(8, cpus) if self.num_workers is None else self.num_workers
        loader = DataLoader(
            _FileReader(files, self.augmentation),
            batch_sampler=requests,
            num_workers=num_workers,
            collate_fn=partial(_collate, empty=torch.empty(0, *self.dataset.input_shape, dtype=torch.uint8)),
            pin_memory=torch.device(self.device).type == "cuda",
            generator=torch.Generator(),  # else the loader would draw from torch's global generator
        )
        for result in loader:
            if isinstance(result, str):
                raise DataError(result)
            yield result


class BatchCursor:
    """The batch at a position; going on from one to the next costs no new start."""

    def __init__(self, batches: Batches) -> None:
        self.batches = batches
        self._next: tuple[int, int] | None = None
        self._stream: Iterator[Batch] = iter(())

    def at(self, epoch: int, step: int) -> Batch:
        """Return batch number `step` of an epoch."""
        if (epoch, step) != self._next:
            self._stream = self.batches.stream(epoch * len(self.batches) + step)
        self._next = (epoch, step + 1) if step + 1 < len(self.batches) else (epoch + 1, 0)
        return next(self._stream)


def normalise(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """uint8 (N, C, H, W) → float32 of mean 0 and deviation 1 per channel."""
    shape = (1, -1, 1, 1)
    scale = onto(images.device, torch.tensor([1 / (255 * s) for s in std]).view(shape))
    shift = onto(images.device, torch.tensor([-m / s for m, s in zip(mean, std, strict=True)]).view(shape))
    return images.float().mul_(scale).add_(shift)


class _FileReader(TorchDataset[Tensor | str]):
    """Decodes one image; runs in worker processes, so an error travels back as its message."""

    def __init__(self, files: ImageFiles, augmentation: Augmentation | None) -> None:
        self.files = files
        self.augmentation = augmentation

    def __getitem__(self, key: tuple[int, int]) -> Tensor | str:
        position, seed = key
        size = self.files.image_size
        try:
            image = load_image(self.files.path(position))
        except DataError as error:
            return str(error)
        if self.augmentation is None:
            image = resize_and_crop_centre(image, resize=self.files.short_side, crop=size)
        else:
            image = augment_image(image, self.augmentation, size=size, rng=random.Random(seed))
        return image_to_tensor(image)


def _collate(items: list[Tensor | str], *, empty: Tensor) -> Tensor | str:
    images: list[Tensor] = []
    for item in items:
        if isinstance(item, str):
            return item
        images.append(item)
    return torch.stack(images) if images else empty
