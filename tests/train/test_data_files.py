"""Fashion-MNIST's IDX files and CIFAR's pickles: read right, and refused when damaged."""

from __future__ import annotations

import gzip
import hashlib
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision

from dsonas_hw.config import DataConfig
from dsonas_hw.errors import DataError
from dsonas_hw.train.data import load_dataset
from dsonas_hw.train.data_idx import load_idx


def idx(values: np.ndarray) -> bytes:
    return bytes((0, 0, 8, values.ndim)) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()


def fashion_files() -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    files = {}
    for side, count in (("train", 40), ("t10k", 20)):
        files[f"{side}-images-idx3-ubyte"] = idx(rng.integers(0, 256, (count, 28, 28), dtype=np.uint8))
        files[f"{side}-labels-idx1-ubyte"] = idx((np.arange(count) % 10).astype(np.uint8))
    return files


def write_fashion(directory: Path, files: dict[str, bytes], *, packed: bool) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        if packed:
            (directory / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (directory / name).write_bytes(content)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("place", ["", "FashionMNIST/raw", "fashion-mnist"])
def test_fashion_mnist_is_found_in_the_usual_places(tmp_path: Path, place: str, packed: bool):
    files = fashion_files()
    write_fashion(tmp_path / place, files, packed=packed)
    fashion = load_dataset(DataConfig(dataset="fashion-mnist", data_dir=tmp_path))
    assert fashion.input_shape == (1, 28, 28)
    assert fashion.class_names[9] == "Ankle boot"
    assert fashion.train.labels.tolist() == [i % 10 for i in range(40)]
    raw = np.frombuffer(files["t10k-images-idx3-ubyte"][16:], dtype=np.uint8)
    assert np.array_equal(fashion.test.images.numpy().ravel(), raw)


def test_idx_equals_torchvisions_reader(tmp_path: Path):
    from torchvision.datasets.mnist import read_image_file

    path = tmp_path / "images"
    path.write_bytes(fashion_files()["train-images-idx3-ubyte"])
    assert torch.equal(load_idx(path, num_dimensions=3), read_image_file(str(path)))


def cut(content: bytes) -> bytes:
    return content[:-1]


def longer(content: bytes) -> bytes:
    return content + b"\0"


def other(content: bytes) -> bytes:
    return b"<html>" + content


def huge(content: bytes) -> bytes:
    return content[:4] + struct.pack(">3I", 2**31, 2**31, 2**31) + content[16:]


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (cut, "should hold 31360 values but holds only 31359"),
        (longer, "should hold 31360 values but holds more"),
        (other, "is not an IDX file of 3 dimension"),
        (huge, "more than the 1073741824 allowed"),
        (lambda content: b"", "is not an IDX file"),
    ],
)
def test_damaged_idx(tmp_path: Path, damage: Callable[[bytes], bytes], reason: str, packed: bool):
    files = fashion_files()
    files["train-images-idx3-ubyte"] = damage(files["train-images-idx3-ubyte"])
    write_fashion(tmp_path, files, packed=packed)
    with pytest.raises(DataError, match=reason):
        load_dataset(DataConfig(dataset="fashion-mnist", data_dir=tmp_path))


@pytest.mark.parametrize("damage", [cut, lambda content: content[:100], lambda content: b"no gzip" * 9])
def test_damaged_packing(tmp_path: Path, damage: Callable[[bytes], bytes]):
    write_fashion(tmp_path, fashion_files(), packed=True)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=r"cannot read .*train-images-idx3-ubyte\.gz"):
        load_dataset(DataConfig(dataset="fashion-mnist", data_dir=tmp_path))


def test_flipped_byte_in_a_packed_file(tmp_path: Path):
    write_fashion(tmp_path, fashion_files(), packed=True)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match="get the file again"):
        load_dataset(DataConfig(dataset="fashion-mnist", data_dir=tmp_path))


def test_missing_companion(tmp_path: Path):
    files = fashion_files()
    del files["t10k-labels-idx1-ubyte"]
    write_fashion(tmp_path, files, packed=False)
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte .* is missing, though its companions"):
        load_dataset(DataConfig(dataset="fashion-mnist", data_dir=tmp_path))


@pytest.mark.parametrize(
    ("labels", "reason"),
    [(np.zeros(39), "40 train images but 39 labels"), (np.full(40, 10), "labels must be 0 to 9")],
)
def test_wrong_labels(tmp_path: Path, labels: np.ndarray, reason: str):
    files = fashion_files() | {"train-labels-idx1-ubyte": idx(labels.astype(np.uint8))}
    write_fashion(tmp_path, files, packed=False)
    with pytest.raises(DataError, match=reason):
        load_dataset(DataConfig(dataset="fashion-mnist", data_dir=tmp_path))


def write_cifar(directory: Path, title: str, patch: pytest.MonkeyPatch) -> Path:
    """Batches of few images, whose checksums torchvision is told; returns their folder."""
    reader = getattr(torchvision.datasets, title)
    place = directory / reader.base_folder
    place.mkdir(parents=True)
    key = {"CIFAR10": "labels", "CIFAR100": "fine_labels"}[title]

    def write(name: str, content: dict[str, Any]) -> str:
        (place / name).write_bytes(pickle.dumps(content, protocol=2))
        return hashlib.md5((place / name).read_bytes()).hexdigest()

    def batch(first: int, count: int) -> dict[str, Any]:
        pixels = np.arange(first, first + count, dtype=np.uint8)[:, None].repeat(3072, axis=1)
        pixels[:, :1024] = 255  # red comes first
        return {"data": pixels, key: [i % 10 for i in range(count)]}

    for attribute, count in (("train_list", 20), ("test_list", 10)):
        names = [name for name, _ in getattr(reader, attribute)]
        sums = [[name, write(name, batch(20 * (i + 1), count))] for i, name in enumerate(names)]
        patch.setattr(reader, attribute, sums)
    class_names = [f"class{i}" for i in range(int(title.removeprefix("CIFAR")))]
    md5 = write(reader.meta["filename"], {reader.meta["key"]: class_names})
    patch.setattr(reader, "meta", {**reader.meta, "md5": md5})
    return place


@pytest.mark.parametrize("inside", [False, True])
def test_cifar10_batches(tmp_path: Path, inside: bool, monkeypatch: pytest.MonkeyPatch):
    place = write_cifar(tmp_path, "CIFAR10", monkeypatch)
    dataset = load_dataset(DataConfig(dataset="cifar10", data_dir=place if inside else tmp_path))
    assert (len(dataset.train), len(dataset.test)) == (100, 10)
    assert dataset.class_names == tuple(f"class{i}" for i in range(10))
    assert dataset.train.images[:, 0].unique().tolist() == [255]
    assert dataset.train.images[:, 1, 31, 31].tolist() == list(range(20, 120))
    assert dataset.train.labels.tolist() == 5 * [i % 10 for i in range(20)]


def test_cifar100_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_cifar(tmp_path, "CIFAR100", monkeypatch)
    dataset = load_dataset(DataConfig(dataset="cifar100", data_dir=tmp_path))
    assert (len(dataset.train), dataset.num_classes) == (20, 100)


class Attack:
    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("print('code from a data file ran')",))


@pytest.mark.parametrize("name", ["data_batch_3", "test_batch", "batches.meta"])
@pytest.mark.parametrize("content", [None, b"<html>", pickle.dumps({"data": Attack()})])
def test_damaged_cifar(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    content: bytes | None,
):
    """Whatever is not the authors' file is not even opened as a pickle."""
    path = write_cifar(tmp_path, "CIFAR10", monkeypatch) / name
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"lacks a file of CIFAR10, or one is damaged; delete .* --download"):
        load_dataset(DataConfig(dataset="cifar10", data_dir=tmp_path))
    assert capsys.readouterr().out == ""
