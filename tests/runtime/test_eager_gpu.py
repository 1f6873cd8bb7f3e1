"""PyTorch eager on a GPU: the device `meta` stands in, which computes no values, so none can be read."""

from __future__ import annotations

import weakref
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from dsonas_hw.errors import DeviceError
from dsonas_hw.runtime.eager import operations
from dsonas_hw.runtime.eager import session as eager
from dsonas_hw.runtime.eager.session import gpu_versions, open_eager_session
from dsonas_hw.target import Target

ON_CPU = Target(runtime="eager")


def test_sizes_and_axes_are_not_read_from_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would wait for the GPU in the middle of the network, and be timed."""
    nodes = [
        helper.make_node("ReduceMean", ["x", "axes"], ["mean"], keepdims=0),
        helper.make_node("Constant", [], ["sizes"], value=numpy_helper.from_array(np.array([0, 2, -1]))),
        helper.make_node("Reshape", ["mean", "sizes"], ["pairs"]),
        helper.make_node("Reshape", ["pairs", "flat"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])],
        [
            numpy_helper.from_array(np.array([2, 3]), "axes"),
            numpy_helper.from_array(np.array([0, -1]), "flat"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model)
    monkeypatch.setattr(eager, "_device", lambda on_cpu: torch.device("meta"))
    with open_eager_session(model.SerializeToString(), replace(ON_CPU, precision="fp16")) as session:
        (y,) = session.run()  # type: ignore[misc]
    assert (y.device.type, y.dtype, tuple(y.shape)) == ("meta", torch.float16, (1, 4))


def chain(length: int) -> bytes:
    """x → ReLU → ReLU → …, the last one added to the first."""
    names = [f"t{index}" for index in range(length)]
    nodes = [helper.make_node("Relu", [a], [b]) for a, b in zip(["x", *names], names, strict=False)]
    nodes.append(helper.make_node("Add", [names[-1], names[0]], ["y"]))
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in "xy"]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def test_what_nothing_reads_any_more_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of twelve layers never more than three tensors live: the first, which is read at the end, and two."""
    living: weakref.WeakSet[torch.Tensor] = weakref.WeakSet()
    most = 0

    def relu(inputs: list[torch.Tensor], attributes: object) -> torch.Tensor:
        nonlocal most
        result = inputs[0].relu()
        living.add(result)
        most = max(most, len(living))
        return result

    monkeypatch.setitem(operations.OPERATIONS, "Relu", relu)
    with open_eager_session(chain(12), ON_CPU) as session:
        (y,) = session.run()  # type: ignore[misc]
        (again,) = session.run()  # type: ignore[misc]
    assert torch.equal(y, again)
    assert most == 3


def test_training_s_wish_for_deterministic_kernels_does_not_reach_what_is_timed() -> None:
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with open_eager_session(chain(2), ON_CPU):
            assert not torch.are_deterministic_algorithms_enabled()
            with open_eager_session(chain(2), ON_CPU):
                assert not torch.are_deterministic_algorithms_enabled()
            assert not torch.are_deterministic_algorithms_enabled()
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


def test_on_the_cpu_there_is_no_cuda_graph() -> None:
    with (
        open_eager_session(chain(2), ON_CPU) as session,
        pytest.raises(DeviceError, match="nothing is launched"),
        session.as_graph(),
    ):
        pass


def test_what_decides_the_kernels_is_noted() -> None:
    assert set(gpu_versions()) == {
        "cuda", "cudnn", "tf32 of convolutions", "tf32 of matrix products", "cudnn.benchmark",
    }  # fmt: skip
