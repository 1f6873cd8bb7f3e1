"""CIFAR-10 and CIFAR-100 from the python batches, as torchvision unpacks them.

The batches are pickles. They are read with an unpickler that knows numpy arrays and nothing else, so that a
file from elsewhere cannot run code.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dsonas_hw.errors import DataError
from dsonas_hw.train.data_images import MemoryImages


@dataclass(frozen=True, kw_only=True)
class CifarLayout:
    """Where a CIFAR data set keeps its parts."""

    folder: str
    train_files: tuple[str, ...]
    test_file: str
    meta_file: str
    label_key: str
    class_names_key: str


CIFAR10 = CifarLayout(
    folder="cifar-10-batches-py",
    train_files=tuple(f"data_batch_{number}" for number in range(1, 6)),
    test_file="test_batch",
    meta_file="batches.meta",
    label_key="labels",
    class_names_key="label_names",
)
CIFAR100 = CifarLayout(
    folder="cifar-100-python",
    train_files=("train",),
    test_file="test",
    meta_file="meta",
    label_key="fine_labels",
    class_names_key="fine_label_names",
)


def find_cifar(layout: CifarLayout, directories: list[Path]) -> Path | None:
    """The first of these directories, or their subdirectory of that name, that holds the batches."""
    for directory in directories:
        for place in (directory / layout.folder, directory):
            if (place / layout.meta_file).is_file() and (place / layout.test_file).is_file():
                return place
    return None


def load_cifar(layout: CifarLayout, place: Path) -> tuple[MemoryImages, MemoryImages, tuple[str, ...]]:
    """Train images, test images and class names."""
    class_names = _load(place / layout.meta_file).get(layout.class_names_key)
    if not isinstance(class_names, list) or not all(isinstance(name, str) for name in class_names):
        raise DataError(f"{place / layout.meta_file} names no classes; unpack the archive again")
    parts = [_load_batch(place / name, layout, len(class_names)) for name in layout.train_files]
    train = MemoryImages(
        images=torch.cat([part.images for part in parts]), labels=torch.cat([part.labels for part in parts])
    )
    return train, _load_batch(place / layout.test_file, layout, len(class_names)), tuple(class_names)


def _load_batch(path: Path, layout: CifarLayout, num_classes: int) -> MemoryImages:
    batch = _load(path)
    pixels, labels = batch.get("data"), batch.get(layout.label_key)
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape[1:] != (3072,):
        raise DataError(f"{path} holds no 32×32 colour images under 'data'; unpack the archive again")
    if not isinstance(labels, list) or len(labels) != len(pixels):
        raise DataError(
            f"{path} does not hold one label per image under {layout.label_key!r}; unpack the archive again"
        )
    if not all(isinstance(label, int) and 0 <= label < num_classes for label in labels):
        raise DataError(f"{path} has labels that are not 0 to {num_classes - 1}; unpack the archive again")
    images = torch.from_numpy(pixels.reshape(-1, 3, 32, 32).copy())
    return MemoryImages(images=images, labels=torch.tensor(labels, dtype=torch.int64))


def _load(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            value = _ArraysOnly(file, encoding="latin1").load()
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise DataError(f"cannot read {path}: {error}; unpack the archive again") from error
    if not isinstance(value, dict):
        raise DataError(f"{path} is not a CIFAR batch; unpack the archive again")
    return value


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        allowed = {("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")}
        allowed |= {
            (f"numpy.{core}.{file}", function)
            for core in ("core", "_core")
            for file, function in (("multiarray", "_reconstruct"), ("numeric", "_frombuffer"))
        }
        if (module, name) not in allowed:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which image data does not need")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)
