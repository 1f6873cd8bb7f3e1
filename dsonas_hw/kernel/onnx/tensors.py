"""What is known of the tensors of an ONNX graph while it is walked through: shape, type, constant value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING, Any

from dsonas_hw.errors import ModelFileError
from dsonas_hw.kernel.onnx.graph import Constant, Node
from dsonas_hw.kernel.onnx.values import MAX_ELEMENTS
from dsonas_hw.kernel.spec import Shape

if TYPE_CHECKING:
    import onnx

    from dsonas_hw.kernel.onnx.values import Array

MAX_TENSOR_ELEMENTS = 2**40
"""No device holds a larger tensor: such a shape means a damaged file."""
MAX_RANK = 64


class Tensors:
    """Shapes, element types (as ONNX numbers them) and constants, by name."""

    def __init__(self) -> None:
        self.shapes: dict[str, Shape] = {}
        self.elem_types: dict[str, int] = {}
        self.constants: dict[str, Constant] = {}
        self.stored: dict[str, int] = {}
        """Elements of every tensor that the file stores, by the file's name for it."""

    def set(self, name: str, shape: Sequence[int], elem_type: int) -> None:
        """Record a tensor's shape and type.

        Raises:
            ModelFileError: a shape that no tensor can have.
        """
        if len(shape) > MAX_RANK or min(shape, default=0) < 0 or prod(shape) > MAX_TENSOR_ELEMENTS:
            dims = " × ".join(map(str, shape[:8])) + (" × …" if len(shape) > 8 else "")
            raise ModelFileError(f"tensor {name!r} of the ONNX model has the impossible shape {dims}")
        self.shapes[name] = tuple(shape)
        self.elem_types[name] = elem_type

    def set_constant(self, name: str, constant: Constant, elem_type: int) -> None:
        self.set(name, constant.shape, elem_type)
        self.constants[name] = constant

    def copy(self) -> Tensors:
        """Return the same, to be added to separately."""
        other = Tensors()
        other.shapes, other.elem_types = dict(self.shapes), dict(self.elem_types)
        other.constants, other.stored = dict(self.constants), self.stored
        return other

    def set_values(self, name: str, values: Array, source: str = "") -> None:
        """Record a constant whose elements are known; `source`: what the file calls it."""
        from onnx import helper

        constant = Constant(
            shape=tuple(values.shape),
            values=values if values.size <= MAX_ELEMENTS else None,
            num_stored=values.size,
            sources=self._source(source or name, values.size),
        )
        self.set_constant(name, constant, helper.np_dtype_to_tensor_dtype(values.dtype))

    def set_stored(self, name: str, tensor: onnx.TensorProto, source: str = "") -> None:
        """Record a constant that the file stores; `source`: what the file calls it."""
        shape = tuple(tensor.dims)
        self.set(name, shape, tensor.data_type)
        self.constants[name] = Constant(
            shape=shape,
            values=_small_values(tensor),
            num_stored=prod(shape),
            sources=self._source(source or name, prod(shape)),
        )

    def set_sparse(self, name: str, tensor: onnx.SparseTensorProto, source: str = "") -> None:
        """Record a constant that the file stores sparsely; a device stores it densely."""
        shape = tuple(tensor.dims)
        self.set(name, shape, tensor.values.data_type)
        sources = self._source(source or name, prod(shape))
        self.constants[name] = Constant(shape=shape, num_stored=prod(shape), sources=sources)

    def _source(self, source: str, num_elements: int) -> frozenset[str]:
        self.stored[source] = num_elements
        return frozenset([source])

    def set_constant_node(self, node: Node, source: str = "") -> None:
        """Record the output of a Constant operation; `source`: what the file calls it.

        Raises:
            ModelFileError: it holds no value.
        """
        import numpy as np
        import onnx

        name = node.outputs[0]
        for key, value in node.attributes.items():
            if isinstance(value, onnx.TensorProto):
                self.set_stored(name, value, source)
            elif isinstance(value, onnx.SparseTensorProto):
                self.set_sparse(name, value, source)
            elif key in ("value_int", "value_ints"):
                self.set_values(name, np.asarray(value, np.int64), source)
            elif key in ("value_float", "value_floats"):
                self.set_values(name, np.asarray(value, np.float32), source)
            elif key in ("value_string", "value_strings"):
                shape = (len(value),) if key == "value_strings" else ()
                self.set_constant(name, Constant(shape=shape), onnx.TensorProto.STRING)
            else:
                continue
            return
        raise ModelFileError(f"{node.label} of the ONNX model holds no value")

    def limit_stored(self, name: str, node: Node) -> None:
        """A constant made from others takes no more storage than they do (a broadcast table, say).

        Sizes, axes and indices among them, which are int64, do not count unless there is nothing else.
        """
        from onnx import TensorProto

        made = self.constants[name]
        given_names = [source for source in node.inputs if source]
        data = [s for s in given_names if self.elem_types[s] != TensorProto.INT64] or given_names
        given = sum(self.constants[source].num_stored for source in data)
        sources = frozenset[str]().union(*(self.constants[source].sources for source in data))
        if node.op == "ConstantOfShape":
            given, sources = 0, frozenset()
        quantised = self.constants[given_names[0]].quantised_type
        if node.op == "DequantizeLinear":
            quantised = self.elem_types[given_names[0]]
        self.constants[name] = replace(
            made, num_stored=min(prod(made.shape), given), sources=sources, quantised_type=quantised
        )


def _small_values(tensor: onnx.TensorProto) -> Any:
    """Elements of a small numeric tensor that lies in the file, else None."""
    from onnx import TensorProto, numpy_helper

    if prod(tensor.dims) > MAX_ELEMENTS or tensor.data_location == TensorProto.EXTERNAL:
        return None
    if tensor.data_type in (TensorProto.STRING, TensorProto.UNDEFINED) or tensor.HasField("segment"):
        return None
    try:
        values = numpy_helper.to_array(tensor)
    except Exception:  # no data, or not as much as the shape says: only the shape is known
        return None
    return values if values.dtype.kind in "iufb" else None
