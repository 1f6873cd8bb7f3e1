"""A body (of If, Loop or Scan) in the place of its operation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from dsonas_hw.errors import ModelFileError
from dsonas_hw.kernel.onnx.graph import Node
from dsonas_hw.kernel.onnx.walk import Scope, Walk

if TYPE_CHECKING:
    import onnx


def place_of(node: Node) -> str:
    """A name that no other operation's body has."""
    return next(filter(None, node.outputs))


def misfit(node: Node, what: str) -> ModelFileError:
    return ModelFileError(
        f"{node.label} of the ONNX model and its {what} differ in their inputs or outputs; export it again"
    )


def put_body(
    walk: Walk,
    body: onnx.GraphProto,
    scope: Scope,
    prefix: str,
    stored_in: str,
    bound: Mapping[str, str],
    then: Callable[[list[str]], None],
) -> None:
    """Make a body's operations the next ones to visit, and what is to be done with its results behind them.

    bound: what the body's inputs are called.
    """
    made = {tensor.name for tensor in body.initializer}
    made |= {name for inner in body.node for name in inner.output if name}
    names = {**scope.names, **bound, **{name: f"{prefix}/{name}" for name in made}}
    inner = Scope(names=names, stored_in=f"{stored_in}/")
    for tensor in body.initializer:
        walk.tensors.set_stored(names[tensor.name], tensor, f"{stored_in}/{tensor.name}")
    results = [names.get(value.name, value.name) for value in body.output]
    walk.pending.appendleft(lambda: then(results))
    walk.pending.extendleft((proto, inner) for proto in reversed(body.node))


def hand_on(walk: Walk, results: Sequence[str], outputs: Sequence[str]) -> None:
    """Make the results of a body the operation's."""
    for result, output in zip(results, outputs, strict=True):
        if output:
            walk.visit(Node(op="Identity", name="", inputs=(result,), outputs=(output,)))
