"""From the operations of an ONNX graph to kernels, one to one: nothing is fused here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dsonas_hw.kernel.network import Schedule
from dsonas_hw.kernel.onnx.graph import (
    CONTRIB_DOMAIN,
    MALFORMED,
    NCHWC_DOMAIN,
    Graph,
    UnknownShapeError,
    malformed,
)
from dsonas_hw.kernel.onnx.lower import Lowering, LowerNode, StoredTensors, UnknownOperationError
from dsonas_hw.kernel.onnx.lower_contrib import CONTRIB_LOWERINGS, NCHWC_LOWERINGS
from dsonas_hw.kernel.onnx.lower_elementwise import ELEMENTWISE_LOWERINGS
from dsonas_hw.kernel.onnx.lower_move import MOVE_LOWERINGS
from dsonas_hw.kernel.onnx.lower_product import PRODUCT_LOWERINGS
from dsonas_hw.kernel.onnx.lower_reduce import REDUCE_LOWERINGS
from dsonas_hw.kernel.onnx.unknown import work_of


@dataclass(frozen=True, kw_only=True)
class LoweredGraph:
    """The kernels of a graph, and what has none."""

    schedule: Schedule
    unknown: tuple[str, ...]
    """Operations without a kernel, as ``OpType (node name)``."""
    unknown_work: float
    """What they may cost, in the unit of `unknown.work_of`; may be infinite."""
    num_unused_params: int
    flops_in: Mapping[str, int]
    """Flops by the precision in which they are computed."""

    @property
    def work(self) -> float:
        """What the kernels cost, in the unit of `unknown_work`."""
        return sum(work_of(step.kernel) for step in self.schedule.kernels)


def lower_graph(graph: Graph, stored: StoredTensors | None = None) -> LoweredGraph:
    """Lower every operation.

    stored: what has been counted as params before.

    Raises:
        ModelFileError: an operation whose attributes and shapes make no sense.
    """
    tables = _tables()
    lowering = Lowering(graph, StoredTensors(graph.stored) if stored is None else stored)
    for node in graph.nodes:
        lower = tables.get(node.domain, {}).get(node.op)
        try:
            if lower is None:
                raise UnknownOperationError
            lowering.lower(node, lower)
        except (UnknownOperationError, UnknownShapeError):
            lowering.add_unknown(node)
        except MALFORMED as error:
            raise malformed(node.label, error) from error
    outputs = {name: lowering.buffer(name) for name in graph.outputs if graph.is_activation(name)}
    schedule = Schedule(
        kernels=tuple(lowering.kernels),
        inputs=graph.inputs,
        outputs=frozenset(outputs.values()),
        output_shapes={
            buffer: graph.shapes[name]
            for name, buffer in outputs.items()
            if name != buffer and name in graph.shapes
        },
    )
    return LoweredGraph(
        schedule=schedule,
        unknown=tuple(lowering.unknown),
        unknown_work=sum(lowering.unknown.values()),
        num_unused_params=lowering.num_unused_params,
        flops_in=dict(lowering.flops_in),
    )


def _tables() -> dict[str, dict[str, LowerNode]]:
    """Domain → operation → how it is lowered."""
    # ONNX Runtime writes its own operations into the standard's domain, too.
    standard = {
        **CONTRIB_LOWERINGS,
        **PRODUCT_LOWERINGS,
        **REDUCE_LOWERINGS,
        **ELEMENTWISE_LOWERINGS,
        **MOVE_LOWERINGS,
    }
    return {
        "": standard,
        CONTRIB_DOMAIN: {**standard, **CONTRIB_LOWERINGS},
        NCHWC_DOMAIN: {**standard, **NCHWC_LOWERINGS},
    }
