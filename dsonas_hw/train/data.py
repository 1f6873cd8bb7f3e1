"""Datasets by name: find, check, decode; or say what to download and where to put it.

    load_dataset(data: DataConfig) ─▶ Dataset ─▶ Dataset.split_for_search ─▶ W images, λ images ─▶ Batches

Small sets live in memory as uint8 tensors (`MemoryImages`); large ones stay on disk (`ImageFiles`).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import torch

from dsonas_hw.config import DataConfig
from dsonas_hw.errors import DataError, closest
from dsonas_hw.train import data_idx
from dsonas_hw.train.augment import Augmentation
from dsonas_hw.train.data_folder import choose_image_size, decode_all, fits_in_memory, scan_sides
from dsonas_hw.train.data_images import (
    ImageFiles,
    Images,
    MemoryImages,
    Split,
    channel_statistics,
    resize_images,
)
from dsonas_hw.train.data_layout import find_sides, sides_of
from dsonas_hw.train.data_split import choose_subset, split_by_class
from dsonas_hw.train.known_images import FOLDER_PREFIX, refuse_sides

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """A train and a test side, and what a network needs to know about the images."""

    name: str
    train: Images
    test: Images
    class_names: tuple[str, ...]
    input_shape: tuple[int, int, int]
    """Channels, height, width."""
    mean: tuple[float, ...]
    """Of each channel, pixels counted 0 … 1."""
    std: tuple[float, ...]
    augmentation: Augmentation
    """What suits these images in training; change fields with `dataclasses.replace`."""

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    def split_for_search(
        self, ratio: tuple[float, float] | None = (1, 1), *, seed: int = 0
    ) -> tuple[Images, Images]:
        """Return the training images that teach the weights W, and those that teach λ.

        ratio: W:λ, (1, 1) or (4, 1) in the paper. None is the "no split" ablation: both are the whole set.

        Raises:
            DataError: a class would have no images on one side; named in the message.
        """
        if ratio is None:
            return self.train, self.train
        parts = split_by_class(self.train.labels, ratio, seed=seed)
        for part, learner in zip(parts, ("weights", "λ"), strict=True):
            counts = torch.bincount(self.train.labels[part], minlength=self.num_classes)
            for label, count in enumerate(counts.tolist()):
                if count == 0:
                    total = int((self.train.labels == label).sum())
                    raise DataError(
                        f"class {self.class_names[label]!r} of {self.name} has {total} training image(s), so "
                        f"none for the {learner} half of the {ratio[0]:g}:{ratio[1]:g} split; add images of "
                        "it, remove the class, take a larger subset, or search without a split"
                    )
        return self.train.take(parts[0]), self.train.take(parts[1])


def load_dataset(data: DataConfig, *, download: bool = False, in_memory: bool | None = None) -> Dataset:
    """Load a dataset: one of `KNOWN_IMAGES`, or folder:PATH.

    data: its files are in `data_dir`, or go there when downloaded; default `default_data_dir()`.
    download: fetch files that are not there, where the dataset can be fetched.
    in_memory: for images in folders, whether to decode them once; default: when they are small and fit.

    Raises:
        DataError: unknown name, missing or damaged data; the message says what to do.
    """
    refuse_sides(data)
    try:
        sides, augmentation = _load_sides(data, download)
        train, test = _take_subset(sides.train, data.subset), _take_subset(sides.test, data.test_subset)
        return _finish(data, replace(sides, train=train, test=test), in_memory, augmentation)
    except OSError as error:
        raise DataError(f"dataset {data.dataset}: {error}; check that the files can be read") from error


def _load_sides(data: DataConfig, download: bool) -> tuple[Split, Augmentation]:
    name = data.dataset
    if name.startswith(FOLDER_PREFIX):
        return scan_sides(sides_of(data)), Augmentation(flip=True, colour=0.2)
    if name in _LOADERS:
        load, augmentation = _LOADERS[name]
        return load(data.data_dir.expanduser() if data.data_dir else None, download), augmentation
    raise DataError(f"unknown dataset {name!r}. {closest(name, [*_LOADERS, 'folder:PATH'])}")


def default_data_dir() -> Path:
    """Return where datasets are looked for: $DSONAS_HW_HOME/datasets, or in the user's data directory."""
    if home := os.environ.get("DSONAS_HW_HOME"):
        return Path(home).expanduser() / "datasets"
    import platformdirs

    return Path(platformdirs.user_data_dir("dsonas-hw")) / "datasets"


def _take_subset(images: Images, num_images: int | None) -> Images:
    return images if num_images is None else images.take(choose_subset(images.labels, num_images, seed=0))


def _finish(data: DataConfig, sides: Split, in_memory: bool | None, augmentation: Augmentation) -> Dataset:
    """Bring both sides to one size, decode what fits, measure the channels."""
    train, test = sides.train, sides.test
    if isinstance(train, ImageFiles) and isinstance(test, ImageFiles):
        size = data.image_size or choose_image_size(train)
        train, test = replace(train, image_size=size), replace(test, image_size=size)
        if fits_in_memory(len(train) + len(test), size) if in_memory is None else in_memory:
            train, test = decode_all(train), decode_all(test)
    elif isinstance(train, MemoryImages) and isinstance(test, MemoryImages):
        size = data.image_size or train.images.shape[2]
        train = replace(train, images=resize_images(train.images, size))
        test = replace(test, images=resize_images(test.images, size))
    if isinstance(train, MemoryImages):
        channels = train.images.shape[1]
        mean, std = channel_statistics(train.images)
        # A shift by up to an eighth of the side: 4 pixels of 32, as usual for CIFAR.
        fill: tuple[int, ...] = ()  # black
        if data.pad_value:
            fill = tuple(round(255 * m) if data.pad_value == "mean" else data.pad_value for m in mean)
        augmentation = replace(augmentation, pad=round(size / 8), fill=fill)
    else:
        channels, mean, std = 3, IMAGENET_MEAN, IMAGENET_STD
    return Dataset(
        name=data.dataset,
        train=train,
        test=test,
        class_names=sides.class_names,
        input_shape=(channels, size, size),
        mean=mean,
        std=std,
        augmentation=augmentation,
    )


def _load_digits(data_dir: Path | None, download: bool) -> Split:
    """scikit-learn's 1,797 digits of 8×8 pixels, which come with the library; 4 of 5 of each class train."""
    import numpy as np
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)  # 0 … 16
    images = torch.from_numpy(np.rint(pixels * (255 / 16)).astype(np.uint8)).view(-1, 1, 8, 8)
    everything = MemoryImages(images=images, labels=torch.from_numpy(labels).long())
    train, test = split_by_class(everything.labels, (4, 1), seed=0)
    return Split(
        train=everything.take(train), test=everything.take(test), class_names=tuple(map(str, range(10)))
    )


def _load_fashion_mnist(data_dir: Path | None, download: bool) -> Split:
    directories = [data_dir] if data_dir else [default_data_dir(), data_idx.DEBIAN_DIR]
    place = data_idx.find_fashion_mnist(directories)
    if place is None and download:
        _download("FashionMNIST", directories[0])
        place = data_idx.find_fashion_mnist(directories[:1])
    if place is None:
        places = " or ".join(map(str, directories))
        raise DataError(
            f"Fashion-MNIST is not in {places}. Pass --download, or put the four *-ubyte.gz files of "
            f"https://github.com/zalandoresearch/fashion-mnist in {directories[0]}, or on Debian and Ubuntu: "
            f"apt install dataset-fashion-mnist and --data-dir {data_idx.DEBIAN_DIR}"
        )
    train, test = data_idx.load_fashion_mnist(place)
    return Split(train=train, test=test, class_names=data_idx.CLASS_NAMES)


def _load_cifar(title: Literal["CIFAR10", "CIFAR100"], data_dir: Path | None, download: bool) -> Split:
    """CIFAR through torchvision, which reads a file only if its checksum is that of the authors' file."""
    import torchvision

    reader = getattr(torchvision.datasets, title)
    directory = data_dir or default_data_dir()
    if directory.name == reader.base_folder:
        directory = directory.parent
    folder = directory / reader.base_folder
    if not folder.is_dir():
        if (directory / "train").is_dir():
            return scan_sides(find_sides(directory))
        if not download:
            raise DataError(
                f"{title} is not in {directory}. Pass --download, or unpack {reader.url} there (giving "
                f"{folder}), or put the images in train/<class>/ and test/<class>/ below it"
            )
        _download(title, directory)
    try:
        train, test = (reader(directory, train=is_train) for is_train in (True, False))
    except RuntimeError:
        raise DataError(
            f"{folder} lacks a file of {title}, or one is damaged; delete the folder, then pass --download "
            f"or unpack {reader.url} again"
        ) from None
    sides = [
        MemoryImages(images=torch.from_numpy(side.data).permute(0, 3, 1, 2).contiguous(),
                     labels=torch.tensor(side.targets))
        for side in (train, test)
    ]  # fmt: skip
    return Split(train=sides[0], test=sides[1], class_names=tuple(train.classes))


def _load_imagenet(data_dir: Path | None, download: bool) -> Split:
    directory = data_dir or default_data_dir() / "imagenet"
    if not (directory / "train").is_dir() or not (directory / "val").is_dir():
        raise DataError(
            f"ImageNet is not in {directory}. It cannot be downloaded automatically: get "
            "ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar from https://image-net.org (log-in needed) "
            f"and unpack them to {directory}/train/<class>/ and {directory}/val/<class>/, as torchvision does"
        )
    return scan_sides(find_sides(directory))


def _download(title: str, directory: Path) -> None:
    import torchvision

    try:
        getattr(torchvision.datasets, title)(directory, download=True)
    except Exception as error:  # URLError, RuntimeError (checksum), OSError (disk), tarfile.ReadError, …
        reason = " ".join(str(error).split())
        raise DataError(
            f"downloading {title} to {directory} failed: {reason}; check the network, or get the files by "
            "hand and give their directory with --data-dir"
        ) from error


#: Name → loader of (data_dir, download), and the augmentation that suits the images.
_LOADERS: dict[str, tuple[Callable[[Path | None, bool], Split], Augmentation]] = {
    "digits": (_load_digits, Augmentation()),
    "fashion-mnist": (_load_fashion_mnist, Augmentation(flip=True)),
    "cifar10": (partial(_load_cifar, "CIFAR10"), Augmentation(flip=True)),
    "cifar100": (partial(_load_cifar, "CIFAR100"), Augmentation(flip=True)),
    "imagenet": (_load_imagenet, Augmentation(flip=True, colour=0.4, lighting=0.1)),
}
