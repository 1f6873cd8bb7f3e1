"""Damaged and random files end in a result or a `ModelFileError`, never in anything else."""

from __future__ import annotations

from typing import Any

import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper
from onnx_build import Build

from dsonas_hw.errors import ModelFileError
from dsonas_hw.kernel.costs import count_costs
from dsonas_hw.kernel.onnx.from_onnx import network_from_onnx
from dsonas_hw.kernel.onnx.lower_elementwise import ELEMENTWISE_LOWERINGS
from dsonas_hw.kernel.onnx.lower_move import MOVE_LOWERINGS
from dsonas_hw.kernel.onnx.lower_product import PRODUCT_LOWERINGS
from dsonas_hw.kernel.onnx.lower_reduce import REDUCE_LOWERINGS

OPS = sorted({**ELEMENTWISE_LOWERINGS, **MOVE_LOWERINGS, **PRODUCT_LOWERINGS, **REDUCE_LOWERINGS})


def varied_model() -> onnx.ModelProto:
    """A little of everything that is read with care: reshapes, constants, patterns, a function, an If."""
    build = Build("N", 4, 6, 6)
    y = build.batchnorm(build.conv("x", 4, 4, 3, group=2), 4)
    y = build.add("Mul", y, build.add("Sigmoid", y))
    y = build.add("Reshape", y, build.ints(-1, 2, 2, 6, 6))
    y = build.add("Reshape", build.add("Transpose", y, perm=[0, 2, 1, 3, 4]), build.ints(-1, 4, 6, 6))
    y = build.add("MaxPool", build.add("Pad", y, build.ints(0, 0, 0, 0, 0, 0, 1, 1)), kernel_shape=[2, 2])
    y = build.add("Concat", y, build.add("Resize", y, "", build.constant([1, 1, 1, 1])), axis=1)
    y = build.add("ReduceMean", y, axes=[2, 3], keepdims=0)
    shape = build.add("Concat", build.add("Shape", y, end=1), build.ints(8), axis=0)
    y = build.add(
        "Add", build.add("MatMul", build.add("Reshape", y, shape), build.weight(8, 5)), build.weight(5)
    )
    y = build.add("Twice", y, domain="local")
    model = build.model(build.add("Softmax", y), domains=[("local", 1)])
    body = [helper.make_node("Relu", ["a"], ["b"]), helper.make_node("Erf", ["b"], ["c"])]
    opsets = [helper.make_opsetid("", 17)]
    model.functions.append(helper.make_function("local", "Twice", ["a"], ["c"], body, opsets))
    return model


VALID = varied_model().SerializeToString()


def read(model: Any, **options: Any) -> None:
    """Read a model; a result must be one that can be counted and named."""
    message = ""
    try:
        network = network_from_onnx(model, **options)
    except ModelFileError as error:
        message = str(error)
    if message:
        assert message.isprintable()
        return
    costs = count_costs(network.kernels)
    assert min(costs.flops, costs.mac, costs.params) >= 0
    assert all(kernel.key and kernel.batch_size >= 0 for kernel in network.kernels)


def test_the_undamaged_model_is_read() -> None:
    assert network_from_onnx(varied_model()).unknown == ()


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    edits=st.lists(st.tuples(st.integers(0, len(VALID) - 1), st.integers(0, 255)), min_size=1, max_size=8),
    cut=st.one_of(st.none(), st.integers(0, len(VALID))),
    batch_size=st.sampled_from([None, 3]),
)
def test_damaged_bytes(
    edits: list[tuple[int, int]], cut: int | None, batch_size: int | None, tmp_path_factory: Any
) -> None:
    content = bytearray(VALID)
    for position, value in edits:
        content[position] = value
    path = tmp_path_factory.getbasetemp() / "damaged.onnx"
    path.write_bytes(content[:cut])
    read(path, batch_size=batch_size)


SMALL = st.integers(-3, 9)
HUGE = st.sampled_from([2**31, 2**62, -(2**62), -(2**63)])
NUMBERS = st.one_of(SMALL, HUGE)
VALUES: st.SearchStrategy[Any] = st.one_of(
    NUMBERS,
    st.lists(NUMBERS, min_size=1, max_size=5),
    st.floats(allow_nan=True, width=32),
    st.lists(st.floats(width=32), min_size=1, max_size=4),
    st.sampled_from(["constant", "reflect", "SAME_UPPER", "ab,bc->ac", "->", "a,,b->c", ""]),
)
KEYS = (
    "axis axes perm pads strides dilations kernel_shape group keepdims mode equation to transA transB "
    "alpha beta min max split blocksize auto_pad ceil_mode allowzero start end output_shape size "
    "q_num_heads kv_num_heads noop_with_empty_axes value_ints num_outputs"
)


@st.composite
def random_models(draw: st.DrawFn) -> onnx.ModelProto:
    """A few operations with any number of operands, of any shape, and any attributes."""
    build = Build(*draw(st.lists(st.integers(0, 5), min_size=1, max_size=5)), opset=draw(st.integers(7, 26)))
    names = ["x", ""]
    names += [build.weight(*draw(st.lists(st.integers(0, 5), max_size=4))) for _ in range(2)]
    names += [build.ints(*draw(st.lists(NUMBERS, max_size=5))) for _ in range(2)]
    for _ in range(draw(st.integers(1, 4))):
        operands = draw(st.lists(st.sampled_from(names), max_size=4))
        attributes = draw(st.dictionaries(st.sampled_from(KEYS.split()), VALUES, max_size=3))
        domain = draw(st.sampled_from(["", "", "", "com.microsoft"]))
        count = attributes.pop("num_outputs", None)  # an attribute of Split, and our builder's word
        made = build.add(
            draw(st.sampled_from([*OPS, "Shape", "Constant", "ConstantOfShape", "Range", "If", "LSTM"])),
            *operands,
            num_outputs=draw(st.integers(1, 2)),
            domain=domain,
            **attributes,
        )
        if isinstance(count, int):
            build.nodes[-1].attribute.append(helper.make_attribute("num_outputs", count))
        names += [made] if isinstance(made, str) else made
    return build.model(names[-1], domains=[("com.microsoft", 1)])


@settings(max_examples=600, deadline=None)
@given(model=random_models(), batch_size=st.sampled_from([None, 3]), fuse=st.booleans())
def test_random_operations(model: onnx.ModelProto, batch_size: int | None, fuse: bool) -> None:
    read(model, batch_size=batch_size, fuse=fuse)


@pytest.mark.parametrize("op", OPS)
def test_an_operation_without_operands_is_refused_or_unknown(op: str) -> None:
    build = Build(1, 8)
    read(build.model(build.add(op)))
    build = Build(1, 8)
    read(build.model(build.add(op, build.add("Mystery", "x"))))
