"""ONNX files as networks to measure a device with: their kernels join the table, and so do they."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dsonas_hw.errors import ProfileError
from dsonas_hw.kernel.onnx.from_onnx import OnnxNetwork
from dsonas_hw.kernel.onnx.load import MAX_FILE_BYTES, external_files
from dsonas_hw.kernel.spec import Shape
from dsonas_hw.measure.probe import Probe
from dsonas_hw.profile.model_precision import check_table_precision
from dsonas_hw.runtime.registry import get_runtime


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
    content = _at_fixed_sizes(path, network.input_shapes)
    name = f"model-{hashlib.sha256(content).hexdigest()[:16]}"
    return Probe(name=name, build=lambda: content, schedule=network.schedule, batch_size=network.batch_size)


def why_not_timed(network: OnnxNetwork) -> str:
    """Why the kernels of a network cannot be timed one by one; empty if they can."""
    if network.unknown:
        return f"no kernel stands for {', '.join(network.unknown[:3])}"
    if network.notes:
        return network.notes[0]
    return ""


def _at_fixed_sizes(path: Path, shapes: Mapping[str, Shape]) -> bytes:
    """The file's bytes with all its weights, its inputs declared at these sizes; unchanged if it is that."""
    import onnx

    content = path.read_bytes()
    model = onnx.load_model_from_string(content)
    beside = external_files(model)
    changed = bool(beside)
    if changed:
        if len(content) + sum(beside.values()) > MAX_FILE_BYTES:
            raise ProfileError(
                f"{path} has too large weights to be timed: more than {MAX_FILE_BYTES >> 30} GiB"
            )
        onnx.load_external_data_for_model(model, str(path.parent))
    for value in model.graph.input:
        if value.name not in shapes:
            continue
        shape = value.type.tensor_type.shape
        stated = [dim.dim_value if dim.HasField("dim_value") else None for dim in shape.dim]
        if stated != list(shapes[value.name]) or not value.type.tensor_type.HasField("shape"):
            del shape.dim[:]
            for size in shapes[value.name]:
                shape.dim.add().dim_value = size
            changed = True
    if not changed:
        return content
    del model.graph.value_info[:]
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    return bytes(model.SerializeToString())
