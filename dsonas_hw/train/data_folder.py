"""Images in folders, one folder per class (torchvision's ImageFolder layout).

ROOT/train/<class>/*.jpg  and  ROOT/val/<class>/*.jpg                  two sides (see `data_layout`)
ROOT/<class>/*.jpg                                                     one folder, split by class, 4:1
"""

from __future__ import annotations

import logging
import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from dsonas_hw.errors import DataError
from dsonas_hw.train.data_decode import (
    EXTENSIONS,
    image_dimensions,
    load_image,
    resize_and_crop_centre,
)
from dsonas_hw.train.data_images import ImageFiles, MemoryImages, Split, num_usable_cpus
from dsonas_hw.train.data_layout import Sides, class_folders
from dsonas_hw.train.data_split import split_by_class

TRAIN_TO_TEST = (4.0, 1.0)
MAX_MEMORY_SIDE = 96
"""Images up to this side are kept in memory when there is room, and are never resized unasked."""
MAX_MEMORY_BYTES = 2 * 2**30
DEFAULT_SIDE = 224

log = logging.getLogger(__name__)


def scan_sides(sides: Sides) -> Split:
    """Find the train files, the test files and the class names.

    The files carry image_size 0: it is not chosen yet.

    Raises:
        DataError: fewer than two classes, a class without images, classes that differ between the two sides.
    """
    files, class_names = scan_classes(sides.train)
    if sides.test is not None:
        test, test_names = scan_classes(sides.test)
        _check_same_classes(sides.test, class_names, test_names, sides.train)
        return Split(train=files, test=test, class_names=class_names)
    train_positions, test_positions = split_by_class(files.labels, TRAIN_TO_TEST, seed=0)
    for label, count in enumerate(torch.bincount(files.labels).tolist()):
        if count < 2:
            raise DataError(
                f"class {class_names[label]!r} of {files.root} has {count} image; at least 2 are needed, one "
                "to train on and one to test on"
            )
    train, test = files.take(train_positions), files.take(test_positions)
    return Split(train=train, test=test, class_names=class_names)


def scan_classes(root: Path) -> tuple[ImageFiles, tuple[str, ...]]:
    """Return the image files below each class folder of a directory, sorted, and the class names."""
    try:
        class_names = class_folders(root)
        if len(class_names) < 2:
            found = f"only {class_names[0]!r}" if class_names else "none"
            raise DataError(f"{root} needs a folder for each of two or more classes, found {found}")
        for name, other in _alike(class_names, class_names):
            raise DataError(
                f"{root} has two classes that differ only in how they are written, {name!r} and {other!r}; "
                "put their images into one folder, or rename one"
            )
        names: list[bytes] = []
        labels: list[int] = []
        for label, class_name in enumerate(class_names):
            found_names = _images_below(root, class_name)
            names += found_names
            labels += [label] * len(found_names)
    except OSError as error:
        raise DataError(f"cannot read {root}: {error.strerror}; check its permissions") from error
    files = ImageFiles(
        root=root, names=np.array(names, dtype=np.bytes_), labels=torch.tensor(labels), image_size=0
    )
    return files, tuple(class_names)


def choose_image_size(files: ImageFiles) -> int:
    """Return the size of the images, where they are small and alike (64 of them are looked at); else 224."""
    (width, height), *others = set(_some_dimensions(files))
    if not others and width == height <= MAX_MEMORY_SIDE:
        return width
    return DEFAULT_SIDE


def middle_side(files: ImageFiles) -> int:
    """Return the shorter side in pixels of the image in the middle by size, of 64 that are looked at."""
    sides = sorted(min(size) for size in _some_dimensions(files))
    return sides[len(sides) // 2]


def _some_dimensions(files: ImageFiles) -> list[tuple[int, int]]:
    positions = np.linspace(0, len(files) - 1, num=min(64, len(files)), dtype=int)
    return [image_dimensions(files.path(int(position))) for position in positions]


def fits_in_memory(num_images: int, image_size: int) -> bool:
    """Return whether images of this size are better decoded once and kept than read for every batch."""
    return image_size <= MAX_MEMORY_SIDE and num_images * 3 * image_size**2 <= MAX_MEMORY_BYTES


def decode_all(files: ImageFiles) -> MemoryImages:
    """Decode all files into one tensor: short side resized to image_size, centre kept."""
    size, num_images = files.image_size, len(files)
    images = torch.empty((num_images, 3, size, size), dtype=torch.uint8)
    pixels = images.numpy().transpose(0, 2, 3, 1)  # the same memory, as Pillow orders it

    def decode(first: int) -> None:
        for position in range(first, min(first + 256, num_images)):
            image = load_image(files.path(position))
            pixels[position] = np.asarray(resize_and_crop_centre(image, resize=size, crop=size))

    with ThreadPoolExecutor(max_workers=min(8, num_usable_cpus())) as pool:
        try:
            for _ in pool.map(decode, range(0, num_images, 256)):
                pass
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return MemoryImages(images=images, labels=files.labels)


def _images_below(root: Path, class_name: str) -> list[bytes]:
    names: list[bytes] = []
    others: Counter[str] = Counter()

    def fail(error: OSError) -> None:
        raise error

    for directory, folders, file_names in os.walk(root / class_name, onerror=fail):
        folders.sort()
        prefix = os.path.relpath(directory, root)
        for file_name in sorted(file_names):
            if file_name.startswith("."):
                continue
            if file_name.lower().endswith(EXTENSIONS):
                names.append(os.fsencode(f"{prefix}/{file_name}"))
            else:
                others[Path(file_name).suffix] += 1
    if not names:
        found = f"only files ending in {', '.join(map(repr, sorted(others)))}" if others else "nothing"
        raise DataError(
            f"class folder {root / class_name} has no images (found {found}; images end in "
            f"{', '.join(EXTENSIONS)}); add images or remove the folder"
        )
    if others:
        _warn_once(f"{root / class_name}: ignoring {others.total()} file(s) that are not images")
    return names


@lru_cache(maxsize=1000)
def _warn_once(message: str) -> None:
    """A folder is scanned when it is described and again when it is loaded."""
    log.warning("%s", message)


def _check_same_classes(side: Path, train: tuple[str, ...], test: tuple[str, ...], train_side: Path) -> None:
    if train == test:
        return
    missing = sorted(set(train) - set(test))
    added = sorted(set(test) - set(train))
    for name, other in _alike(missing, added):
        raise DataError(f"{train_side} has the class {name!r} and {side} has {other!r}; rename one")
    if missing:
        raise DataError(f"{side} lacks {len(missing)} of the classes in {train_side.name}/: {_some(missing)}")
    raise DataError(f"{side} has {len(added)} class(es) that {train_side.name}/ lacks: {_some(added)}")


def _alike(names: Iterable[str], others: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Pairs of different names that are the same but for case, blanks at their ends and how é is encoded."""

    def plain(name: str) -> str:
        return unicodedata.normalize("NFKC", name).strip().casefold()

    written = {plain(name): name for name in names}
    return ((written[plain(o)], o) for o in others if written.get(plain(o), o) != o)


def _some(names: list[str]) -> str:
    return ", ".join(map(repr, names[:5])) + (", …" if len(names) > 5 else "")
