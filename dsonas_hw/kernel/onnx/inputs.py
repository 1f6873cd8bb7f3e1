"""What a network takes: its declared inputs, which of their dimensions is the batch, and the sizes asked for.

The batch is, in this order: the open dimension that is named so (`batch`, `N`, …), wherever that name stands;
the first dimension, where it is open in every input, or fixed at one size in every input; of an input that a
recurrent layer reads, the dimension that the layer takes for the batch stands for the first. In any other
file no dimension is known to be the batch, and the file's own sizes stay.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dsonas_hw.errors import ModelFileError, closest
from dsonas_hw.kernel.spec import Shape, by

if TYPE_CHECKING:
    import onnx

BATCH_NAMES = re.compile(r"n|b|bs|bsz|.*batch.*", re.IGNORECASE)
OTHER_NAMES = re.compile(
    r".*(seq|len|time|step|frame|token|height|width|channel|sample|num|point|past|size|feature|dim).*|[chtlwsk]",
    re.IGNORECASE,
)
"""Names of dimensions that say that they are not the batch; what is neither, `unk__12` say, says nothing."""


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


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Where the batch stands in the inputs."""

    axes: Mapping[str, tuple[int, ...]]
    """Input → its dimensions that are the batch."""
    own_size: int
    """The size that the file states; 1 if it leaves the batch open."""
    can_change: bool = True
    """False where the outputs contradict that the first dimension, which is fixed, is the batch."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """The shapes of all inputs, at the file's own batch and at the one asked for."""

    own: dict[str, Shape]
    own_batch: int
    wanted: dict[str, Shape]
    batch_size: int | None
    """None: which dimension is the batch is not known."""


def declared_inputs(model: onnx.ModelProto) -> tuple[NetworkInput, ...]:
    """The inputs that the file does not store itself.

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


def find_batch(
    inputs: Sequence[NetworkInput],
    outputs: Iterable[tuple[int | str, ...]],
    recurrent: Mapping[str, int] | None = None,
) -> Batch | None:
    """Where the batch stands; None if that cannot be told.

    outputs: declared shapes of the network's outputs, as far as there are any.
    recurrent: input → the dimension that a recurrent layer takes for the batch; the first for all others.
    """
    axis_of = recurrent or {}
    shapes = {value.name: value.dims for value in inputs if value.dims}
    names = {dim for dims in shapes.values() for dim in dims if isinstance(dim, str) and dim}
    named = {name for name in names if BATCH_NAMES.fullmatch(name)}
    if named:
        return Batch(axes=_axes_of(shapes, named, axis_of), own_size=1)
    leads = {name: dims[axis_of.get(name, 0)] for name, dims in shapes.items()}
    if all(isinstance(lead, str) and not OTHER_NAMES.fullmatch(lead) for lead in leads.values()) and leads:
        return Batch(axes=_axes_of(shapes, set(map(str, leads.values())) - {""}, axis_of), own_size=1)
    # A single number is a parameter, not a batch of one.
    fixed = {name: lead for name, lead in leads.items() if shapes[name] != (1,)} or leads
    sizes = set(fixed.values())
    size = next(iter(sizes), None)
    if len(sizes) != 1 or not isinstance(size, int) or size < 1:
        return None
    if any(lead != size for name, lead in leads.items() if name not in fixed):
        return None
    if size > 1 and any(_is_time_first(shapes[name]) for name in fixed.keys() - axis_of.keys()):
        return None
    # Behind a recurrent layer that takes the batch second, it stands second or third.
    is_second = any(axis_of.values())
    agree = all(
        size in dims if is_second else dims[0] == size
        for dims in outputs
        if dims and all(isinstance(dim, int) for dim in (dims if is_second else dims[:1]))
    )
    if not agree and size > 1:
        return None
    return Batch(axes={name: (axis_of.get(name, 0),) for name in fixed}, own_size=size, can_change=agree)


def _is_time_first(dims: tuple[int | str, ...]) -> bool:
    """(time, 1, features), as recurrent layers take it."""
    return len(dims) == 3 and dims[1] == 1


def _axes_of(
    shapes: Mapping[str, tuple[int | str, ...]], names: set[str], axis_of: Mapping[str, int]
) -> dict[str, tuple[int, ...]]:
    """Where dimensions of these names stand; and open ones without a name where the batch is expected."""
    axes = {}
    for name, dims in shapes.items():
        expected = axis_of.get(name, 0)
        found = tuple(i for i, dim in enumerate(dims) if dim in names or (i == expected and dim == ""))
        if found:
            axes[name] = found
    return axes


def resolve_sizes(
    inputs: Sequence[NetworkInput],
    batch: Batch | None,
    batch_size: int | None,
    given: Mapping[str, Shape],
) -> Sizes:
    """Sizes of all inputs.

    batch_size: replaces the file's; None for the file's own, 1 where it is open.
    given: shapes of inputs by name; some may be those of other networks.

    Raises:
        ModelFileError: a size is open and not given, or what is given contradicts the file or itself.
    """
    known: dict[str, int] = {}
    chosen: dict[str, tuple[int | str, ...]] = {}
    wanted = batch_size
    for value in inputs:
        dims = value.dims
        if value.name in given:
            shape = given[value.name]
            axes = batch.axes.get(value.name, ()) if batch else ()
            _check_given(value, shape, axes)
            for axis, size in enumerate(shape):
                if axis in axes:
                    wanted = _agreed("the batch", wanted, size)
                elif dims is not None and isinstance(dims[axis], str) and dims[axis]:
                    name = str(dims[axis])
                    known[name] = _agreed(f"dimension {name!r}", known.get(name), size)
            dims = tuple((dims or shape)[axis] if axis in axes else size for axis, size in enumerate(shape))
        if dims is None:
            raise ModelFileError(
                f"input {value.name!r} of the ONNX model has no shape; give one, for example "
                f"--input-shape {quoted_shape(value.name, '1x3x224x224')}"
            )
        chosen[value.name] = dims
    if batch_size is not None and batch is not None and not batch.can_change and wanted != batch.own_size:
        raise unclear_batch(inputs, batch_size)
    own_batch = batch.own_size if batch else 1
    try:
        own = _at(inputs, chosen, known, batch, own_batch)
    except ModelFileError:
        if not set(given) & set(chosen):  # a slip in the name explains it
            check_input_names(given, chosen)
        raise
    wanted_size = own_batch if wanted is None else wanted
    if batch is None or wanted_size == own_batch:
        return Sizes(own=own, own_batch=own_batch, wanted=own, batch_size=own_batch if batch else None)
    at_batch = _at(inputs, chosen, known, batch, wanted_size)
    return Sizes(own=own, own_batch=own_batch, wanted=at_batch, batch_size=wanted_size)


def _check_given(value: NetworkInput, shape: Shape, batch_axes: tuple[int, ...]) -> None:
    if value.dims is None:
        return
    if len(shape) != len(value.dims):
        raise ModelFileError(
            f"--input-shape {value.name}={by(shape)} has {len(shape)} dimensions; the model takes {value}"
        )
    for axis, (size, dim) in enumerate(zip(shape, value.dims, strict=True)):
        if isinstance(dim, int) and size != dim and axis not in batch_axes:
            raise ModelFileError(
                f"--input-shape {value.name}={by(shape)}: dimension {axis} of the model's input {value} is "
                f"fixed at {dim}"
            )


def _agreed(what: str, before: int | None, size: int) -> int:
    if before is not None and before != size:
        raise ModelFileError(f"{what} is given as {before} and as {size}; give one size")
    return size


def _at(
    inputs: Sequence[NetworkInput],
    chosen: Mapping[str, tuple[int | str, ...]],
    known: Mapping[str, int],
    batch: Batch | None,
    batch_size: int,
) -> dict[str, Shape]:
    shapes = {}
    for value in inputs:
        dims = chosen[value.name]
        axes = batch.axes.get(value.name, ()) if batch else ()
        shape: list[int] = []
        for axis, dim in enumerate(dims):
            if axis in axes:
                shape.append(batch_size)
            elif isinstance(dim, int):
                shape.append(dim)
            elif dim in known:
                shape.append(known[dim])
            else:
                raise open_size(value, axis, batch_axes=axes)
        shapes[value.name] = tuple(shape)
    return shapes


def open_size(value: NetworkInput, axis: int, *, batch_axes: tuple[int, ...]) -> ModelFileError:
    """What to tell the user about a size that the file leaves open."""
    dims = value.dims or ()
    name = f" ({dims[axis]!r})" if dims[axis] else ""
    example = quoted_shape(value.name, "x".join(map(str, _example(dims, batch_axes))))
    return ModelFileError(
        f"input {value.name!r} of the ONNX model leaves dimension {axis} open{name}; give its sizes, "
        f"for example --input-shape {example}"
    )


def _example(dims: Sequence[int | str], batch_axes: tuple[int, ...]) -> list[int]:
    """Sizes that a user may mean: an image where there are four, a sequence otherwise."""
    usual = tuple(1 if axis in (batch_axes or (0,)) else 128 for axis in range(len(dims)))
    if len(dims) == 4:
        usual = (1, 3, 224, 224)
    if len(dims) == 4 and dims[3] in (1, 3, 4):  # the channels come last
        usual = (1, 224, 224, 3)
    if len(dims) == 3 and isinstance(dims[0], int) and dims[0] > 1:  # the state of a recurrent layer
        usual = (dims[0], 1, 128)
    return [dim if isinstance(dim, int) else size for dim, size in zip(dims, usual, strict=True)]


def quoted_shape(name: str, sizes: str) -> str:
    """NAME=SIZES as a shell takes it."""
    import shlex

    return shlex.quote(f"{name}={sizes}")


def unclear_batch(inputs: Sequence[NetworkInput], batch_size: int) -> ModelFileError:
    """What to tell the user who asks for a batch size of a file that does not say what its batch is."""
    listed = ", ".join(map(str, inputs[:3])) + (", …" if len(inputs) > 3 else "")
    return ModelFileError(
        f"cannot tell which dimension of the ONNX model is the batch, to read it at {batch_size}: it takes "
        f"{listed}; leave --batch-size away for the file's own sizes, or give all of them with --input-shape"
    )


def check_input_names(given: Iterable[str], known: Iterable[str]) -> None:
    """Refuse a shape for an input that no network has.

    Raises:
        ModelFileError: with what there is.
    """
    names = sorted(set(known))
    for name in given:
        if name not in names:
            raise ModelFileError(f"--input-shape: no input is called {name!r}. {closest(name, names)}")


def stated_shapes(model: onnx.ModelProto) -> dict[str, tuple[Shape, int]]:
    """Fixed shapes and types of inner tensors that the file states: needed behind unknown operations."""
    stated = {}
    for value in (*model.graph.value_info, *model.graph.output):
        dims = _dims(value)
        if dims is not None and all(isinstance(dim, int) for dim in dims):
            shape = tuple(int(dim) for dim in dims)
            stated[value.name] = (shape, value.type.tensor_type.elem_type)
    return stated


def output_shapes(model: onnx.ModelProto) -> list[tuple[int | str, ...]]:
    """Declared shapes of the outputs that have one."""
    return [dims for value in model.graph.output if (dims := _dims(value)) is not None]
