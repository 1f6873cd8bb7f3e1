"""Trained weights on disk: one .npz of plain arrays (no pickle), tied to the architecture they belong to."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from math import prod
from pathlib import Path

import numpy as np

from dsonas_hw.architecture.graph import build_graph
from dsonas_hw.architecture.onnx import Array, random_weights
from dsonas_hw.errors import RunError, command_line
from dsonas_hw.files import atomic_write, open_regular
from dsonas_hw.train.hand_made import HandMade, HandMadeNetwork
from dsonas_hw.train.identity import architecture_hash
from dsonas_hw.train.trainable import Trainable

WEIGHTS_NAME = "weights.npz"
_ARCHITECTURE = "architecture"
DAMAGED = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, NotImplementedError, MemoryError)
"""What reading a damaged file raises."""
_HEADER_BYTES = 65_536
"""More than the header of any array that we write."""


def save_weights(path: Path, architecture: Trainable, arrays: Mapping[str, Array]) -> None:
    """Replace the file at once."""
    with atomic_write(path) as file:
        np.savez(file, **{_ARCHITECTURE: np.array(architecture_hash(architecture))}, **arrays)  # type: ignore[arg-type]


def load_weights(path: Path, architecture: Trainable) -> dict[str, Array]:
    """Return the weights of an architecture, as `DerivedNetwork.named_arrays` gave them.

    Raises:
        RunError: missing, damaged, or the weights of another architecture.
    """
    shapes = {name: array.shape for name, array in _arrays_like(architecture).items()}
    again = f"train again: {command_line('retrain', path.parent, '--restart')}"
    first = f"train first: {command_line('retrain', path.parent)}"
    if isinstance(architecture, HandMade):
        again = first = f"delete {path.parent} and start again"
    limit = sum(4 * prod(shape) + _HEADER_BYTES for shape in shapes.values()) + _HEADER_BYTES
    try:
        with open_regular(path, max_bytes=limit) as stored:
            with zipfile.ZipFile(stored) as archive:
                if sum(entry.file_size for entry in archive.infolist()) > limit:
                    raise RunError(f"{path} is larger than the weights of this architecture; train again")
            stored.seek(0)
            with np.load(stored, allow_pickle=False) as file:
                if str(file[_ARCHITECTURE]) != architecture_hash(architecture):
                    raise RunError(f"{path} belongs to another architecture; {again}")
                arrays = {name: file[name] for name in shapes}
    except FileNotFoundError:
        raise RunError(f"{path} does not exist; {first}") from None
    except DAMAGED as error:
        raise RunError(f"{path} is damaged ({type(error).__name__}); {again}") from None
    for name, shape in shapes.items():
        if arrays[name].shape != shape or arrays[name].dtype != np.float32:
            raise RunError(f"{path} is damaged ({name} does not fit); {again}")
    return arrays


def _arrays_like(architecture: Trainable) -> Mapping[str, Array]:
    """Arrays of the names and shapes that the weights have."""
    if isinstance(architecture, HandMade):
        return HandMadeNetwork(architecture).named_arrays()
    return random_weights(build_graph(architecture))
