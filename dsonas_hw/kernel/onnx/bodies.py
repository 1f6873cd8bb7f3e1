"""The bodies of If, Loop and Scan, put in the place of the operation as often as they run.

If      a constant condition: its branch. Otherwise the branch that costs more counts, and a note says so; the
        weights of both are stored.

A loop whose number of iterations depends on the input stays an unknown operation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from dsonas_hw.errors import ModelFileError
from dsonas_hw.kernel.onnx.graph import Graph, Node, misfit
from dsonas_hw.kernel.onnx.loops import enter_loop, enter_scan
from dsonas_hw.kernel.onnx.lower_graph import lower_graph
from dsonas_hw.kernel.onnx.patterns import recognise
from dsonas_hw.kernel.onnx.walk import Scope, Walk

if TYPE_CHECKING:
    import onnx


def enter_body(walk: Walk, proto: onnx.NodeProto, node: Node, scope: Scope) -> bool:
    """Put the bodies of an operation in its place; False if it has none, or they cannot be counted."""
    if node.domain or not any(node.outputs):
        return False
    bodies = {a.name: a.g for a in proto.attribute if a.HasField("g")}
    if node.op == "If" and {"then_branch", "else_branch"} <= set(bodies):
        _enter_if(walk, node, scope, bodies)
        return True
    if node.op == "Loop" and "body" in bodies:
        return enter_loop(walk, proto, node, scope, bodies["body"])
    if node.op == "Scan" and "body" in bodies:
        return enter_scan(walk, proto, node, scope, bodies["body"])
    return False


def _enter_if(walk: Walk, node: Node, scope: Scope, bodies: Mapping[str, onnx.GraphProto]) -> None:
    place = node.place
    for body in bodies.values():
        if len(body.output) != len(node.outputs):
            raise misfit(node, "branches")
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
    walk.put_body(
        bodies[chosen], scope, prefix, prefix, {}, lambda results: walk.hand_on(results, node.outputs)
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
        trial.put_body(bodies[name], scope, f"{place}/{name}", f"{place}/{name}", {}, outputs.extend)
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
