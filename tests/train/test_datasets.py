"""Datasets by name: what is found, what is the same every time, and what a wrong name or place says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision

from dsonas_hw.config import DataConfig
from dsonas_hw.errors import DataError
from dsonas_hw.train import data_idx
from dsonas_hw.train.augment import Augmentation
from dsonas_hw.train.data import default_data_dir, load_dataset
from dsonas_hw.train.data_images import (
    ImageFiles,
    MemoryImages,
    channel_statistics,
    resize_images,
)
from dsonas_hw.train.known_images import KNOWN_IMAGES


def memory(images: Any) -> MemoryImages:
    assert isinstance(images, MemoryImages)
    return images


def test_digits():
    digits = load_dataset(DataConfig(dataset="digits"))
    assert digits.input_shape == (1, 8, 8)
    assert digits.num_classes == 10
    assert len(digits.train) + len(digits.test) == 1797
    assert abs(len(digits.train) - 1797 * 4 / 5) < 1
    assert memory(digits.train).images.max() == 255
    for side in (digits.train, digits.test):
        counts = torch.bincount(side.labels)
        assert int(counts.max() - counts.min()) <= 10
    assert digits.augmentation == Augmentation(pad=1)  # a mirrored digit is no digit


def test_digits_are_the_same_every_time():
    one, two = load_dataset(DataConfig(dataset="digits")), load_dataset(DataConfig(dataset="digits"))
    assert torch.equal(memory(one.train).images, memory(two.train).images)
    assert torch.equal(one.test.labels, two.test.labels)


def test_subset_and_image_size():
    digits = load_dataset(DataConfig(dataset="digits", image_size=16, subset=200, test_subset=50))
    assert digits.input_shape == (1, 16, 16)
    assert memory(digits.train).images.shape == (200, 1, 16, 16)
    assert torch.bincount(digits.train.labels).tolist() == [20] * 10
    assert torch.bincount(digits.test.labels).tolist() == [5] * 10
    assert digits.augmentation.pad == 2


def test_subset_of_more_than_there_is():
    with pytest.raises(DataError, match="subset of 5000 images was asked for; give 1 to 1438"):
        load_dataset(DataConfig(dataset="digits", subset=5000))


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("cifar", "Did you mean cifar10 or cifar100"),
        ("fashion_mnist", "Did you mean fashion-mnist"),
        ("xyzzy", f"Known: {', '.join(sorted([*KNOWN_IMAGES, 'folder:PATH']))}"),
        ("", "Known: "),
        ("folder:", "folder: needs a path, as in folder:/data/flowers"),
    ],
)
def test_unknown_name(name: str, hint: str):
    with pytest.raises(DataError, match=hint):
        load_dataset(DataConfig(dataset=name))


@pytest.mark.parametrize(
    ("name", "hints"),
    [
        ("fashion-mnist", ["--download", "zalandoresearch", "dataset-fashion-mnist"]),
        ("cifar10", ["--download", "kriz/cifar-10-python.tar.gz", "train/<class>/"]),
        ("cifar100", ["--download", "kriz/cifar-100-python.tar.gz"]),
        ("imagenet", ["image-net.org", "ILSVRC2012_img_train.tar", "train/<class>/"]),
    ],
)
def test_missing_data_says_what_to_get_and_where_to_put_it(tmp_path: Path, name: str, hints: list[str]):
    with pytest.raises(DataError) as caught:
        load_dataset(DataConfig(dataset=name, data_dir=tmp_path))
    message = str(caught.value)
    assert "\n" not in message
    for hint in [str(tmp_path), *hints]:
        assert hint in message


@pytest.mark.parametrize(
    ("name", "title"), [("fashion-mnist", "FashionMNIST"), ("cifar10", "CIFAR10"), ("cifar100", "CIFAR100")]
)
def test_failed_download_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, title: str):
    def fail(self: object, root: Path, download: bool) -> None:
        assert root == tmp_path
        assert download
        raise RuntimeError("Error downloading\nno route to host")

    monkeypatch.setattr(getattr(torchvision.datasets, title), "__init__", fail)
    with pytest.raises(DataError, match=f"downloading {title} to .* no route to host; check the network"):
        load_dataset(DataConfig(dataset=name, data_dir=tmp_path), download=True)


def test_directory_that_may_not_be_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def refuse(self: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "is_dir", refuse)
    with pytest.raises(DataError, match=r"dataset cifar10: .*Permission denied.*; check that"):
        load_dataset(DataConfig(dataset="cifar10", data_dir=tmp_path))


def test_default_data_dir_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("DSONAS_HW_HOME", str(tmp_path))
    assert default_data_dir() == tmp_path / "datasets"
    monkeypatch.delenv("DSONAS_HW_HOME")
    assert default_data_dir().name == "datasets"


@pytest.mark.skipif(
    not data_idx.DEBIAN_DIR.is_dir(), reason="Debian's dataset-fashion-mnist is not installed"
)
def test_debians_fashion_mnist_is_found_unasked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("DSONAS_HW_HOME", str(tmp_path))
    fashion = load_dataset(DataConfig(dataset="fashion-mnist", subset=1000))
    assert (len(fashion.train), len(fashion.test)) == (1000, 10_000)
    assert fashion.input_shape == (1, 28, 28)
    assert 0.27 < fashion.mean[0] < 0.31  # 0.286 over all 60,000


def test_folder_in_memory(write_folder):
    write_folder("train", cat=6, dog=4)
    root = write_folder("val", cat=2, dog=1)
    dataset = load_dataset(DataConfig(dataset=f"folder:{root}"))
    assert dataset.class_names == ("cat", "dog")
    assert dataset.input_shape == (3, 8, 8)  # small and alike: kept as they are
    assert memory(dataset.train).images.shape == (10, 3, 8, 8)
    assert dataset.train.labels.tolist() == [0] * 6 + [1] * 4
    assert dataset.test.labels.tolist() == [0, 0, 1]
    expected = channel_statistics(memory(dataset.train).images)
    assert (dataset.mean, dataset.std) == expected


def test_large_images_stay_on_disk(write_folder):
    write_folder("train", cat=2, dog=2, size=120)
    root = write_folder("test", cat=1, dog=1, size=120)
    dataset = load_dataset(DataConfig(dataset=f"folder:{root}"))
    assert isinstance(dataset.train, ImageFiles)
    assert dataset.input_shape == (3, 224, 224)
    assert load_dataset(DataConfig(dataset=f"folder:{root}", image_size=32)).input_shape == (3, 32, 32)
    assert isinstance(load_dataset(DataConfig(dataset=f"folder:{root}", image_size=32)).test, MemoryImages)


def test_imagenet_layout(write_folder):
    write_folder("train", n01440764=4, n01443537=4, size=(50, 40), suffix="JPEG")
    root = write_folder("val", n01440764=1, n01443537=1, size=(50, 40), suffix="JPEG")
    dataset = load_dataset(DataConfig(dataset="imagenet", data_dir=root))
    assert isinstance(dataset.train, ImageFiles)
    assert dataset.class_names == ("n01440764", "n01443537")
    assert dataset.input_shape == (3, 224, 224)
    assert dataset.mean == (0.485, 0.456, 0.406)


def test_cifar10_as_image_files(write_folder):
    write_folder("train", airplane=5, ship=5, size=32, suffix="jpg")
    root = write_folder("test", airplane=2, ship=2, size=32, suffix="jpg")
    dataset = load_dataset(DataConfig(dataset="cifar10", data_dir=root, subset=4))
    assert dataset.name == "cifar10"
    assert memory(dataset.train).images.shape == (4, 3, 32, 32)
    assert dataset.augmentation == Augmentation(flip=True, pad=4)


def test_channel_statistics_by_hand():
    images = torch.tensor([0, 255, 255, 255], dtype=torch.uint8).view(2, 1, 1, 2).repeat(1, 2, 1, 1)
    images[:, 1] = 51
    mean, std = channel_statistics(images)
    assert mean == pytest.approx((0.75, 0.2))
    assert std == pytest.approx((0.1875**0.5, 1 / 255))  # a constant channel: one grey level


def test_resize_keeps_flat_images_and_averages_when_shrinking():
    flat = torch.full((3, 1, 8, 8), 77, dtype=torch.uint8)
    assert torch.equal(resize_images(flat, 20), torch.full((3, 1, 20, 20), 77, dtype=torch.uint8))
    stripes = torch.tensor([200, 0, 0, 200] * 2, dtype=torch.uint8).repeat(8, 1).view(1, 1, 8, 8)
    shrunk = resize_images(stripes, 2)  # sampling without averaging would meet black columns only
    assert int(shrunk.min()) > 50
    assert int(shrunk.max()) < 150


def test_wrong_tensors_are_refused():
    with pytest.raises(ValueError, match="images must be uint8"):
        MemoryImages(images=torch.zeros(2, 1, 4, 4), labels=torch.zeros(2, dtype=torch.int64))
    with pytest.raises(ValueError, match="labels must be int64"):
        MemoryImages(
            images=torch.zeros(2, 1, 4, 4, dtype=torch.uint8), labels=torch.zeros(3, dtype=torch.int64)
        )


def test_every_named_dataset_has_its_shape_known_without_the_images():
    from dsonas_hw.train.data import _LOADERS

    assert set(KNOWN_IMAGES) == set(_LOADERS)
    digits = load_dataset(DataConfig(dataset="digits"))
    known = KNOWN_IMAGES["digits"]
    assert (known.input_shape, known.num_classes) == (digits.input_shape, digits.num_classes)
    assert known.num_train == len(digits.train)
