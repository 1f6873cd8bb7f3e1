"""Reading a checkpoint that may come from anyone."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

from dsonas_hw.errors import RunError
from dsonas_hw.files import open_regular

MAX_CHECKPOINT_BYTES = 2**36
MAX_DESCRIPTION_BYTES = 2**26
"""Of a checkpoint, without its tensors."""


def load_checkpoint_file(path: Path) -> dict[str, Any]:
    """Read one checkpoint; no code in it is run.

    Raises:
        RunError: missing, corrupt, or holding anything but tensors and plain values.
    """
    import torch

    try:
        with open_regular(path, max_bytes=MAX_CHECKPOINT_BYTES) as file:
            _check_archive(file)
            state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise RunError(f"the checkpoint {path} cannot be read ({type(error).__name__})") from None
    if not isinstance(state, dict):
        raise RunError(f"the checkpoint {path} does not hold a state")
    return state


def _check_archive(file: BinaryIO) -> None:
    """Refuse what torch never writes, before it is unpacked: compressed entries, or a huge description.

    Raises:
        Exception: not an archive of tensors.
    """
    size = os.fstat(file.fileno()).st_size
    with zipfile.ZipFile(file) as archive:
        for entry in archive.infolist():
            if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > size:
                raise ValueError("compressed")
            if entry.filename.endswith("data.pkl") and entry.file_size > MAX_DESCRIPTION_BYTES:
                raise ValueError("too large")
    file.seek(0)
