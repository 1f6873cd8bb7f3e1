"""Labelled images, in memory or as files: what a dataset's train and test sides are made of."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True, kw_only=True, eq=False)
class MemoryImages:
    """Images decoded into one tensor."""

    images: Tensor
    """(N, C, H, W), uint8."""
    labels: Tensor
    """(N,), int64."""

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.ndim != 4:
            raise ValueError(
                f"images must be uint8 (N, C, H, W), got {self.images.dtype} {self.images.shape}"
            )
        if self.labels.dtype != torch.int64 or self.labels.shape != self.images.shape[:1]:
            raise ValueError(f"labels must be int64 ({len(self.images)},), got {self.labels.shape}")

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, positions: Tensor) -> MemoryImages:
        """Return the images at some positions, in that order."""
        return MemoryImages(images=self.images[positions], labels=self.labels[positions])


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageFiles:
    """Images that stay on disk and are decoded when a batch needs them."""

    root: Path
    names: NDArray[np.bytes_]
    """(N,), paths below `root`; bytes in one array, which worker processes share without copying."""
    labels: Tensor
    """(N,), int64."""
    image_size: int
    """Height and width that an image is brought to."""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def short_side(self) -> int:
        """What the short side is resized to for a test, before the middle is kept: 256 for 224."""
        return round(self.image_size * 256 / 224)

    def take(self, positions: Tensor) -> ImageFiles:
        """Return the images at some positions, in that order."""
        return ImageFiles(
            root=self.root,
            names=self.names[positions.numpy()],
            labels=self.labels[positions],
            image_size=self.image_size,
        )

    def path(self, position: int) -> Path:
        """Return the file of one image."""
        return self.root / os.fsdecode(self.names[position])


Images = MemoryImages | ImageFiles


@dataclass(frozen=True, kw_only=True)
class Split:
    """The train and the test side of a dataset."""

    train: Images
    test: Images
    class_names: tuple[str, ...]


def num_usable_cpus() -> int:
    """Return how many processor cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def channel_statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and standard deviation of each channel, in units of the full range (0 … 1).

    Counted over the 256 values a pixel can have: exact, whatever the number of images. A constant channel
    gets the deviation of one grey level, so that dividing by it stays harmless.
    """
    values = torch.arange(256, dtype=torch.float64) / 255
    means: list[float] = []
    deviations: list[float] = []
    for channel in range(images.shape[1]):
        fraction = torch.bincount(images[:, channel].flatten(), minlength=256).double()
        fraction /= fraction.sum()
        mean = float((fraction * values).sum())
        variance = float((fraction * (values - mean) ** 2).sum())
        means.append(mean)
        deviations.append(max(variance**0.5, 1 / 255))
    return tuple(means), tuple(deviations)


def resize_images(images: Tensor, size: int) -> Tensor:
    """Bring square uint8 images (N, C, H, W) to size × size, bilinearly, antialiased when shrinking."""
    if images.shape[2:] == (size, size):
        return images
    parts: tuple[Tensor, ...] = torch.split(images, 1024)
    resized = [
        F.interpolate(part.float(), size=(size, size), mode="bilinear", antialias=True)
        .round_()
        .clamp_(0, 255)
        .to(torch.uint8)
        for part in parts
    ]
    return torch.cat(resized)
