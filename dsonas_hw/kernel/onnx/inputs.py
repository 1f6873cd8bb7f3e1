"""The sizes of a network's inputs: those of the file, and those that are asked for."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dsonas_hw.errors import ModelFileError
from dsonas_hw.kernel.onnx.declared import NetworkInput
from dsonas_hw.kernel.onnx.find_batch import Batch
from dsonas_hw.kernel.spec import Shape, by


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """The shapes of all inputs, at the file's own batch and at the one asked for."""

    own: dict[str, Shape]
    own_batch: int
    wanted: dict[str, Shape]
    batch_size: int | None
    """None: which dimension is the batch is not known."""


def resolve_sizes(
    inputs: Sequence[NetworkInput],
    batch: Batch | None,
    batch_size: int | None,
    given: Mapping[str, Shape],
) -> Sizes:
    """Return the sizes of all inputs.

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
    own = _at(inputs, chosen, known, batch, own_batch)
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
    still_open: list[tuple[NetworkInput, int, tuple[int, ...]]] = []
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
                still_open.append((value, axis, axes))
                break
        shapes[value.name] = tuple(shape)
    if still_open:
        raise open_sizes(still_open)
    return shapes


def open_sizes(inputs: Sequence[tuple[NetworkInput, int, tuple[int, ...]]]) -> ModelFileError:
    """Return what to tell the user about sizes that the file leaves open.

    inputs: each with its first open axis, and those that are the batch.
    """
    value, axis, _ = inputs[0]
    dims = value.dims or ()
    name = f" ({dims[axis]!r})" if dims[axis] else ""
    if 0 in dims:
        return ModelFileError(
            f"input {value.name!r} of the ONNX model leaves dimension {axis} open{name} and fixes dimension "
            f"{dims.index(0)} at 0, at which nothing can be read; export it again with a size or a name there"
        )
    said: dict[str, int] = {}
    options = [
        f"--input-shape {quoted_shape(one.name, by(tuple(_example(one.dims or (), batch_axes, said))))}"
        for one, _, batch_axes in inputs
    ]
    others = f"; so do {', '.join(repr(one.name) for one, *_ in inputs[1:])}" if len(inputs) > 1 else ""
    return ModelFileError(
        f"input {value.name!r} of the ONNX model leaves dimension {axis} open{name}{others}; give all sizes, "
        f"for example {' '.join(options)}"
    )


def _example(dims: Sequence[int | str], batch_axes: tuple[int, ...], said: dict[str, int]) -> list[int]:
    """Sizes that a user may mean: an image where there are four, a sequence otherwise.

    said: sizes of named dimensions that are in the example already; those of this input are added.
    """
    usual = tuple(1 if axis in (batch_axes or (0,)) else 128 for axis in range(len(dims)))
    if len(dims) == 4:
        usual = (1, 3, 224, 224)
    if len(dims) == 4 and dims[3] in (1, 3, 4):  # the channels come last
        usual = (1, 224, 224, 3)
    if len(dims) == 3 and isinstance(dims[0], int) and dims[0] > 1:  # the state of a recurrent layer
        usual = (dims[0], 1, 128)
    return [
        dim if isinstance(dim, int) else (said.setdefault(dim, size) if dim else size)
        for dim, size in zip(dims, usual, strict=True)
    ]


def quoted_shape(name: str, sizes: str) -> str:
    """Return NAME=SIZES as a shell takes it."""
    return shlex.quote(f"{name}={sizes}")


def unclear_batch(inputs: Sequence[NetworkInput], batch_size: int) -> ModelFileError:
    """Return what to tell a user who asks for a batch size where the file does not say what its batch is."""
    listed = ", ".join(map(str, inputs[:3])) + (", …" if len(inputs) > 3 else "")
    return ModelFileError(
        f"cannot tell which dimension of the ONNX model is the batch, to read it at {batch_size}: it takes "
        f"{listed}; omit --batch-size to use the sizes of the file, or give all of them with --input-shape"
    )
