"""Read any ONNX network as the list of kernels it runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dsonas_hw.errors import ModelFileError
from dsonas_hw.kernel.fuse import fuse_kernels
from dsonas_hw.kernel.network import NetworkKernels, Schedule, peak_activation_elements
from dsonas_hw.kernel.onnx_graph import one_line
from dsonas_hw.kernel.onnx_load import load_model
from dsonas_hw.kernel.onnx_lower import lower_graph
from dsonas_hw.kernel.onnx_patterns import recognise
from dsonas_hw.kernel.onnx_shapes import read_graph

if TYPE_CHECKING:
    import onnx


def kernels_from_onnx(
    model: str | Path | onnx.ModelProto, *, batch_size: int | None = None, fuse: bool = True
) -> NetworkKernels:
    """Kernels of an ONNX network, in running order.

    Args:
        model: a file, which need not be trusted, or a loaded model, which is not modified.
        batch_size: replaces the batch that the file states; by default a fixed batch stays and an open one
            is 1.
        fuse: True for what an inference runtime runs, False for what an eager framework runs.

    Raises:
        ModelFileError: the file cannot be read, is no valid network, or leaves sizes open.
    """
    schedule, unknown = schedule_from_onnx(model, batch_size=batch_size, fuse=fuse)
    return NetworkKernels(
        kernels=tuple(step.kernel for step in schedule.kernels),
        unknown=unknown,
        peak_activation_elements=None if unknown else peak_activation_elements(schedule),
    )


def schedule_from_onnx(
    model: str | Path | onnx.ModelProto, *, batch_size: int | None = None, fuse: bool = True
) -> tuple[Schedule, tuple[str, ...]]:
    """As `kernels_from_onnx`, with the buffers between the kernels; and the unknown operations."""
    if batch_size is not None and batch_size < 1:
        raise ModelFileError(f"batch size {batch_size} makes no sense; give 1 or more")
    try:
        proto, opset = load_model(model)
        graph = recognise(read_graph(proto, opset, batch_size))
        schedule, unknown = lower_graph(graph)
    except ModelFileError as error:  # it may quote the file
        raise ModelFileError(one_line(str(error))) from error
    return (fuse_kernels(schedule) if fuse else schedule), unknown
