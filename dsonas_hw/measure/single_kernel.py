"""One kernel as an ONNX model of its own: what public lookup tables time, here a baseline only."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from dsonas_hw.kernel.spec import Kernel

OPSET = 17
IR_VERSION = 8

_ELEMENTWISE = {"sum": "Sum", "mul": "Mul", "sub": "Sub", "div": "Div"}
_UNARY = {
    "relu": "Relu",
    "sigmoid": "Sigmoid",
    "tanh": "Tanh",
    "hardswish": "HardSwish",
    "hardsigmoid": "HardSigmoid",
}


def build_kernel_model(kernel: Kernel) -> bytes | None:
    """The kernel with random weights and whatever is fused behind it; None for kernels it cannot build."""
    import onnx
    from onnx import TensorProto, helper

    builder = _Builder(kernel)
    if not builder.build():
        return None
    inputs = [
        helper.make_tensor_value_info(f"x{index}", TensorProto.FLOAT, list(shape))
        for index, shape in enumerate(kernel.inputs)
    ]
    output = helper.make_tensor_value_info(builder.last, TensorProto.FLOAT, None)
    graph = helper.make_graph(builder.nodes, "kernel", inputs, [output], builder.initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    return bytes(onnx.shape_inference.infer_shapes(model).SerializeToString())


class _Builder:
    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self.last = "x0"
        self._rng = np.random.default_rng(0)

    def build(self) -> bool:
        """Whether the kernel is one that can be built."""
        if not self._body():
            return False
        for name in self.kernel.epilogue:
            if name == "bn":
                self._batch_norm()
            elif name in _UNARY:
                self._node(_UNARY[name], [self.last])
            else:
                return False
        return True

    def _body(self) -> bool:
        kernel = self.kernel
        names = [f"x{index}" for index in range(len(kernel.inputs))]
        window = {
            "kernel_shape": list(kernel.kernel_size),
            "strides": list(kernel.stride),
            "pads": self._pads(),
        }
        match kernel.op:
            case "conv":
                channels = kernel.output[1]
                weight = self._random(channels, kernel.inputs[0][1] // kernel.groups, *kernel.kernel_size)
                names = ["x0", weight, *([self._random(channels)] if kernel.num_bias else [])]
                dilations = list(kernel.dilation)
                self._node("Conv", names, group=kernel.groups, dilations=dilations, **window)
            case "maxpool":
                self._node("MaxPool", names, **window)
            case "avgpool":
                self._node("AveragePool", names, count_include_pad=0, **window)
            case "global_avgpool":
                self._node("GlobalAveragePool", names)
            case "batchnorm":
                self._batch_norm()
            case "concat":
                self._node("Concat", names, axis=1)
            case "gemm":
                features = kernel.inputs[0][-1]
                weight = self._random(kernel.output[-1], features)
                self._node("Gemm", ["x0", weight, self._random(kernel.output[-1])], transB=1)
            case "unary" if kernel.function in _UNARY:
                self._node(_UNARY[kernel.function], names)
            case op if op in _ELEMENTWISE:
                self._node(_ELEMENTWISE[op], names)
            case _:
                return False
        return True

    def _pads(self) -> list[int]:
        """Symmetric where possible: whatever makes the output's size out of the input's."""
        kernel = self.kernel
        if len(kernel.output) != 4:
            return [0, 0, 0, 0]
        totals = []
        for axis in (0, 1):
            reach = kernel.dilation[axis] * (kernel.kernel_size[axis] - 1) + 1
            needed = (kernel.output[2 + axis] - 1) * kernel.stride[axis] + reach - kernel.inputs[0][2 + axis]
            totals.append(max(0, needed))
        return [totals[0] // 2, totals[1] // 2, totals[0] - totals[0] // 2, totals[1] - totals[1] // 2]

    def _batch_norm(self) -> None:
        channels = self.kernel.output[1]
        self._node(
            "BatchNormalization", [self.last, *(self._random(channels, positive=True) for _ in range(4))]
        )

    def _random(self, *shape: int, positive: bool = False) -> str:
        from onnx import numpy_helper

        values = self._rng.standard_normal(shape, np.float32) / np.float32(max(1, prod(shape[1:])) ** 0.5)
        name = f"w{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.abs(values) + 0.5 if positive else values, name))
        return name

    def _node(self, op_type: str, inputs: list[str], **attributes: Any) -> None:
        from onnx import helper

        self.last = f"y{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, inputs, [self.last], **attributes))
