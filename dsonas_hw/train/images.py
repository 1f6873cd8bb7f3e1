"""The images of a configuration, and the search space for their shape; torch is imported to read them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from dsonas_hw.config import DataConfig, RunConfig
from dsonas_hw.space.space import SearchSpace
from dsonas_hw.train.known_images import FOLDER_PREFIX, KNOWN_IMAGES, refuse_sides

if TYPE_CHECKING:
    from dsonas_hw.train.data import Dataset


@dataclass(frozen=True, kw_only=True)
class ImageFacts:
    """What is known of images in folders without decoding them."""

    num_images: int
    """For training."""
    num_classes: int
    side_px: int
    """Shorter side: of the image in the middle, of those that were looked at."""


def build_space(config: RunConfig, input_shape: tuple[int, int, int], num_classes: int) -> SearchSpace:
    """Return the search space of a configuration, for images of a shape.

    Raises:
        UserError: sizes that make no network, e.g. too many stages for the images.
    """
    return SearchSpace(**config.space.model_dump(), input_shape=input_shape, num_classes=num_classes)


def space_of_config(config: RunConfig) -> SearchSpace:
    """Return the same without loading images where the dataset's shape is known; `folder:` is scanned.

    Raises:
        DataError: an unknown dataset, or a folder that is not there.
    """
    data = config.data
    if known := KNOWN_IMAGES.get(data.dataset):
        channels, height, width = known.input_shape
        size = data.image_size
        return build_space(config, (channels, size or height, size or width), known.num_classes)
    dataset = load_data(config)
    return build_space(config, dataset.input_shape, dataset.num_classes)


def load_data(config: RunConfig, *, download: bool = False) -> Dataset:
    """Return the images of a configuration.

    Raises:
        DataError: unknown, missing or damaged; says what to download and where to put it.
    """
    from dsonas_hw.train.data import load_dataset

    return load_dataset(config.data, download=download)


def image_facts(data: DataConfig) -> ImageFacts:
    """What is known of images in folders; no image is decoded.

    Raises:
        DataError: as of `load_data`.
    """
    from dsonas_hw.train.data_folder import middle_side, scan_sides
    from dsonas_hw.train.data_images import ImageFiles
    from dsonas_hw.train.data_layout import sides_of

    found = scan_sides(sides_of(data))
    assert isinstance(found.train, ImageFiles)
    return ImageFacts(
        num_images=len(found.train), num_classes=len(found.class_names), side_px=middle_side(found.train)
    )


@lru_cache(maxsize=64)
def count_train_images(data: DataConfig) -> int:
    """Count the training images; those of folder:PATH are scanned, those of an unlisted set are loaded.

    Raises:
        DataError: images that are not there.
    """
    if data.dataset in KNOWN_IMAGES:
        number = KNOWN_IMAGES[data.dataset].num_train
    elif data.dataset.startswith(FOLDER_PREFIX):
        number = image_facts(data).num_images
    else:
        from dsonas_hw.train.data import load_dataset

        number = len(load_dataset(data).train)
    return min(number, data.subset or number)


def describe_images(config: RunConfig) -> dict[str, Any] | None:
    """Return where the images of folder:PATH are: sides, classes, counts, what is ignored; else None.

    Raises:
        DataError: as of `load_data`.
    """
    data = config.data
    refuse_sides(data)
    if not data.dataset.startswith(FOLDER_PREFIX):  # which needs no torch
        return None
    from dsonas_hw.train.data_folder import scan_sides
    from dsonas_hw.train.data_layout import sides_of

    sides = sides_of(data)
    found = scan_sides(sides)
    described: dict[str, Any] = {"ignored": list(sides.ignored)}
    for side, files, directory in (("train", found.train, sides.train), ("test", found.test, sides.test)):
        counts = files.labels.bincount(minlength=len(found.class_names)).tolist()
        described[side] = {
            "directory": str(directory or sides.train),
            "split_off": directory is None,
            "num_images": len(files),
            "classes": dict(zip(found.class_names, counts, strict=True)),
        }
    return described
