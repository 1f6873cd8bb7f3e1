"""weights.npz: comes back as it was, and nothing else is believed."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from dsonas_hw.architecture.architecture import Architecture, complete_architecture
from dsonas_hw.architecture.graph import build_graph
from dsonas_hw.architecture.onnx import random_weights
from dsonas_hw.errors import RunError
from dsonas_hw.space.space import SearchSpace
from dsonas_hw.train.identity import architecture_hash
from dsonas_hw.train.weights import load_weights, save_weights


@pytest.fixture
def architecture() -> Architecture:
    return complete_architecture(SearchSpace(levels=1, stages=(1,), channels=4, input_shape=(1, 8, 8)))


def test_round_trip(tmp_path: Path, architecture: Architecture) -> None:
    arrays = random_weights(build_graph(architecture))
    save_weights(tmp_path / "weights.npz", architecture, arrays)
    loaded = load_weights(tmp_path / "weights.npz", architecture)
    assert loaded.keys() == arrays.keys()
    assert all(np.array_equal(loaded[name], arrays[name]) for name in arrays)
    assert [p.name for p in tmp_path.iterdir()] == ["weights.npz"]


def test_weights_of_another_architecture_are_refused(tmp_path: Path, architecture: Architecture) -> None:
    save_weights(tmp_path / "weights.npz", architecture, random_weights(build_graph(architecture)))
    with pytest.raises(RunError, match="another architecture"):
        load_weights(tmp_path / "weights.npz", architecture.with_width(3))


def test_a_missing_file_names_the_command(tmp_path: Path, architecture: Architecture) -> None:
    with pytest.raises(RunError, match="train first: dsonas-hw retrain"):
        load_weights(tmp_path / "weights.npz", architecture)


@pytest.mark.parametrize("kept", [0, 10, 200, 1000, -1])
def test_torn_files_are_refused(tmp_path: Path, architecture: Architecture, kept: int) -> None:
    path = tmp_path / "weights.npz"
    save_weights(path, architecture, random_weights(build_graph(architecture)))
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(RunError, match="damaged"):
        load_weights(path, architecture)


def test_flipped_bytes_are_noticed(tmp_path: Path, architecture: Architecture) -> None:
    path = tmp_path / "weights.npz"
    arrays = random_weights(build_graph(architecture))
    save_weights(path, architecture, arrays)
    data = bytearray(path.read_bytes())
    position = data.find(arrays["head.fc.weight"].tobytes())
    data[position + 5] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(RunError, match="damaged"):
        load_weights(path, architecture)


def test_pickles_bombs_and_wrong_shapes_are_refused(tmp_path: Path, architecture: Architecture) -> None:
    path = tmp_path / "weights.npz"
    arrays = random_weights(build_graph(architecture))
    tag = np.array(architecture_hash(architecture))
    name = "head.fc.weight"

    np.savez(path, architecture=tag, **{**arrays, name: np.array([object()], dtype=object)})
    with pytest.raises(RunError, match="damaged"):
        load_weights(path, architecture)
    np.savez(path, architecture=tag, **{**arrays, name: arrays[name][:1]})
    with pytest.raises(RunError, match=f"damaged.*{name}"):
        load_weights(path, architecture)
    np.savez(path, architecture=tag, **{**arrays, name: arrays[name].astype(np.float64)})
    with pytest.raises(RunError, match=f"damaged.*{name}"):
        load_weights(path, architecture)
    np.savez(path, architecture=tag, **{k: v for k, v in arrays.items() if k != name})
    with pytest.raises(RunError, match="damaged"):
        load_weights(path, architecture)
    np.savez_compressed(path, architecture=tag, bomb=np.zeros(50_000_000, np.uint8), **arrays)
    with pytest.raises(RunError, match="larger than"):
        load_weights(path, architecture)
    with zipfile.ZipFile(path, "w") as archive:
        header = b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little")
        text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({10**13},), }}"
        archive.writestr(f"{name}.npy", header + text.ljust(117).encode() + b"\n")
        with archive.open("architecture.npy", "w") as file:
            np.lib.format.write_array(file, tag)
    with pytest.raises(RunError, match="damaged"):
        load_weights(path, architecture)
