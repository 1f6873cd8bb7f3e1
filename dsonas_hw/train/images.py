"""The images of a configuration, and the search space for their shape; torch is imported to read them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dsonas_hw.config import DataConfig, RunConfig
from dsonas_hw.errors import DataError
from dsonas_hw.space.space import SearchSpace

if TYPE_CHECKING:
    from dsonas_hw.train.data import Dataset
    from dsonas_hw.train.data_images import ImageFiles
    from dsonas_hw.train.data_layout import Sides

#: Shapes and classes of the named datasets, so that sizes are known without the images.
KNOWN_SHAPES: dict[str, tuple[tuple[int, int, int], int]] = {
    "digits": ((1, 8, 8), 10),
    "fashion-mnist": ((1, 28, 28), 10),
    "cifar10": ((3, 32, 32), 10),
    "cifar100": ((3, 32, 32), 100),
    "imagenet": ((3, 224, 224), 1000),
}


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
    if data.dataset in KNOWN_SHAPES:
        (channels, height, width), num_classes = KNOWN_SHAPES[data.dataset]
        size = data.image_size
        return build_space(config, (channels, size or height, size or width), num_classes)
    dataset = load_data(config)
    return build_space(config, dataset.input_shape, dataset.num_classes)


def load_data(config: RunConfig, *, download: bool = False) -> Dataset:
    """Return the images of a configuration.

    Raises:
        DataError: unknown, missing or damaged; says what to download and where to put it.
    """
    return load_images(config.data, download=download)


def load_images(data: DataConfig, *, download: bool = False) -> Dataset:
    """The same, of the configuration's data alone; errors as of `load_data`."""
    from dsonas_hw.train.data import load_dataset

    return load_dataset(
        data.dataset,
        data_dir=data.data_dir,
        download=download,
        image_size=data.image_size,
        train_dir=data.train_dir,
        test_dir=data.test_dir,
        subset=data.subset,
        subset_test=data.test_subset,
        pad_value=data.pad_value,
    )


def image_facts(data: DataConfig) -> ImageFacts:
    """What is known of images in folders; no image is decoded.

    Raises:
        DataError: as of `load_data`.
    """
    from dsonas_hw.train.data_folder import middle_side

    train, _, names, _ = _scan_folders(data)
    return ImageFacts(num_images=len(train), num_classes=len(names), side_px=middle_side(train))


def _scan_folders(data: DataConfig) -> tuple[ImageFiles, ImageFiles, tuple[str, ...], Sides]:
    from dsonas_hw.train.data import folder_of
    from dsonas_hw.train.data_folder import scan_sides
    from dsonas_hw.train.data_layout import find_sides

    sides = find_sides(folder_of(data.dataset), train_dir=data.train_dir, test_dir=data.test_dir)
    return (*scan_sides(sides), sides)


def describe_images(config: RunConfig) -> dict[str, Any] | None:
    """Return where the images of folder:PATH are: sides, classes, counts, what is ignored; else None.

    Raises:
        DataError: as of `load_data`.
    """
    data = config.data
    if not data.dataset.startswith("folder:"):  # which needs no torch
        if data.train_dir or data.test_dir:
            raise DataError(
                f"--train-dir and --test-dir are for --dataset folder:PATH, not for {data.dataset}"
            )
        return None
    train, test, names, sides = _scan_folders(data)
    described: dict[str, Any] = {"ignored": list(sides.ignored)}
    for side, files, directory in (("train", train, sides.train), ("test", test, sides.test)):
        counts = files.labels.bincount(minlength=len(names)).tolist()
        described[side] = {
            "directory": str(directory or sides.train),
            "split_off": directory is None,
            "num_images": len(files),
            "classes": dict(zip(names, counts, strict=True)),
        }
    return described
