"""Build small ONNX graphs by hand; weights are zeros, only their shapes matter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


class Build:
    """A graph that grows one operation at a time; tensors are called by what `add` returns."""

    def __init__(self, *shape: int | str, opset: int = 17) -> None:
        self.opset = opset
        self.inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def input(self, *shape: int | str, elem_type: int = TensorProto.FLOAT) -> str:
        name = f"in{len(self.inputs)}"
        self.inputs.append(helper.make_tensor_value_info(name, elem_type, shape))
        return name

    def constant(self, values: Any, dtype: Any = np.float32) -> str:
        name = f"c{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def weight(self, *shape: int) -> str:
        return self.constant(np.zeros(shape))

    def ints(self, *values: int) -> str:
        return self.constant(values, np.int64)

    def add(self, op: str, *inputs: str, num_outputs: int = 1, **attributes: Any) -> Any:
        number = len(self.nodes)
        outputs = [f"t{number}" if i == 0 else f"t{number}_{i}" for i in range(num_outputs)]
        self.nodes.append(helper.make_node(op, inputs, outputs, name=f"{op.lower()}{number}", **attributes))
        return outputs[0] if num_outputs == 1 else outputs

    def conv(
        self,
        x: str,
        channels_in: int,
        channels_out: int,
        kernel: int,
        *,
        bias: bool = False,
        **attributes: Any,
    ) -> str:
        groups = attributes.get("group", 1)
        operands = [x, self.weight(channels_out, channels_in // groups, kernel, kernel)]
        if bias:
            operands.append(self.weight(channels_out))
        attributes.setdefault("pads", [kernel // 2] * 4)
        return str(self.add("Conv", *operands, **attributes))

    def batchnorm(self, x: str, channels: int) -> str:
        return str(self.add("BatchNormalization", x, *(self.weight(channels) for _ in range(4))))

    def model(self, *outputs: str, domains: Sequence[tuple[str, int]] = ()) -> onnx.ModelProto:
        infos = [helper.make_value_info(name, onnx.TypeProto()) for name in outputs]
        graph = helper.make_graph(self.nodes, "network", self.inputs, infos, self.initializers)
        opsets = [helper.make_opsetid(*pair) for pair in (("", self.opset), *domains)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)
