"""What an ONNX file declares: its inputs, and the shapes of tensors that it states."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dsonas_hw.errors import ModelFileError
from dsonas_hw.kernel.spec import Shape

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True, kw_only=True)
class NetworkInput:
    """One declared input."""

    name: str
    elem_type: int
    dims: tuple[int | str, ...] | None
    """A fixed size, or the name of an open one; "" is an open size without a name. None: no shape at all."""

    def __str__(self) -> str:
        if self.dims is None:
            return f"{self.name} [?]"
        return f"{self.name} [{', '.join(str(dim) if dim != '' else '?' for dim in self.dims)}]"


def declared_inputs(model: onnx.ModelProto) -> tuple[NetworkInput, ...]:
    """Return the inputs that the file does not store itself.

    Raises:
        ModelFileError: an input that is no tensor.
    """
    stored = {tensor.name for tensor in model.graph.initializer}
    stored |= {tensor.values.name for tensor in model.graph.sparse_initializer}
    inputs = []
    for value in model.graph.input:
        if value.name in stored:
            continue
        if not value.type.HasField("tensor_type"):
            raise ModelFileError(f"input {value.name!r} of the ONNX model is not a tensor")
        elem_type = value.type.tensor_type.elem_type
        inputs.append(NetworkInput(name=value.name, elem_type=elem_type, dims=_dims(value)))
    return tuple(inputs)


def _dims(value: onnx.ValueInfoProto) -> tuple[int | str, ...] | None:
    tensor_type = value.type.tensor_type
    if not tensor_type.HasField("shape"):
        return None
    return tuple(
        dim.dim_value if dim.HasField("dim_value") and dim.dim_value >= 0 else dim.dim_param
        for dim in tensor_type.shape.dim
    )


def stated_shapes(model: onnx.ModelProto) -> dict[str, tuple[Shape, int]]:
    """Return the fixed shapes and types that the file states: needed behind unknown operations."""
    stated = {}
    for value in (*model.graph.value_info, *model.graph.output):
        dims = _dims(value)
        if dims is not None and all(isinstance(dim, int) for dim in dims):
            shape = tuple(int(dim) for dim in dims)
            stated[value.name] = (shape, value.type.tensor_type.elem_type)
    return stated


def output_shapes(model: onnx.ModelProto) -> list[tuple[int | str, ...]]:
    """Return the declared shapes of the outputs that have one."""
    return [dims for value in model.graph.output if (dims := _dims(value)) is not None]
