"""ONNX files as networks to measure a device with: their kernels join the table, and so do they."""

from __future__ import annotations

from pathlib import Path

from dsonas_hw.errors import ProfileError
from dsonas_hw.profile.probe import Probe


def model_probe(path: Path, *, batch_size: int = 1) -> Probe:
    """A network from a file; the name follows from what the file holds.

    Raises:
        ModelFileError: the file is not a network that can be read.
        ProfileError: it has operations that no kernel stands for.
    """
    import hashlib

    from dsonas_hw.kernel.from_onnx import schedule_from_onnx

    schedule, unknown = schedule_from_onnx(path, batch_size=batch_size)
    if unknown:
        raise ProfileError(f"{path} has operations that no kernel stands for: {', '.join(unknown[:3])}")
    content = path.read_bytes()
    return Probe(
        name=f"model-{hashlib.sha256(content).hexdigest()[:16]}", build=lambda: content, schedule=schedule
    )
