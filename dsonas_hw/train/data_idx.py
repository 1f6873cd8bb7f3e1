"""Fashion-MNIST from IDX files, packed or not, as torchvision or Debian's dataset-fashion-mnist leave them.

An IDX file is: two zero bytes, a type byte (8 = uint8), the number of dimensions, each dimension as a
big-endian 32-bit number, then the values.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from math import prod
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import torch
from torch import Tensor

from dsonas_hw.errors import DataError
from dsonas_hw.train.data_images import MemoryImages

CLASS_NAMES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
DEBIAN_DIR = Path("/usr/share/datasets/fashion-mnist")
MAX_BYTES = 2**30
"""More than this in one file is not a data set of this kind (the real one has 47 MB)."""


def find_fashion_mnist(directories: list[Path]) -> Path | None:
    """Return the first place below these directories that holds any of the IDX files."""
    for directory in directories:
        for place in (directory, directory / "FashionMNIST" / "raw", directory / "fashion-mnist"):
            if _find(place, "train-images-idx3-ubyte") or _find(place, "t10k-images-idx3-ubyte"):
                return place
    return None


def load_fashion_mnist(place: Path) -> tuple[MemoryImages, MemoryImages]:
    """Return the train and test images of a directory with the four IDX files."""
    return _load_side(place, "train"), _load_side(place, "t10k")


def _load_side(place: Path, prefix: str) -> MemoryImages:
    images = load_idx(_need(place, f"{prefix}-images-idx3-ubyte"), num_dimensions=3)
    labels_path = _need(place, f"{prefix}-labels-idx1-ubyte")
    labels = load_idx(labels_path, num_dimensions=1)
    if len(images) != len(labels):
        raise DataError(
            f"{place}: {len(images)} {prefix} images but {len(labels)} labels; get the files again"
        )
    if len(labels) == 0 or int(labels.max()) >= len(CLASS_NAMES):
        raise DataError(f"{labels_path}: labels must be 0 to {len(CLASS_NAMES) - 1}; get the file again")
    return MemoryImages(images=images[:, None], labels=labels.long())


def load_idx(path: Path, *, num_dimensions: int) -> Tensor:
    """Return a uint8 tensor from an IDX file.

    Raises:
        DataError: the file is truncated, damaged, or something else.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            return _read_idx(cast(BinaryIO, file), path, num_dimensions)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot read {path}: {error}; get the file again") from error


def _read_idx(file: BinaryIO, path: Path, num_dimensions: int) -> Tensor:
    header = file.read(4 + 4 * num_dimensions)
    if len(header) < 4 + 4 * num_dimensions or header[:4] != bytes((0, 0, 8, num_dimensions)):
        raise DataError(f"{path} is not an IDX file of {num_dimensions} dimension(s); get the file again")
    shape = struct.unpack(f">{num_dimensions}I", header[4:])
    num_bytes = prod(shape)
    if num_bytes > MAX_BYTES:
        raise DataError(f"{path} claims {num_bytes} bytes of values, more than the {MAX_BYTES} allowed")
    values = file.read(num_bytes + 1)
    if len(values) != num_bytes:
        found = f"only {len(values)}" if len(values) < num_bytes else "more"
        raise DataError(f"{path} should hold {num_bytes} values but holds {found}; get the file again")
    return torch.from_numpy(np.frombuffer(values, dtype=np.uint8).reshape(shape).copy())


def _find(place: Path, name: str) -> Path | None:
    for path in (place / name, place / f"{name}.gz"):
        if path.is_file():
            return path
    return None


def _need(place: Path, name: str) -> Path:
    path = _find(place, name)
    if path is None:
        raise DataError(f"{place / name} (or {name}.gz) is missing, though its companions are there")
    return path
