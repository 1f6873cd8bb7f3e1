"""A small network that never changes: what the speed of this machine is read from.

A CPU that others share, or whose clock moves, runs everything 5 to 15 % slower in one minute than in another.
Timings are compared with the reference workload's next to them, so that tables and checks made in different
minutes agree. It holds what the networks of the search spaces hold: separable and plain convolutions, pools,
sums, a concat.
"""

from __future__ import annotations

from typing import Any

import numpy as np

CHANNELS, SIDE, NUM_BRANCHES = 48, 32, 8


def build_reference(batch_size: int = 1) -> bytes:
    """The reference workload as ONNX: under a millisecond on one core of a server CPU, on 5 MB of tensors."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    nodes: list[Any] = []
    initializers: list[Any] = []

    def weight(*shape: int) -> str:
        values = rng.standard_normal(shape, np.float32) / np.float32(np.prod(shape[1:]) ** 0.5)
        initializers.append(numpy_helper.from_array(values, f"w{len(initializers)}"))
        return f"w{len(initializers) - 1}"

    def add(op_type: str, *inputs: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(op_type, list(inputs), [f"t{len(nodes)}"], **attributes))
        return f"t{len(nodes) - 1}"

    current = "input"
    branches = []
    for index in range(NUM_BRANCHES):
        if index % 2:
            pooled = add("MaxPool", current, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
        else:
            pooled = add("Conv", current, weight(CHANNELS, 1, 5, 5), group=CHANNELS, pads=[2, 2, 2, 2])
        mixed = add("Relu", add("Conv", pooled, weight(CHANNELS, CHANNELS, 1, 1)))
        current = add("Sum", mixed, current)
        branches.append(mixed)
    joined = add("Concat", *branches, axis=1)
    add("Conv", joined, weight(CHANNELS, NUM_BRANCHES * CHANNELS, 1, 1))
    shape = [batch_size, CHANNELS, SIDE, SIDE]
    graph = helper.make_graph(
        nodes,
        "reference",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, shape)],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(onnx.shape_inference.infer_shapes(model).SerializeToString())
