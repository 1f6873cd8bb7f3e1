"""Recognise an activation that an exporter wrote out: `x * sigmoid(x)`, `0.5 x (1 + erf(x / √2))`, …

There are many ways to write each. So a group of elementwise operations with one input is evaluated on a few
points, and compared with the functions that have a name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any

import numpy as np

from dsonas_hw.kernel.onnx.graph import Node
from dsonas_hw.kernel.onnx.rewrite import Rewriter

MAX_MEMBERS = 12
"""The longest, GELU by tanh with the cube written as products, has ten."""
MAX_EVALUATIONS = 20_000
TOLERANCE = 1e-3
"""GELU by erf and by tanh differ by 5e-4, any two functions of `NAMED` by more than 1e-2."""
POINTS = np.linspace(-8.0, 8.0, 65)

_erf = np.vectorize(math.erf, otypes=[np.float64])


def _sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def _hardsigmoid(x: Any) -> Any:
    return np.clip(x / 6 + 0.5, 0, 1)


NAMED: dict[str, Callable[[Any], Any]] = {
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "sigmoid": _sigmoid,
    "hardsigmoid": _hardsigmoid,
    "tanh": np.tanh,
    "softplus": lambda x: np.log1p(np.exp(x)),
    "softsign": lambda x: x / (1 + np.abs(x)),
    "silu": lambda x: x * _sigmoid(x),
    "quickgelu": lambda x: x * _sigmoid(1.702 * x),
    "gelu": lambda x: 0.5 * x * (1 + _erf(x / math.sqrt(2))),
    "hardswish": lambda x: x * _hardsigmoid(x),
    "mish": lambda x: x * np.tanh(np.log1p(np.exp(x))),
}

Evaluate = Callable[[list[Any], Mapping[str, Any]], Any]


def _clip(inputs: list[Any], attributes: Mapping[str, Any]) -> Any:
    low = inputs[1] if len(inputs) > 1 and inputs[1] is not None else attributes.get("min", -np.inf)
    high = inputs[2] if len(inputs) > 2 and inputs[2] is not None else attributes.get("max", np.inf)
    return np.minimum(np.maximum(inputs[0], low), high)


EVALUATE: dict[str, Evaluate] = {
    "Add": lambda inputs, attributes: inputs[0] + inputs[1],
    "Sub": lambda inputs, attributes: inputs[0] - inputs[1],
    "Mul": lambda inputs, attributes: inputs[0] * inputs[1],
    "Div": lambda inputs, attributes: inputs[0] / inputs[1],
    "Pow": lambda inputs, attributes: np.power(inputs[0], inputs[1]),
    "Max": lambda inputs, attributes: reduce(np.maximum, inputs),
    "Min": lambda inputs, attributes: reduce(np.minimum, inputs),
    "Clip": _clip,
    "Neg": lambda inputs, attributes: -inputs[0],
    "Abs": lambda inputs, attributes: np.abs(inputs[0]),
    "Exp": lambda inputs, attributes: np.exp(inputs[0]),
    "Log": lambda inputs, attributes: np.log(inputs[0]),
    "Reciprocal": lambda inputs, attributes: 1 / inputs[0],
    "Erf": lambda inputs, attributes: _erf(inputs[0]),
    "Tanh": lambda inputs, attributes: np.tanh(inputs[0]),
    "Relu": lambda inputs, attributes: NAMED["relu"](inputs[0]),
    "Sigmoid": lambda inputs, attributes: _sigmoid(inputs[0]),
    "Softplus": lambda inputs, attributes: NAMED["softplus"](inputs[0]),
    "HardSigmoid": lambda inputs, attributes: np.clip(
        attributes.get("alpha", 0.2) * inputs[0] + attributes.get("beta", 0.5), 0, 1
    ),
    "Activation": lambda inputs, attributes: NAMED[attributes["function"]](inputs[0]),
}
SINKS = frozenset(["Mul", "Div", "Clip", "Min", "Max", "Log", "Reciprocal"])
ARITHMETIC = frozenset(["Add", "Sub", "Mul", "Div", "Pow", "Neg"])
"""A group of these alone is no activation."""


def recognise_activations(rewriter: Rewriter) -> None:
    """Replace every group that computes a named function by an operation `Activation`."""
    num_evaluations = 0
    for sink in list(rewriter.graph.nodes):
        if sink.domain or sink.op not in SINKS:
            continue
        members = [sink]
        while len(members) <= MAX_MEMBERS and num_evaluations < MAX_EVALUATIONS:
            leaves = _leaves(rewriter, members)
            if leaves is None:
                break
            if len(leaves) == 1 and not ARITHMETIC.issuperset(node.op for node in members):
                num_evaluations += 1
                function = _named_function(rewriter, members, leaves[0])
                if function is not None:
                    new = Node(
                        op="Activation",
                        name=sink.name,
                        inputs=(leaves[0],),
                        outputs=sink.outputs,
                        attributes={"function": function},
                    )
                    rewriter.replace(members, new)
                    break
            grown = _grow(rewriter, members, leaves)
            if grown is None:
                break
            members = grown


def _leaves(rewriter: Rewriter, members: list[Node]) -> list[str] | None:
    """Activations that the members take from outside; None if one of them cannot be evaluated."""
    made = {name for node in members for name in node.outputs}
    leaves: dict[str, None] = {}
    for node in members:
        for name in filter(None, node.inputs):
            constant = rewriter.graph.constants.get(name)
            if constant is not None and constant.scalar is None:
                return None
            if constant is None and name not in made:
                leaves[name] = None
    return list(leaves)


def _grow(rewriter: Rewriter, members: list[Node], leaves: list[str]) -> list[Node] | None:
    """Add the operation that makes the latest leaf, if only the members read it."""
    shapes = rewriter.graph.shapes
    makers = [
        (leaf, node) for leaf in leaves if (node := rewriter.maker(leaf)) is not None and node.op in EVALUATE
    ]
    makers.sort(key=lambda item: -rewriter.position[id(item[1])])
    for leaf, node in makers:
        grown = [*members, node]
        same_shape = shapes.get(leaf) == shapes.get(members[0].outputs[0])
        if same_shape and rewriter.is_closed(grown, members[0]):
            return grown
    return None


def _named_function(rewriter: Rewriter, members: list[Node], leaf: str) -> str | None:
    """Name of the function of `leaf` that the members compute, the first of them last."""
    values: dict[str, Any] = {leaf: POINTS}
    with np.errstate(all="ignore"):
        for node in sorted(members, key=lambda node: rewriter.position[id(node)]):
            operands = [
                None
                if not name
                else values[name]
                if name in values
                else rewriter.graph.constants[name].scalar
                for name in node.inputs
            ]
            try:
                values[node.outputs[0]] = EVALUATE[node.op](operands, node.attributes)
            except (TypeError, IndexError, ValueError, OverflowError):
                return None  # malformed: lowering says so
        result = np.broadcast_to(values[members[0].outputs[0]], POINTS.shape)
        for name, function in NAMED.items():
            if np.max(np.abs(result - function(POINTS))) < TOLERANCE:
                return name
    return None
