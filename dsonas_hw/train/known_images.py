"""The datasets that have a name, and what is known of them without their files; needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dsonas_hw.errors import DataError

if TYPE_CHECKING:
    from dsonas_hw.config import DataConfig

FOLDER_PREFIX = "folder:"


@dataclass(frozen=True, kw_only=True)
class KnownImages:
    """What is known of a named dataset without its files."""

    input_shape: tuple[int, int, int]
    """Channels, height, width."""
    num_classes: int
    num_train: int
    """Images of the training side."""


KNOWN_IMAGES: dict[str, KnownImages] = {
    "digits": KnownImages(input_shape=(1, 8, 8), num_classes=10, num_train=1438),
    "fashion-mnist": KnownImages(input_shape=(1, 28, 28), num_classes=10, num_train=60_000),
    "cifar10": KnownImages(input_shape=(3, 32, 32), num_classes=10, num_train=50_000),
    "cifar100": KnownImages(input_shape=(3, 32, 32), num_classes=100, num_train=50_000),
    "imagenet": KnownImages(input_shape=(3, 224, 224), num_classes=1000, num_train=1_281_167),
}
"""By name, so that budgets and sizes are checked without images."""


def refuse_sides(data: DataConfig) -> None:
    """Refuse folders that are named for another dataset than folder:PATH.

    Raises:
        DataError: they are.
    """
    if (data.train_dir or data.test_dir) and not data.dataset.startswith(FOLDER_PREFIX):
        raise DataError(f"--train-dir and --test-dir are for --dataset folder:PATH, not for {data.dataset}")
