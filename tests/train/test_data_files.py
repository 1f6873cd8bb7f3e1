"""Fashion-MNIST's IDX files and CIFAR's pickles: read right, and refused when damaged."""

from __future__ import annotations

import gzip
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

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
    fashion = load_dataset("fashion-mnist", data_dir=tmp_path)
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
        load_dataset("fashion-mnist", data_dir=tmp_path)


@pytest.mark.parametrize("damage", [cut, lambda content: content[:100], lambda content: b"no gzip" * 9])
def test_damaged_packing(tmp_path: Path, damage: Callable[[bytes], bytes]):
    write_fashion(tmp_path, fashion_files(), packed=True)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=r"cannot read .*train-images-idx3-ubyte\.gz"):
        load_dataset("fashion-mnist", data_dir=tmp_path)


def test_flipped_byte_in_a_packed_file(tmp_path: Path):
    write_fashion(tmp_path, fashion_files(), packed=True)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match="get the file again"):
        load_dataset("fashion-mnist", data_dir=tmp_path)


def test_missing_companion(tmp_path: Path):
    files = fashion_files()
    del files["t10k-labels-idx1-ubyte"]
    write_fashion(tmp_path, files, packed=False)
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte .* is missing, though its companions"):
        load_dataset("fashion-mnist", data_dir=tmp_path)


@pytest.mark.parametrize(
    ("labels", "reason"),
    [(np.zeros(39), "40 train images but 39 labels"), (np.full(40, 10), "labels must be 0 to 9")],
)
def test_wrong_labels(tmp_path: Path, labels: np.ndarray, reason: str):
    files = fashion_files() | {"train-labels-idx1-ubyte": idx(labels.astype(np.uint8))}
    write_fashion(tmp_path, files, packed=False)
    with pytest.raises(DataError, match=reason):
        load_dataset("fashion-mnist", data_dir=tmp_path)


def cifar_batch(first: int, count: int, label_key: str) -> dict[str, Any]:
    pixels = np.arange(first, first + count, dtype=np.uint8)[:, None].repeat(3072, axis=1)
    pixels[:, :1024] = 255  # red comes first
    return {"data": pixels, label_key: [i % 10 for i in range(count)], "batch_label": "x"}


def write_cifar10(directory: Path, **changes: Any) -> None:
    place = directory / "cifar-10-batches-py"
    place.mkdir(parents=True)
    contents: dict[str, Any] = {f"data_batch_{n}": cifar_batch(20 * n, 20, "labels") for n in range(1, 6)}
    contents |= {
        "test_batch": cifar_batch(0, 10, "labels"),
        "batches.meta": {"label_names": list("abcdefghij")},
    }
    for name, content in (contents | changes).items():
        if not isinstance(content, bytes):
            content = pickle.dumps(content, protocol=2)
        (place / name).write_bytes(content)


@pytest.mark.parametrize("inside", [False, True])
def test_cifar10_batches(tmp_path: Path, inside: bool):
    write_cifar10(tmp_path)
    dataset = load_dataset("cifar10", data_dir=tmp_path / "cifar-10-batches-py" if inside else tmp_path)
    assert (len(dataset.train), len(dataset.test)) == (100, 10)
    assert dataset.class_names == tuple("abcdefghij")
    assert dataset.train.images[:, 0].unique().tolist() == [255]
    assert dataset.train.images[:, 1, 31, 31].tolist() == list(range(20, 120))


def test_cifar100_batches(tmp_path: Path):
    place = tmp_path / "cifar-100-python"
    place.mkdir()
    for name, content in {
        "train": cifar_batch(0, 30, "fine_labels"),
        "test": cifar_batch(0, 10, "fine_labels"),
        "meta": {"fine_label_names": [f"class{i}" for i in range(100)]},
    }.items():
        (place / name).write_bytes(pickle.dumps(content, protocol=2))
    dataset = load_dataset("cifar100", data_dir=tmp_path)
    assert (len(dataset.train), dataset.num_classes) == (30, 100)


class Attack:
    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("print('code from a data file ran')",))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"data_batch_3": pickle.dumps(cifar_batch(0, 20, "labels"))[:-50]}, "cannot read .*data_batch_3"),
        ({"data_batch_3": b"<html>"}, "cannot read .*data_batch_3"),
        ({"data_batch_3": [1, 2]}, "data_batch_3 is not a CIFAR batch"),
        ({"data_batch_3": {"labels": [1]}}, "data_batch_3 holds no 32×32 colour images"),
        ({"test_batch": cifar_batch(0, 10, "labels") | {"labels": [1]}}, "not hold one label per image"),
        ({"test_batch": cifar_batch(0, 1, "labels") | {"labels": [10]}}, "labels that are not 0 to 9"),
        ({"batches.meta": {}}, r"batches\.meta names no classes"),
        ({"test_batch": {"data": Attack()}}, r"asks for (builtins|__builtin__)\.exec"),
    ],
)
def test_damaged_cifar(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], reason: str
):
    write_cifar10(tmp_path, **changes)
    with pytest.raises(DataError, match=reason):
        load_dataset("cifar10", data_dir=tmp_path)
    assert capsys.readouterr().out == ""


def test_missing_cifar_batch(tmp_path: Path):
    write_cifar10(tmp_path)
    (tmp_path / "cifar-10-batches-py" / "data_batch_4").unlink()
    with pytest.raises(DataError, match=r"cannot read .*data_batch_4"):
        load_dataset("cifar10", data_dir=tmp_path)
