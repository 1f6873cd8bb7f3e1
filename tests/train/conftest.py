"""Small data sets that the tests write themselves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dsonas_hw.train.augment import Augmentation
from dsonas_hw.train.data import Dataset
from dsonas_hw.train.data_images import MemoryImages

WriteFolder = Callable[..., Path]


@pytest.fixture
def write_folder(tmp_path: Path) -> WriteFolder:
    """write_folder("train", cat=3, dog=2, size=8): PNG files of random pixels, one folder per class."""

    def write(side: str = "", *, size: int | tuple[int, int] = 8, suffix: str = "png", **counts: int) -> Path:
        width, height = (size, size) if isinstance(size, int) else size
        rng = np.random.default_rng(len(side))
        for name, count in counts.items():
            directory = tmp_path / "images" / side / name
            directory.mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(directory / f"{number:03}.{suffix}")
        return tmp_path / "images"

    return write


def numbered_dataset(num_images: int, *, num_classes: int = 3, size: int = 4) -> Dataset:
    """Image i is filled with i (its mean and deviation are set so that normalising divides by 255)."""
    numbers = torch.arange(num_images, dtype=torch.uint8)
    images = MemoryImages(
        images=numbers.view(-1, 1, 1, 1).expand(-1, 1, size, size).contiguous(),
        labels=torch.arange(num_images) % num_classes,
    )
    return Dataset(
        name="numbered",
        train=images,
        test=images,
        class_names=tuple(f"class{label}" for label in range(num_classes)),
        input_shape=(1, size, size),
        mean=(0.0,),
        std=(1.0,),
        augmentation=Augmentation(flip=True, pad=1),
    )


@pytest.fixture(name="numbered_dataset")
def _numbered_dataset() -> Callable[..., Dataset]:
    return numbered_dataset
