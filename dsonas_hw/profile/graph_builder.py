"""Writes ONNX networks node by node, with shapes known at every step and random weights."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnx

OPSET = 17
IR_VERSION = 8


@dataclass(frozen=True, slots=True)
class Tensor:
    """A value of the graph: its name and its sizes, the batch first."""

    name: str
    shape: tuple[int, ...]

    @property
    def channels(self) -> int:
        return self.shape[1]


class GraphBuilder:
    """Collects nodes and weights; every method adds one operation and returns what it writes.

    Convolutions carry a bias, as they do once batch norms are folded into them.
    """

    def __init__(self, *, seed: int = 0, with_weights: bool = True) -> None:
        """with_weights: False leaves the weights' values out, for whoever reads shapes only."""
        self._rng = np.random.default_rng(seed)
        self._with_weights = with_weights
        self._nodes: list[Any] = []
        self._initializers: list[Any] = []
        self._inputs: list[Any] = []

    def input(self, *shape: int) -> Tensor:
        from onnx import TensorProto, helper

        self._inputs.append(helper.make_tensor_value_info("image", TensorProto.FLOAT, list(shape)))
        return Tensor("image", shape)

    def conv(
        self, x: Tensor, channels: int, kernel: int | tuple[int, int] = 1, stride: int = 1, groups: int = 1
    ) -> Tensor:
        """Convolve with padding that keeps the size (divided by the stride)."""
        height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
        pads = (height // 2, width // 2)
        inputs = x.channels // groups
        weight = self._weight((channels, inputs, height, width), (2 / (inputs * height * width)) ** 0.5)
        bias = self._weight((channels,), 0.1)
        size = (_size(x.shape[2], height, stride, pads[0]), _size(x.shape[3], width, stride, pads[1]))
        return self.add(
            "Conv",
            (x.shape[0], channels, *size),
            x.name,
            weight,
            bias,
            kernel_shape=[height, width],
            strides=[stride, stride],
            pads=[*pads, *pads],
            group=groups,
        )

    def pool(self, x: Tensor, kind: str, kernel: int, stride: int) -> Tensor:
        """kind: "Max" or "Average"."""
        pad = 0 if kernel == stride else kernel // 2
        size = (_size(x.shape[2], kernel, stride, pad), _size(x.shape[3], kernel, stride, pad))
        return self.add(
            f"{kind}Pool",
            (*x.shape[:2], *size),
            x.name,
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[pad] * 4,
        )

    def global_pool(self, x: Tensor) -> Tensor:
        return self.add("GlobalAveragePool", (*x.shape[:2], 1, 1), x.name)

    def activate(self, x: Tensor, function: str) -> Tensor:
        """Apply relu, relu6, silu, hardswish, sigmoid, hardsigmoid or gelu, written as exporters write it."""
        match function:
            case "relu":
                return self.add("Relu", x.shape, x.name)
            case "relu6":
                return self.add("Clip", x.shape, x.name, self._constant(0.0), self._constant(6.0))
            case "silu":
                return self.add("Mul", x.shape, x.name, self.activate(x, "sigmoid").name)
            case "sigmoid":
                return self.add("Sigmoid", x.shape, x.name)
            case "hardswish":
                return self.add("HardSwish", x.shape, x.name)
            case "hardsigmoid":
                return self.add("HardSigmoid", x.shape, x.name, alpha=1 / 6, beta=0.5)
            case "gelu":
                scaled = self.add("Div", x.shape, x.name, self._constant(2**0.5))
                grown = self.add(
                    "Add", x.shape, self.add("Erf", x.shape, scaled.name).name, self._constant(1)
                )
                both = self.add("Mul", x.shape, x.name, grown.name)
                return self.add("Mul", x.shape, both.name, self._constant(0.5))
        raise ValueError(f"unknown activation {function!r}")

    def batch_norm(self, x: Tensor) -> Tensor:
        names = [self._weight((x.channels,), 0.1, mean=1.0) for _ in range(4)]
        return self.add("BatchNormalization", x.shape, x.name, *names)

    def layer_norm(self, x: Tensor) -> Tensor:
        """Normalise over the last dimension."""
        names = [self._weight((x.shape[-1],), 0.1, mean=1.0), self._weight((x.shape[-1],), 0.1)]
        return self.add("LayerNormalization", x.shape, x.name, *names, axis=-1, epsilon=1e-6)

    def linear(self, x: Tensor, features: int) -> Tensor:
        """Multiply the last dimension: Gemm for matrices, MatMul and Add for larger tensors."""
        weight = self._weight((x.shape[-1], features), x.shape[-1] ** -0.5)
        shape = (*x.shape[:-1], features)
        if len(x.shape) == 2:
            return self.add("Gemm", shape, x.name, weight, self._weight((features,), 0.1))
        product = self.add("MatMul", shape, x.name, weight)
        return self.add("Add", shape, product.name, self._weight((features,), 0.1))

    def sum(self, x: Tensor, y: Tensor) -> Tensor:
        return self.add("Add", x.shape, x.name, y.name)

    def mul(self, x: Tensor, y: Tensor) -> Tensor:
        """Multiply; y may be broadcast."""
        return self.add("Mul", x.shape, x.name, y.name)

    def scale(self, x: Tensor) -> Tensor:
        """Multiply the last dimension by one weight each."""
        return self.add("Mul", x.shape, x.name, self._weight((x.shape[-1],), 0.1, mean=1.0))

    def concat(self, *parts: Tensor) -> Tensor:
        shape = (parts[0].shape[0], sum(part.channels for part in parts), *parts[0].shape[2:])
        return self.add("Concat", shape, *(part.name for part in parts), axis=1)

    def halves(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Split the channels in two."""
        from onnx import helper

        first = x.channels // 2
        sizes = (first, x.channels - first)
        shapes = [(x.shape[0], size, *x.shape[2:]) for size in sizes]
        names = [f"t{len(self._nodes)}.{part}" for part in range(2)]
        lengths = self._constant_ints(sizes)
        self._nodes.append(helper.make_node("Split", [x.name, lengths], names, names[0], axis=1))
        return Tensor(names[0], shapes[0]), Tensor(names[1], shapes[1])

    def reshape(self, x: Tensor, *shape: int) -> Tensor:
        return self.add("Reshape", shape, x.name, self._constant_ints(shape))

    def transpose(self, x: Tensor, *order: int) -> Tensor:
        return self.add("Transpose", tuple(x.shape[axis] for axis in order), x.name, perm=list(order))

    def flatten(self, x: Tensor) -> Tensor:
        return self.add("Flatten", (x.shape[0], prod(x.shape[1:])), x.name, axis=1)

    def add(self, op_type: str, shape: tuple[int, ...], *inputs: str, **attributes: Any) -> Tensor:
        """Append any operation; shape: of what it writes."""
        from onnx import helper

        name = f"t{len(self._nodes)}"
        self._nodes.append(helper.make_node(op_type, list(inputs), [name], name, **attributes))
        return Tensor(name, shape)

    def model(self, output: Tensor) -> onnx.ModelProto:
        """The network that ends with this tensor."""
        import onnx
        from onnx import TensorProto, helper

        outputs = [helper.make_tensor_value_info(output.name, TensorProto.FLOAT, list(output.shape))]
        graph = helper.make_graph(self._nodes, "network", self._inputs, outputs, self._initializers)
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
        return onnx.shape_inference.infer_shapes(model)

    def _weight(self, shape: tuple[int, ...], deviation: float, *, mean: float = 0.0) -> str:
        from onnx import TensorProto, numpy_helper

        name = f"w{len(self._initializers)}"
        if self._with_weights:
            values = mean + deviation * self._rng.standard_normal(shape, np.float32)
            tensor = numpy_helper.from_array(values.astype(np.float32), name)
        else:
            tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape)
        self._initializers.append(tensor)
        return name

    def _constant(self, value: float) -> str:
        from onnx import numpy_helper

        name = f"w{len(self._initializers)}"
        self._initializers.append(numpy_helper.from_array(np.array(value, np.float32), name))
        return name

    def _constant_ints(self, values: tuple[int, ...]) -> str:
        from onnx import numpy_helper

        name = f"w{len(self._initializers)}"
        self._initializers.append(numpy_helper.from_array(np.array(values, np.int64), name))
        return name


def _size(size: int, kernel: int, stride: int, pad: int) -> int:
    return (size + 2 * pad - kernel) // stride + 1
