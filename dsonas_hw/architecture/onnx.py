"""From an architecture (and weights) to ONNX, built node by node: milliseconds, no tracing."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dsonas_hw.architecture.architecture import Architecture
from dsonas_hw.architecture.graph import BN_EPS, INPUT, Node, build_graph

if TYPE_CHECKING:
    import onnx

OPSET = 17
IR_VERSION = 8
"""Old enough for every supported runtime (TensorRT 8.6, ONNX Runtime 1.16)."""

Array = npt.NDArray[np.float32]
Weights = Mapping[str, Array]
"""Parameter name → array: `<node>.weight` and, for batch norm, `<node>.bn.{weight,bias,mean,var}`;
for the classifier also `<node>.bias`. What `DerivedNetwork.named_arrays` returns."""


def random_weights(nodes: list[Node], *, seed: int = 0) -> dict[str, Array]:
    """Return weights of the right shapes, scaled so that activations neither vanish nor overflow."""
    rng = np.random.default_rng(seed)
    weights: dict[str, Array] = {}
    for node in nodes:
        if node.op in ("conv", "gemm"):
            shape = weight_shape(node)
            fan_in = int(np.prod(shape[1:]))
            weights[f"{node.name}.weight"] = rng.standard_normal(shape, np.float32) / np.float32(fan_in**0.5)
        channels = node.output_shape[0]
        if node.op == "gemm":
            weights[f"{node.name}.bias"] = np.zeros(channels, np.float32)
        if node.bn or node.op == "bn":
            weights[f"{node.name}.bn.weight"] = np.ones(channels, np.float32)
            weights[f"{node.name}.bn.bias"] = np.full(channels, 0.1, np.float32)
            weights[f"{node.name}.bn.mean"] = np.zeros(channels, np.float32)
            weights[f"{node.name}.bn.var"] = np.ones(channels, np.float32)
    return weights


def weight_shape(node: Node) -> tuple[int, ...]:
    """Return the shape of a convolution's or classifier's weight: (out, in / groups, k, k) or (out, in)."""
    if node.op == "gemm":
        return (node.output_shape[0], node.input_shape[0])
    return (
        node.output_shape[0],
        node.input_shape[0] // node.groups,
        node.kernel_size,
        node.kernel_size,
    )


def build_onnx(
    architecture: Architecture, weights: Weights | None = None, *, batch_size: int | None = 1
) -> onnx.ModelProto:
    """Return the deployed network: input `input` (N, C, H, W), output `logits` (N, classes), float32.

    weights: None draws random ones (for timing).
    batch_size: None makes the batch symbolic.
    """
    nodes = build_graph(architecture)
    return build_onnx_graph(nodes, architecture.space.input_shape, weights, batch_size=batch_size)


def build_onnx_graph(
    nodes: list[Node],
    input_shape: tuple[int, ...],
    weights: Weights | None = None,
    *,
    batch_size: int | None = 1,
) -> onnx.ModelProto:
    """`build_onnx` for any list of nodes; the last node's output is the model's."""
    from onnx import TensorProto, helper

    builder = _Builder(weights if weights is not None else random_weights(nodes))
    for node in nodes[:-1]:
        builder.add(node, output=node.name)
    builder.add(nodes[-1], output="logits")
    batch: int | str = "batch" if batch_size is None else batch_size
    graph = helper.make_graph(
        builder.nodes,
        "dsonas_hw",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, [batch, *input_shape])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, *nodes[-1].output_shape])],
        builder.initializers,
    )
    return helper.make_model(
        graph,
        producer_name="dsonas-hw",
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )


class _Builder:
    """Collects ONNX nodes and initialisers."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []

    def add(self, node: Node, *, output: str) -> None:
        """The layer, its batch norm (folded into a convolution) and its ReLU."""
        folded = node.op == "conv" and node.bn
        followers = (["bn"] if node.bn and not folded else []) + (["relu"] if node.relu else [])
        current = f"{node.name}/{node.op}" if followers else output
        self._layer(node, current, folded)
        for position, follower in enumerate(followers, start=1):
            target = output if position == len(followers) else f"{node.name}/{follower}"
            if follower == "bn":
                self._batch_norm(node, current, target)
            else:
                self._node("Relu", [current], target)
            current = target

    def _layer(self, node: Node, output: str, folded: bool) -> None:
        window = {
            "kernel_shape": [node.kernel_size] * 2,
            "strides": [node.stride] * 2,
            "pads": self._pads(node),
        }
        match node.op:
            case "conv":
                names = [node.inputs[0], self._weight(node, folded)]
                if folded:
                    names.append(self._constant(f"{node.name}.bias", self._folded_bias(node)))
                self._node("Conv", names, output, group=node.groups, dilations=[node.dilation] * 2, **window)
            case "maxpool":
                self._node("MaxPool", node.inputs, output, **window)
            case "avgpool":
                self._node("AveragePool", node.inputs, output, count_include_pad=0, **window)
            case "sum":
                self._node("Sum", node.inputs, output)
            case "concat":
                self._node("Concat", node.inputs, output, axis=1)
            case "bn":
                self._batch_norm(node, node.inputs[0], output)
            case "global_avgpool":
                self._node("GlobalAveragePool", node.inputs, output)
            case "gemm":
                flat = f"{node.name}/flat"
                self._node("Flatten", node.inputs, flat, axis=1)
                weight = self._constant(f"{node.name}.weight", self.weights[f"{node.name}.weight"])
                bias = self._constant(f"{node.name}.bias", self.weights[f"{node.name}.bias"])
                self._node("Gemm", [flat, weight, bias], output, transB=1)

    def _pads(self, node: Node) -> list[int]:
        return [node.padding] * 4

    def _scale(self, node: Node) -> Array:
        """Batch norm's multiplier per channel."""
        prefix = f"{node.name}.bn"
        std = np.sqrt(self.weights[f"{prefix}.var"] + np.float32(BN_EPS))
        return np.asarray(self.weights[f"{prefix}.weight"] / std, np.float32)

    def _weight(self, node: Node, folded: bool) -> str:
        weight = self.weights[f"{node.name}.weight"]
        if folded:
            weight = weight * self._scale(node)[:, None, None, None]
        return self._constant(f"{node.name}.weight", weight)

    def _folded_bias(self, node: Node) -> Array:
        prefix = f"{node.name}.bn"
        bias = self.weights[f"{prefix}.bias"] - self.weights[f"{prefix}.mean"] * self._scale(node)
        return np.asarray(bias, np.float32)

    def _batch_norm(self, node: Node, source: str, output: str) -> None:
        prefix = f"{node.name}.bn"
        names = [
            self._constant(f"{prefix}.{part}", self.weights[f"{prefix}.{part}"])
            for part in ("weight", "bias", "mean", "var")
        ]
        self._node("BatchNormalization", [source, *names], output, epsilon=BN_EPS)

    def _constant(self, name: str, value: Array) -> str:
        from onnx import numpy_helper

        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(value, np.float32), name))
        return name

    def _node(self, op_type: str, inputs: Any, output: str, **attributes: Any) -> None:
        from onnx import helper

        self.nodes.append(helper.make_node(op_type, list(inputs), [output], name=output, **attributes))


def model_bytes(architecture: Architecture, *, batch_size: int = 1, seed: int = 0) -> bytes:
    """Return the architecture as ONNX with random weights.

    No two tensors are equal, as after training: a runtime's optimiser merges what is.
    """
    nodes = build_graph(architecture)
    weights = random_weights(nodes, seed=seed)
    rng = random.Random(seed)
    for name, value in weights.items():
        if value.ndim == 1:
            weights[name] = value + value.dtype.type(0.02 * rng.random())
    model = build_onnx_graph(nodes, architecture.space.input_shape, weights, batch_size=batch_size)
    return bytes(model.SerializeToString())
