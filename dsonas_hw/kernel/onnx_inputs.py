"""What a network takes: its declared inputs, and what they become at a batch size."""

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
    dims: tuple[int | str, ...]
    """A fixed size, or the name of an open one; "" is an open size without a name."""


def declared_inputs(model: onnx.ModelProto) -> tuple[NetworkInput, ...]:
    """The inputs that the file does not store itself.

    Raises:
        ModelFileError: an input that is no tensor, or has no shape.
    """
    stored = {tensor.name for tensor in model.graph.initializer}
    stored |= {tensor.values.name for tensor in model.graph.sparse_initializer}
    inputs = []
    for value in model.graph.input:
        if value.name in stored:
            continue
        if not value.type.HasField("tensor_type"):
            raise ModelFileError(f"input {value.name!r} of the ONNX model is not a tensor")
        tensor_type = value.type.tensor_type
        if not tensor_type.HasField("shape"):
            raise ModelFileError(f"input {value.name!r} of the ONNX model has no shape; export it with one")
        dims = tuple(
            dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else dim.dim_param
            for dim in tensor_type.shape.dim
        )
        inputs.append(NetworkInput(name=value.name, elem_type=tensor_type.elem_type, dims=dims))
    return tuple(inputs)


def batch_of(inputs: tuple[NetworkInput, ...]) -> int:
    """The batch size that the file states; 1 if it is open."""
    batch = _batch_dimension(inputs)
    return batch if isinstance(batch, int) else 1


def _batch_dimension(inputs: tuple[NetworkInput, ...]) -> int | str:
    """The first dimension of the first input that has any."""
    return next((value.dims[0] for value in inputs if value.dims), 1)


def shapes_at(inputs: tuple[NetworkInput, ...], batch_size: int) -> dict[str, Shape]:
    """Shapes of the inputs at a batch size.

    A fixed batch is replaced in dimension 0 of every input that has the first input's dimension 0. An open
    batch is replaced wherever its name stands, and so is any open dimension 0.

    Raises:
        ModelFileError: the file leaves another dimension open.
    """
    batch = _batch_dimension(inputs)
    shapes = {}
    for value in inputs:
        shape = []
        for axis, dim in enumerate(value.dims):
            if axis == 0 and (dim == batch or isinstance(dim, str)):
                shape.append(batch_size)
            elif isinstance(dim, int):
                shape.append(dim)
            elif dim and dim == batch:
                shape.append(batch_size)
            else:
                raise ModelFileError(
                    f"input {value.name!r} of the ONNX model leaves dimension {axis} open ({dim!r}); "
                    "export it with fixed sizes (only the batch, dimension 0, may be open)"
                )
        shapes[value.name] = tuple(shape)
    return shapes


def stated_shapes(model: onnx.ModelProto) -> dict[str, tuple[Shape, int]]:
    """Fixed shapes and types of inner tensors that the file states: needed behind unknown operations."""
    stated = {}
    for value in (*model.graph.value_info, *model.graph.output):
        tensor_type = value.type.tensor_type
        if tensor_type.HasField("shape") and all(d.HasField("dim_value") for d in tensor_type.shape.dim):
            shape = tuple(dim.dim_value for dim in tensor_type.shape.dim)
            stated[value.name] = (shape, tensor_type.elem_type)
    return stated
