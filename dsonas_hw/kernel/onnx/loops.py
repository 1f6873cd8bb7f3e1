"""Loop and Scan: their bodies, as often as they run.

Loop    every iteration, where constants decide how many there are.
Scan    every step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dsonas_hw.errors import ModelFileError
from dsonas_hw.kernel.onnx.graph import Node, misfit
from dsonas_hw.kernel.onnx.load import all_graphs
from dsonas_hw.kernel.onnx.walk import Scope, Walk

if TYPE_CHECKING:
    import onnx

MAX_UNROLLED = 100_000
"""Operations of all iterations of one loop."""
LOOP_VIEW = "LoopView"
"""A slice of what Scan runs over."""
LOOP_STACK = "LoopStack"
"""The results of all iterations, which lie one behind the other."""


@dataclass(kw_only=True)
class _Passes:
    """A body that runs again and again: states go from pass to pass, its other results are stacked."""

    walk: Walk
    node: Node
    scope: Scope
    body: onnx.GraphProto
    states: list[str]
    axes: Sequence[int]
    """Along which each of the other results is stacked."""
    num_leading: int
    """Results in front of the states."""
    inputs: Callable[[int, Sequence[str]], list[str]]
    """What pass number i takes, from the states."""
    is_over: Callable[[int, Sequence[str]], bool | None]
    """Whether there is no pass number i, from what the one before made; None: the input decides that."""

    def __post_init__(self) -> None:
        num_states, first_node = len(self.states), len(self.walk.nodes)
        self.stacked: list[list[str]] = [[] for _ in self.axes]
        self.first_node = first_node
        self.number = 0
        fits = len(self.node.outputs) == num_states + len(self.axes)
        if not fits or len(self.body.output) != self.num_leading + len(self.node.outputs):
            raise misfit(self.node, "body")

    def go_on(self, results: Sequence[str]) -> None:
        """Run another pass, or end. results: of the pass before."""
        walk, place = self.walk, self.node.place
        is_over = self.is_over(self.number, results)
        if is_over is None:
            del walk.nodes[self.first_node :]
            walk.visit(self.node)
            return
        if is_over:
            walk.notes.append(
                f"{self.node.label}: its body is counted {self.number} times, the loop's own work not"
            )
            walk.hand_on(self.states, self.node.outputs[: len(self.states)])
            stacked = zip(self.node.outputs[len(self.states) :], self.stacked, self.axes, strict=True)
            for output, parts, axis in stacked:
                _stack(walk, parts, output, axis=axis)
            return
        names = self.inputs(self.number, self.states)
        if len(names) != len(self.body.input):
            raise misfit(self.node, "body")
        bound = {value.name: name for value, name in zip(self.body.input, names, strict=True)}
        walk.put_body(self.body, self.scope, f"{place}/{self.number}", place, bound, self._after)

    def _after(self, results: list[str]) -> None:
        own = results[self.num_leading :]
        self.states, others = own[: len(self.states)], own[len(self.states) :]
        for parts, name in zip(self.stacked, others, strict=True):
            parts.append(name)
        self.number += 1
        self.go_on(results)


def _most_passes(body: onnx.GraphProto) -> int:
    return MAX_UNROLLED // max(1, sum(len(graph.node) for graph in all_graphs(body)))


def enter_loop(walk: Walk, proto: onnx.NodeProto, node: Node, scope: Scope, body: onnx.GraphProto) -> bool:
    """The iterations of a Loop, until a constant ends them; False if what it runs up to is no constant."""
    import numpy as np

    place, tensors, most = node.place, walk.tensors, _most_passes(body)

    def scalar(name: str) -> float | None:
        constant = tensors.constants.get(name)
        return None if constant is None else constant.scalar

    def inputs(number: int, states: Sequence[str]) -> list[str]:
        own = [f"{place}/{number}/iteration", f"{place}/{number}/condition"]
        tensors.set_values(own[0], np.asarray(number, np.int64))
        tensors.set_values(own[1], np.asarray(True))
        return [*own, *states]

    def is_over(number: int, results: Sequence[str]) -> bool | None:
        condition = results[0] if results else ""
        going_on = scalar(condition) if condition else 1.0
        if going_on is None or number >= most:
            return None
        return not going_on or (trips is not None and number >= trips)

    trips = scalar(node.input(0))
    is_unknown = node.input(0) and (trips is None or trips > most)
    if is_unknown or (node.input(1) and scalar(node.input(1)) is None):
        return False
    states = _as_states(walk, node.inputs[2 : len(proto.input)], body.input[2:], body, body.output[1:], place)
    num_stacked = len(node.outputs) - len(states)
    loop = _Passes(
        walk=walk, node=node, scope=scope, body=body, states=states, axes=[0] * num_stacked, num_leading=1,
        inputs=inputs, is_over=is_over,
    )  # fmt: skip
    loop.go_on([node.input(1)])
    return True


def enter_scan(walk: Walk, proto: onnx.NodeProto, node: Node, scope: Scope, body: onnx.GraphProto) -> bool:
    """Every step of a Scan (opset 9 or newer); the steps' number is a size of what it runs over."""
    num_scanned = int(node.attributes["num_scan_inputs"])
    operands = node.inputs[: len(proto.input)]
    num_states = len(operands) - num_scanned
    scanned, place = operands[num_states:], node.place
    if walk.opset < 9 or any(name not in walk.tensors.shapes for name in scanned):
        return False
    if num_states < 0:
        raise misfit(node, "body")
    axes_in = node.attributes.get("scan_input_axes") or [0] * num_scanned
    axes_out = node.attributes.get("scan_output_axes") or [0] * (len(node.outputs) - num_states)
    lengths = {walk.tensors.shapes[name][axis] for name, axis in zip(scanned, axes_in, strict=True)}
    if len(lengths) != 1:
        raise ModelFileError(f"{node.label} of the ONNX model runs over inputs of different lengths")
    num_steps = lengths.pop()
    if num_steps > _most_passes(body):
        return False

    def inputs(number: int, states: Sequence[str]) -> list[str]:
        parts = [f"{place}/{number}/scanned{index}" for index in range(num_scanned)]
        for name, axis, part in zip(scanned, axes_in, parts, strict=True):
            _slice(walk, name, axis, part)
        return [*states, *parts]

    steps = _Passes(
        walk=walk, node=node, scope=scope, body=body, num_leading=0, axes=axes_out, inputs=inputs,
        states=_as_states(walk, operands[:num_states], body.input, body, body.output, place),
        is_over=lambda number, results: number == num_steps,
    )  # fmt: skip
    steps.go_on([])
    return True


def _stack(walk: Walk, parts: list[str], output: str, *, axis: int) -> None:
    """The results of all iterations along a new axis."""
    from onnx import TensorProto

    if not output:
        return
    if not parts:  # no iteration, no element; of which rank matters to nobody
        walk.tensors.set(output, (0,), int(TensorProto.FLOAT))
        return
    shapes = {walk.tensors.shapes.get(name) for name in parts}
    shape = shapes.pop() if len(shapes) == 1 else None
    axis %= 1 if shape is None else len(shape) + 1
    stack = Node(op=LOOP_STACK, name="", inputs=tuple(parts), outputs=(output,), attributes={"axis": axis})
    walk.nodes.append(stack)
    if shape is not None:
        stacked = (*shape[:axis], len(parts), *shape[axis:])
        walk.tensors.set(output, stacked, walk.tensors.elem_types[parts[0]])


def _slice(walk: Walk, name: str, axis: int, result: str) -> str:
    """One step of what a Scan runs over: a view."""
    shape = walk.tensors.shapes[name]
    axis %= len(shape)
    part = (*shape[:axis], *shape[axis + 1 :])
    walk.tensors.set(result, part, walk.tensors.elem_types[name])
    constant = walk.tensors.constants.get(name)
    if constant is not None:
        walk.tensors.constants[result] = replace(constant, shape=part, values=None)
    else:
        walk.nodes.append(
            Node(op=LOOP_VIEW, name="", inputs=(name,), outputs=(result,), attributes={"axis": axis})
        )
    return result


def _as_states(
    walk: Walk,
    initial: Sequence[str],
    inputs: Sequence[onnx.ValueInfoProto],
    body: onnx.GraphProto,
    outputs: Sequence[onnx.ValueInfoProto],
    place: str,
) -> list[str]:
    """Names of the values that a loop begins with.

    A floating-point constant that the body changes is a state: no runtime works out the first iteration
    ahead. What the body hands on as it is stays a constant, a weight say, and so do counters.
    """
    from onnx import TensorProto

    floats = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
    copied = {node.output[0]: node.input[0] for node in body.node if node.op_type == "Identity"}
    states = []
    for index, (name, taken, handed) in enumerate(zip(initial, inputs, outputs, strict=False)):
        source = handed.name
        while source in copied:
            source = copied[source]
        is_float = walk.tensors.elem_types.get(name) in floats
        if name in walk.tensors.constants and is_float and source != taken.name:
            state = f"{place}/state{index}"
            walk.tensors.set(state, walk.tensors.shapes[name], walk.tensors.elem_types[name])
            states.append(state)
        else:
            states.append(name)
    return states
