"""Constants are evaluated as the ONNX reference implementation evaluates them, or not at all."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, defs, helper, numpy_helper, shape_inference
from onnx.reference import ReferenceEvaluator

from dsonas_hw.kernel.onnx.values import FOLDS, MAX_ELEMENTS, fold

INTS = np.asarray([5, -7, 2, 3, 0, 9])
ONE = np.asarray([2])


def reference(op: str, inputs: list[Any], attributes: dict[str, Any]) -> Any:
    names = [f"i{k}" if array is not None else "" for k, array in enumerate(inputs)]
    infos = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in zip(names, inputs, strict=True)
        if array is not None
    ]
    graph = helper.make_graph(
        [helper.make_node(op, names, ["y"], **attributes)],
        "g",
        infos,
        [helper.make_tensor_value_info("y", TensorProto.UNDEFINED, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    feeds = {name: array for name, array in zip(names, inputs, strict=True) if name}
    return ReferenceEvaluator(model).run(None, feeds)[0]


def ints(*values: int) -> Any:
    return np.asarray(values, np.int64)


CASES: list[tuple[str, list[Any], dict[str, Any]]] = [
    ("Identity", [INTS], {}),
    ("Cast", [INTS], {"to": TensorProto.FLOAT}),
    ("Cast", [np.asarray([1.9, -1.9], np.float32)], {"to": TensorProto.INT64}),
    ("Gather", [INTS, np.asarray(1)], {}),
    ("Gather", [INTS.reshape(2, 3), ints(0, -1)], {"axis": 1}),
    ("Slice", [INTS, ints(1), ints(4)], {}),
    ("Slice", [INTS, ints(-1), ints(-100), ints(0), ints(-1)], {}),
    ("Slice", [INTS.reshape(2, 3), ints(0, 1), ints(9, 3), ints(0, 1), ints(1, 2)], {}),
    ("Slice", [INTS, ints(0), ints(2**63 - 1), None, ints(2)], {}),
    ("Squeeze", [INTS.reshape(1, 6, 1)], {}),
    ("Squeeze", [INTS.reshape(1, 6, 1), ints(-1)], {}),
    ("Unsqueeze", [INTS, ints(0, 2)], {}),
    ("Reshape", [INTS.reshape(2, 3), ints(0, -1, 1)], {}),
    ("Concat", [INTS, ONE], {"axis": 0}),
    ("ConstantOfShape", [ints(2, 3)], {}),
    ("ConstantOfShape", [ints(2)], {"value": helper.make_tensor("v", TensorProto.INT64, [1], [7])}),
    ("Range", [np.asarray(1), np.asarray(10), np.asarray(3)], {}),
    ("Expand", [ONE, ints(3, 2)], {}),
    ("Where", [INTS > 2, INTS, ONE], {}),
    ("Transpose", [INTS.reshape(2, 3)], {}),
    ("Transpose", [INTS.reshape(1, 2, 3)], {"perm": [2, 0, 1]}),
    ("Shape", [INTS.reshape(2, 3)], {}),
    ("Shape", [INTS.reshape(1, 2, 3)], {"start": 1, "end": -1}),
    ("Size", [INTS], {}),
    *((op, [INTS, ints(2)], {}) for op in ("Add", "Sub", "Mul", "Div", "Min", "Max", "Mod", "Pow")),
    ("Div", [INTS, ints(-2)], {}),
    ("Div", [INTS.astype(np.float32), np.float32([-2])], {}),
    *((op, [INTS], {}) for op in ("Neg", "Abs")),
    *((op, [np.float32([1.5, 2.25])], {}) for op in ("Sqrt", "Reciprocal", "Floor", "Ceil")),
    *((op, [INTS, ONE], {}) for op in ("Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual")),
    *((op, [INTS > 2, INTS > 0], {}) for op in ("And", "Or")),
    ("Not", [INTS > 2], {}),
    *(
        (op, [np.float32([-1.5, 0, 2.25])], {})
        for op in ("Exp", "Erf", "Tanh", "Relu", "Sigmoid", "Softplus", "HardSigmoid")
    ),
    ("Log", [np.float32([1.5, 2.25])], {}),
    ("Clip", [INTS, np.asarray(-1), np.asarray(4)], {}),
    ("Clip", [INTS, None, np.asarray(4)], {}),
    ("ReduceSum", [INTS.reshape(2, 3), ints(1)], {}),
    ("ReduceSum", [INTS.reshape(2, 3)], {"noop_with_empty_axes": 1}),
    *((op, [INTS.reshape(2, 3)], {"keepdims": 0}) for op in ("ReduceProd", "ReduceMax", "ReduceMin")),
]


@pytest.mark.parametrize(
    ("op", "inputs", "attributes"), CASES, ids=[f"{c[0]}-{i}" for i, c in enumerate(CASES)]
)
def test_agrees_with_the_reference(op: str, inputs: list[Any], attributes: dict[str, Any]) -> None:
    ours, theirs = fold(op, inputs, attributes), reference(op, inputs, attributes)
    assert ours is not None
    assert ours.shape == theirs.shape
    assert ours.dtype.kind == theirs.dtype.kind
    assert ours.dtype.kind != "f" or ours.dtype == theirs.dtype
    np.testing.assert_allclose(ours, theirs, rtol=1e-6 if ours.dtype.kind == "f" else 0)


def test_every_fold_is_compared() -> None:
    assert FOLDS.keys() == {op for op, _, _ in CASES}


@given(
    start=st.integers(-9, 9),
    end=st.integers(-9, 9),
    step=st.integers(-3, 3).filter(bool),
    size=st.integers(1, 7),
)
def test_slice_takes_as_many_as_shape_inference_says(start: int, end: int, step: int, size: int) -> None:
    bounds = [ints(value) for value in (start, end, 0, step)]
    ours = fold("Slice", [np.arange(size), *bounds], {})
    node = helper.make_node("Slice", [*"xabcd"], ["y"])
    inferred = shape_inference.infer_node_outputs(
        defs.get_schema("Slice", 18, ""),
        node,
        {n: helper.make_tensor_type_proto(TensorProto.INT64, [size if n == "x" else 1]) for n in "xabcd"},
        {n: numpy_helper.from_array(value, n) for n, value in zip("abcd", bounds, strict=True)},
    )
    assert ours is not None
    assert ours.size == inferred["y"].tensor_type.shape.dim[0].dim_value


@pytest.mark.parametrize(
    ("op", "inputs"),
    [
        ("ConstantOfShape", [ints(2**31, 2**31)]),
        ("Expand", [ONE, ints(2**40)]),
        ("Range", [np.asarray(0), np.asarray(2**60), np.asarray(1)]),
        ("Range", [np.asarray(0.0), np.asarray(1.0), np.asarray(0.0)]),
        ("Add", [np.zeros((2000, 1)), np.zeros((1, 2000))]),
        ("Where", [np.ones((2000, 1), bool), np.zeros((1, 2000)), ONE]),
        ("Gather", [np.zeros((2, 1000)), np.zeros(1000, int)]),
        ("Add", [np.zeros(MAX_ELEMENTS), np.zeros(1)]),
    ],
)
def test_nothing_large_is_made(op: str, inputs: list[Any]) -> None:
    assert fold(op, inputs, {}) is None


def test_what_is_not_covered_or_malformed_is_not_known() -> None:
    assert fold("NonZero", [INTS], {}) is None
    assert fold("Concat", [INTS, ONE], {}) is None
    assert fold("Add", [INTS, None], {}) is None
    assert fold("Gather", [INTS, ints(99)], {}) is None
