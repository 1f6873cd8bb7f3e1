"""The bodies of If, Loop and Scan, put in the place of the operation as often as they run.

If      a constant condition: its branch. Otherwise the branch that costs more counts, and a note says so; the
        weights of both are stored.
Loop    every iteration, where constants decide how many there are.
Scan    every step.

A loop whose number of iterations depends on the input stays an unknown operation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from dsonas_hw.errors import ModelFileError
from dsonas_hw.kernel.onnx.graph import Graph, Node
from dsonas_hw.kernel.onnx.load import all_graphs
from dsonas_hw.kernel.onnx.lower_graph import lower_graph
from dsonas_hw.kernel.onnx.patterns import recognise
from dsonas_hw.kernel.onnx.walk import Scope, Walk

if TYPE_CHECKING:
    import onnx

MAX_UNROLLED = 100_000
"""Operations of all iterations of one loop."""
LOOP_VIEW = "LoopView"
"""A slice of what Scan runs over."""
LOOP_STACK = "LoopStack"
"""The results of all iterations, which lie one behind the other."""


def enter_body(walk: Walk, proto: onnx.NodeProto, node: Node, scope: Scope) -> bool:
    """Put the bodies of an operation in its place; False if it has none, or they cannot be counted."""
    if node.domain or not any(node.outputs):
        return False
    bodies = {a.name: a.g for a in proto.attribute if a.HasField("g")}
    if node.op == "If" and {"then_branch", "else_branch"} <= set(bodies):
        _enter_if(walk, node, scope, bodies)
        return True
    if node.op == "Loop" and "body" in bodies:
        return _Loop(walk, proto, node, scope, bodies["body"]).start()
    if node.op == "Scan" and "body" in bodies:
        return _enter_scan(walk, proto, node, scope, bodies["body"])
    return False


def _place(node: Node) -> str:
    """A name that no other operation's body has."""
    return next(filter(None, node.outputs))


def _misfit(node: Node, what: str) -> ModelFileError:
    return ModelFileError(
        f"{node.label} of the ONNX model and its {what} differ in their inputs or outputs; export it again"
    )


def _put(
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


def _copies(walk: Walk, results: Sequence[str], outputs: Sequence[str]) -> None:
    """Make the results of a body the operation's."""
    for result, output in zip(results, outputs, strict=True):
        if output:
            walk.visit(Node(op="Identity", name="", inputs=(result,), outputs=(output,)))


# -- If --------------------------------------------------------------------------------------------------


def _enter_if(walk: Walk, node: Node, scope: Scope, bodies: Mapping[str, onnx.GraphProto]) -> None:
    place = _place(node)
    for body in bodies.values():
        if len(body.output) != len(node.outputs):
            raise _misfit(node, "branches")
    condition = walk.tensors.constants.get(node.input(0))
    if condition is not None and condition.scalar is not None:
        chosen = "then_branch" if condition.scalar else "else_branch"
    else:
        if place not in walk.decisions:
            walk.decisions[place] = _costlier(walk, scope, place, bodies)
        chosen, stored = walk.decisions[place]
        walk.alternatives += stored
        walk.notes.append(
            f"{node.label} depends on the input: counted as its {chosen.removesuffix('_branch')} branch, "
            "the other costs no more"
        )
    prefix = f"{place}/{chosen}"
    _put(
        walk, bodies[chosen], scope, prefix, prefix, {}, lambda results: _copies(walk, results, node.outputs)
    )


def _costlier(
    walk: Walk, scope: Scope, place: str, bodies: Mapping[str, onnx.GraphProto]
) -> tuple[str, list[Graph]]:
    """Which branch costs more; and the graphs that are stored beside it."""

    found: dict[str, tuple[float, Graph, list[Graph]]] = {}
    stored: list[Graph] = []
    for name in ("then_branch", "else_branch"):
        trial = walk.fork()
        outputs: list[str] = []
        _put(trial, bodies[name], scope, f"{place}/{name}", f"{place}/{name}", {}, outputs.extend)
        try:
            trial.visit_pending()
            graph = trial.graph(tuple(outputs))
            lowered = lower_graph(recognise(graph))
        except ModelFileError:
            if not found and name == "else_branch":
                raise
            stored.append(_stored_graph(walk, trial))  # it is for other sizes of the input than these
            continue
        found[name] = (lowered.work + lowered.unknown_work, graph, trial.alternatives)
    chosen = max(found, key=lambda name: found[name][0])
    for name in found.keys() - {chosen}:
        stored += [found[name][1], *found[name][2]]
    return chosen, stored


def _stored_graph(walk: Walk, trial: Walk) -> Graph:
    """A graph of nothing but what a branch stores."""
    names = [name for name in trial.tensors.constants if name not in walk.tensors.constants]
    graph = trial.graph(())
    graph.nodes = [Node(op="stored", name="", inputs=tuple(names), outputs=(), domain="stored")]
    return graph


# -- Loop ------------------------------------------------------------------------------------------------


class _Loop:
    """The iterations of a Loop, one after the other, until a constant ends them."""

    def __init__(
        self, walk: Walk, proto: onnx.NodeProto, node: Node, scope: Scope, body: onnx.GraphProto
    ) -> None:
        self.walk, self.node, self.scope, self.body = walk, node, scope, body
        self.place = _place(node)
        self.num_carried = len(proto.input) - 2
        initial = list(node.inputs[2 : len(proto.input)])
        self.carried = _as_states(walk, initial, body.input[2:], body, body.output[1:], self.place)
        self.stacked: list[list[str]] = [[] for _ in range(len(node.outputs) - self.num_carried)]
        self.first_node = len(walk.nodes)
        self.max_iterations = MAX_UNROLLED // max(1, sum(len(graph.node) for graph in all_graphs(body)))
        self.iteration = 0
        fits = len(body.input) == 2 + self.num_carried and len(body.output) == 1 + len(node.outputs)
        if self.num_carried < 0 or not fits:
            raise _misfit(node, "body")

    def start(self) -> bool:
        """Begin; False if what the loop runs up to is no constant."""
        trips = self._scalar(self.node.input(0))
        if self.node.input(0) and (trips is None or trips > self.max_iterations):
            return False
        if self.node.input(1) and self._scalar(self.node.input(1)) is None:
            return False
        self.trips = None if trips is None else int(trips)
        self._next(self.node.input(1))
        return True

    def _scalar(self, name: str) -> float | None:
        constant = self.walk.tensors.constants.get(name)
        return None if constant is None else constant.scalar

    def _next(self, condition: str) -> None:
        """Run another iteration, or end."""
        import numpy as np

        going_on = self._scalar(condition) if condition else 1.0
        if going_on is None or self.iteration >= self.max_iterations:
            self._give_up()
            return
        if not going_on or (self.trips is not None and self.iteration >= self.trips):
            self._finish()
            return
        prefix = f"{self.place}/{self.iteration}"
        tensors = self.walk.tensors
        tensors.set_values(f"{prefix}/iteration", np.asarray(self.iteration, np.int64))
        tensors.set_values(f"{prefix}/condition", np.asarray(True))
        inputs = [f"{prefix}/iteration", f"{prefix}/condition", *self.carried]
        bound = {value.name: name for value, name in zip(self.body.input, inputs, strict=True)}
        _put(self.walk, self.body, self.scope, prefix, self.place, bound, self._after)

    def _after(self, results: list[str]) -> None:
        self.carried = results[1 : 1 + self.num_carried]
        for parts, name in zip(self.stacked, results[1 + self.num_carried :], strict=True):
            parts.append(name)
        self.iteration += 1
        self._next(results[0])

    def _finish(self) -> None:
        self.walk.notes.append(f"{self.node.label}: its body is counted {self.iteration} times")
        _copies(self.walk, self.carried, self.node.outputs[: self.num_carried])
        for output, parts in zip(self.node.outputs[self.num_carried :], self.stacked, strict=True):
            _stack(self.walk, parts, output, axis=0)

    def _give_up(self) -> None:
        """The input decides how often the body runs: the loop is unknown."""
        del self.walk.nodes[self.first_node :]
        self.walk.visit(self.node)


def _stack(walk: Walk, parts: list[str], output: str, *, axis: int) -> None:
    """The results of all iterations along a new axis."""
    from onnx import TensorProto

    if not output:
        return
    if not parts:  # no iteration, no element; of which rank matters to nobody
        walk.tensors.set(output, (0,), int(TensorProto.FLOAT))
        return
    walk.nodes.append(Node(op=LOOP_STACK, name="", inputs=tuple(parts), outputs=(output,)))
    shapes = {walk.tensors.shapes.get(name) for name in parts}
    shape = shapes.pop() if len(shapes) == 1 else None
    if shape is not None:
        axis %= len(shape) + 1
        stacked = (*shape[:axis], len(parts), *shape[axis:])
        walk.tensors.set(output, stacked, walk.tensors.elem_types[parts[0]])


# -- Scan ------------------------------------------------------------------------------------------------


def _enter_scan(walk: Walk, proto: onnx.NodeProto, node: Node, scope: Scope, body: onnx.GraphProto) -> bool:
    """Every step of a Scan (opset 9 or newer); the steps' number is a size of what it runs over."""
    num_scanned = int(node.attributes["num_scan_inputs"])
    operands = node.inputs[: len(proto.input)]
    num_states = len(operands) - num_scanned
    states, scanned = list(operands[:num_states]), operands[num_states:]
    if walk.opset < 9 or any(name not in walk.tensors.shapes for name in scanned):
        return False
    if num_states < 0 or len(body.input) != len(operands) or len(body.output) != len(node.outputs):
        raise _misfit(node, "body")
    axes_in = node.attributes.get("scan_input_axes") or [0] * num_scanned
    axes_out = node.attributes.get("scan_output_axes") or [0] * (len(node.outputs) - num_states)
    lengths = {walk.tensors.shapes[name][axis] for name, axis in zip(scanned, axes_in, strict=True)}
    if len(lengths) != 1:
        raise ModelFileError(f"{node.label} of the ONNX model runs over inputs of different lengths")
    num_steps = lengths.pop()
    if num_steps * sum(len(graph.node) for graph in all_graphs(body)) > MAX_UNROLLED:
        return False
    place = _place(node)
    states = _as_states(walk, states, body.input, body, body.output, place)
    stacked: list[list[str]] = [[] for _ in axes_out]

    def step(number: int) -> None:
        if number == num_steps:
            walk.notes.append(f"{node.label}: its body is counted {num_steps} times")
            _copies(walk, states, node.outputs[:num_states])
            for output, parts, axis in zip(node.outputs[num_states:], stacked, axes_out, strict=True):
                _stack(walk, parts, output, axis=axis)
            return
        prefix = f"{place}/{number}"
        parts = [
            _slice(walk, name, axis, f"{prefix}/scanned{index}")
            for index, (name, axis) in enumerate(zip(scanned, axes_in, strict=True))
        ]
        bound = {value.name: name for value, name in zip(body.input, [*states, *parts], strict=True)}
        _put(walk, body, scope, prefix, place, bound, lambda results: after(number, results))

    def after(number: int, results: list[str]) -> None:
        states[:] = results[:num_states]
        for parts, name in zip(stacked, results[num_states:], strict=True):
            parts.append(name)
        step(number + 1)

    step(0)
    return True


def _slice(walk: Walk, name: str, axis: int, result: str) -> str:
    """One step of what a Scan runs over: a view."""
    from dataclasses import replace

    shape = walk.tensors.shapes[name]
    axis %= len(shape)
    part = (*shape[:axis], *shape[axis + 1 :])
    walk.tensors.set(result, part, walk.tensors.elem_types[name])
    constant = walk.tensors.constants.get(name)
    if constant is not None:
        walk.tensors.constants[result] = replace(constant, shape=part, values=None)
    else:
        walk.nodes.append(Node(op=LOOP_VIEW, name="", inputs=(name,), outputs=(result,)))
    return result
