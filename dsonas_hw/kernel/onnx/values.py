"""Evaluating the small constants of an ONNX graph: target shapes, axes, clip bounds, attention scales.

Only arrays of at most `MAX_ELEMENTS` are evaluated. An operation or a size that is not covered gives None,
"not known", which costs a shape later on, never a wrong one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

MAX_ELEMENTS = 4096

Array = np.ndarray[Any, Any]
Attributes = Mapping[str, Any]
Fold = Callable[[Sequence[Any], Attributes], Any]


def fold(op: str, inputs: Sequence[Array | None], attributes: Attributes) -> Array | None:
    """Return the value of `op` on constant inputs (None: omitted input), or None where it is not covered."""
    function = FOLDS.get(op)
    if function is None:
        return None
    if sum(array.size for array in inputs if array is not None) > MAX_ELEMENTS:
        return None
    try:
        with np.errstate(all="ignore"):
            value = function(inputs, attributes)
    except (ValueError, IndexError, TypeError, KeyError, OverflowError, AttributeError, MemoryError):
        return None  # a malformed node: shape inference says what is wrong with it
    if value is None:
        return None
    array = np.asarray(value)
    return array if array.size <= MAX_ELEMENTS and array.dtype != object else None


def _check_size(shape: Sequence[int]) -> list[int]:
    """The shape as ints, if an array of it is small enough to be made."""
    dims = [int(dim) for dim in shape]
    size = 1
    for dim in dims:
        size *= dim
        if dim < 0 or size > MAX_ELEMENTS:
            raise ValueError(f"refused to make a constant of shape {dims}")
    return dims


def sigmoid(x: Any) -> Any:
    """1 / (1 + e⁻ˣ), element by element."""
    return 1 / (1 + np.exp(-x))


def softplus(x: Any) -> Any:
    """ln(1 + eˣ), element by element."""
    return np.log1p(np.exp(x))


_erf = np.vectorize(math.erf, otypes=[np.float64])


def erf(x: Any) -> Any:
    """Return the error function, element by element."""
    return _erf(x).astype(x.dtype)


def _elementwise(function: Callable[..., Any]) -> Fold:
    def apply(inputs: Sequence[Any], attributes: Attributes) -> Any:
        _check_size(np.broadcast_shapes(*(array.shape for array in inputs)))
        result = inputs[0]
        if len(inputs) == 1:
            return function(result)
        for other in inputs[1:]:
            result = function(result, other)
        return result

    return apply


def _divide(a: Array, b: Array) -> Array:
    if a.dtype.kind == "f":
        return np.asarray(a / b)
    quotient = np.abs(a) // np.abs(b)
    return np.asarray(np.sign(a) * np.sign(b) * quotient).astype(a.dtype)  # ONNX truncates towards zero


def _clip(inputs: Sequence[Any], attributes: Attributes) -> Any:
    """Bounds are inputs in new opsets, attributes in old ones."""
    low, high = ([*inputs[1:3], None, None])[:2]
    low = attributes.get("min", -np.inf) if low is None else low
    high = attributes.get("max", np.inf) if high is None else high
    return np.minimum(np.maximum(inputs[0], low), high).astype(inputs[0].dtype)


def _hard_sigmoid(inputs: Sequence[Any], attributes: Attributes) -> Any:
    return np.clip(attributes.get("alpha", 0.2) * inputs[0] + attributes.get("beta", 0.5), 0, 1)


def _cast(inputs: Sequence[Any], attributes: Attributes) -> Any:
    from onnx import helper

    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(attributes["to"]))
    return inputs[0].astype(dtype) if dtype.kind in "iufb" else None


def _gather(inputs: Sequence[Any], attributes: Attributes) -> Any:
    data, indices = inputs
    axis = attributes.get("axis", 0)
    _check_size([data.size // max(data.shape[axis], 1), indices.size])
    return np.take(data, indices, axis=axis)


def _slice(inputs: Sequence[Any], attributes: Attributes) -> Any:
    data = inputs[0]
    if len(inputs) > 1:
        starts, ends = inputs[1].tolist(), inputs[2].tolist()
        axes = inputs[3].tolist() if len(inputs) > 3 and inputs[3] is not None else list(range(len(starts)))
        steps = inputs[4].tolist() if len(inputs) > 4 and inputs[4] is not None else [1] * len(starts)
    else:
        starts, ends = list(attributes["starts"]), list(attributes["ends"])
        axes = list(attributes.get("axes", range(len(starts))))
        steps = [1] * len(starts)
    index: list[slice] = [slice(None)] * data.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        index[axis] = _clamped(start, end, step, data.shape[axis])
    return data[tuple(index)]


def _clamped(start: int, end: int, step: int, size: int) -> slice:
    """Bounds as the standard has them: negative ones count from the end, then all are clamped."""
    start, end = (value + size if value < 0 else value for value in (start, end))
    if step > 0:
        return slice(min(max(start, 0), size), min(max(end, 0), size), step)
    end = min(max(end, -1), size - 1)
    return slice(min(max(start, 0), size - 1), None if end < 0 else end, step)


def axes_of(inputs: Sequence[Any], attributes: Attributes) -> list[int] | None:
    """Return the axes given as an attribute (old opsets) or as an input (new ones); None if not given."""
    if "axes" in attributes:
        return [int(axis) for axis in attributes["axes"]]
    if len(inputs) > 1 and inputs[1] is not None:
        return [int(axis) for axis in np.asarray(inputs[1]).reshape(-1)]
    return None


def _squeeze(inputs: Sequence[Any], attributes: Attributes) -> Any:
    axes = axes_of(inputs, attributes)
    return np.squeeze(inputs[0], axis=None if axes is None else tuple(axes))


def _unsqueeze(inputs: Sequence[Any], attributes: Attributes) -> Any:
    return np.expand_dims(inputs[0], tuple(axes_of(inputs, attributes) or ()))


def _reshape(inputs: Sequence[Any], attributes: Attributes) -> Any:
    data, target = inputs[0], inputs[1].tolist()
    if not attributes.get("allowzero", 0):
        target = [data.shape[i] if dim == 0 else dim for i, dim in enumerate(target)]
    return data.reshape(target)


def _reduce(function: Callable[..., Any]) -> Fold:
    def apply(inputs: Sequence[Any], attributes: Attributes) -> Any:
        axes = axes_of(inputs, attributes)
        if not axes and attributes.get("noop_with_empty_axes", 0):
            return inputs[0]
        keepdims = bool(attributes.get("keepdims", 1))
        return function(inputs[0], axis=tuple(axes) if axes else None, keepdims=keepdims)

    return apply


def _constant_of_shape(inputs: Sequence[Any], attributes: Attributes) -> Any:
    from onnx import numpy_helper

    value = attributes.get("value")
    fill = np.zeros(1, np.float32) if value is None else numpy_helper.to_array(value)
    return np.full(_check_size(inputs[0].tolist()), fill.reshape(-1)[0], dtype=fill.dtype)


def _range(inputs: Sequence[Any], attributes: Attributes) -> Any:
    start, limit, delta = (array.reshape(-1)[0] for array in inputs)
    _check_size([max(0, int(np.ceil((limit - start) / delta)))])
    return np.arange(start, limit, delta, dtype=inputs[0].dtype)


def _expand(inputs: Sequence[Any], attributes: Attributes) -> Any:
    shape = np.broadcast_shapes(inputs[0].shape, tuple(_check_size(inputs[1].tolist())))
    return np.broadcast_to(inputs[0], _check_size(shape))


def _where(inputs: Sequence[Any], attributes: Attributes) -> Any:
    _check_size(np.broadcast_shapes(*(array.shape for array in inputs)))
    return np.where(*inputs)


def _concat(inputs: Sequence[Any], attributes: Attributes) -> Any:
    return np.concatenate(list(inputs), axis=attributes["axis"])


FOLDS: dict[str, Fold] = {
    "Identity": lambda inputs, attributes: inputs[0],
    "Cast": _cast,
    "Gather": _gather,
    "Slice": _slice,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Reshape": _reshape,
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "Range": _range,
    "Expand": _expand,
    "Where": _where,
    "Transpose": lambda inputs, attributes: np.transpose(inputs[0], attributes.get("perm")),
    "Shape": lambda inputs, attributes: np.asarray(
        inputs[0].shape[attributes.get("start", 0) : attributes.get("end")], np.int64
    ),
    "Size": lambda inputs, attributes: np.asarray(inputs[0].size, np.int64),
    "Add": _elementwise(np.add),
    "Sub": _elementwise(np.subtract),
    "Mul": _elementwise(np.multiply),
    "Div": _elementwise(_divide),
    "Mod": _elementwise(np.mod),
    "Pow": _elementwise(np.power),
    "Min": _elementwise(np.minimum),
    "Max": _elementwise(np.maximum),
    "Neg": _elementwise(np.negative),
    "Abs": _elementwise(np.abs),
    "Sqrt": _elementwise(np.sqrt),
    "Reciprocal": _elementwise(np.reciprocal),
    "Floor": _elementwise(np.floor),
    "Ceil": _elementwise(np.ceil),
    "Exp": _elementwise(np.exp),
    "Log": _elementwise(np.log),
    "Erf": _elementwise(erf),
    "Tanh": _elementwise(np.tanh),
    "Relu": _elementwise(lambda x: np.maximum(x, 0)),
    "Sigmoid": _elementwise(sigmoid),
    "Softplus": _elementwise(softplus),
    "HardSigmoid": _hard_sigmoid,
    "Clip": _clip,
    "Not": _elementwise(np.logical_not),
    "And": _elementwise(np.logical_and),
    "Or": _elementwise(np.logical_or),
    "Equal": _elementwise(np.equal),
    "Less": _elementwise(np.less),
    "LessOrEqual": _elementwise(np.less_equal),
    "Greater": _elementwise(np.greater),
    "GreaterOrEqual": _elementwise(np.greater_equal),
    "ReduceSum": _reduce(np.sum),
    "ReduceProd": _reduce(np.prod),
    "ReduceMax": _reduce(np.max),
    "ReduceMin": _reduce(np.min),
}
