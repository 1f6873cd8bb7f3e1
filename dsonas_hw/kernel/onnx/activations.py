"""Recognising an activation that an exporter wrote out: `x * sigmoid(x)`, `0.5 x (1 + erf(x / √2))`, …

There are many ways to write each. So a group of elementwise operations with one input is evaluated on a few
points, and compared with the functions that have a name.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from dsonas_hw.kernel.onnx.graph import Node
from dsonas_hw.kernel.onnx.rewrite import Rewriter
from dsonas_hw.kernel.onnx.values import Array, erf, fold, sigmoid, softplus

MAX_MEMBERS = 12
"""The longest, GELU by tanh with the cube written as products, has ten."""
MAX_EVALUATIONS = 20_000
TOLERANCE = 1e-3
"""GELU by erf and by tanh differ by 5e-4, any two functions of `NAMED` by more than 1e-2."""
POINTS = np.linspace(-8.0, 8.0, 65)

NAMED: dict[str, Callable[[Any], Any]] = {
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "sigmoid": sigmoid,
    "hardsigmoid": lambda x: np.clip(x / 6 + 0.5, 0, 1),
    "tanh": np.tanh,
    "softplus": softplus,
    "softsign": lambda x: x / (1 + np.abs(x)),
    "silu": lambda x: x * sigmoid(x),
    "quickgelu": lambda x: x * sigmoid(1.702 * x),
    "gelu": lambda x: 0.5 * x * (1 + erf(x / math.sqrt(2))),
    "hardswish": lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
    "mish": lambda x: x * np.tanh(softplus(x)),
}
"""Function of a `unary` kernel → what it computes."""

EVALUATED = frozenset([
    "Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Clip", "Neg", "Abs", "Exp", "Log", "Reciprocal", "Erf",
    "Tanh", "Relu", "Sigmoid", "Softplus", "HardSigmoid", "Activation",
])  # fmt: skip
"""Operations that a group may consist of."""
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
        (leaf, node) for leaf in leaves if (node := rewriter.maker(leaf)) is not None and node.op in EVALUATED
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
    values: dict[str, Array] = {leaf: POINTS}
    constants = rewriter.graph.constants
    for node in sorted(members, key=lambda node: rewriter.position[id(node)]):
        if node.op == "Activation":
            result: Array | None = NAMED[node.attributes["function"]](values[node.inputs[0]])
        else:
            operands = [
                None if not name else values[name] if name in values else np.asarray(constants[name].scalar)
                for name in node.inputs
            ]
            result = fold(node.op, operands, node.attributes)
        if result is None:
            return None  # malformed: lowering says so
        values[node.outputs[0]] = result
    result = np.broadcast_to(values[members[0].outputs[0]], POINTS.shape)
    for name, function in NAMED.items():
        if np.max(np.abs(result - function(POINTS))) < TOLERANCE:
            return name
    return None
