"""PyTorch eager on a GPU: the device `meta` stands in, which computes no values, so none can be read."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from dsonas_hw.runtime.eager import session as eager
from dsonas_hw.runtime.eager.session import open_eager_session


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
    with open_eager_session(model.SerializeToString(), precision="fp16") as session:
        (y,) = session.run()  # type: ignore[misc]
    assert (y.device.type, y.dtype, tuple(y.shape)) == ("meta", torch.float16, (1, 4))
