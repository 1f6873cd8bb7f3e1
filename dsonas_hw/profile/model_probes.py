"""ONNX files as networks to measure a device with: their kernels join the table, and so do they."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dsonas_hw.errors import ProfileError
from dsonas_hw.kernel.onnx.from_onnx import OnnxNetwork
from dsonas_hw.kernel.spec import Shape
from dsonas_hw.measure.probe import Probe
from dsonas_hw.profile.flat_model import flat_model
from dsonas_hw.profile.model_precision import check_table_precision
from dsonas_hw.runtime.registry import get_runtime

PREFIX = "model-"
"""Begins the names of networks that are from files."""


def model_probe(
    path: Path,
    *,
    batch_size: int | None = None,
    input_shapes: Mapping[str, Shape] | None = None,
    precision: str = "fp32",
    runtime: str,
) -> Probe:
    """A network from a file, at fixed sizes; its name follows from what is run.

    Raises:
        ModelFileError: the file is not a network that can be read, or of another precision than the table.
        ProfileError: it cannot be timed kernel by kernel.
    """
    import hashlib

    from dsonas_hw.kernel.onnx.from_onnx import network_from_onnx

    fuse = get_runtime(runtime).fuses
    network = network_from_onnx(path, batch_size=batch_size, input_shapes=input_shapes, fuse=fuse)
    check_table_precision(str(path), network.precision, table=precision, runtime=runtime)
    reason = why_not_timed(network)
    if reason:
        raise ProfileError(f"{path} cannot be timed kernel by kernel: {reason}")
    content = flat_model(path, batch_size=batch_size, input_shapes=input_shapes or {})
    name = f"{PREFIX}{hashlib.sha256(content).hexdigest()[:16]}"
    return Probe(name=name, build=lambda: content, schedule=network.schedule, batch_size=network.batch_size)


def why_not_timed(network: OnnxNetwork) -> str:
    """Why the kernels of a network cannot be timed one by one; empty if they can."""
    return f"no kernel stands for {', '.join(network.unknown[:3])}" if network.unknown else ""
