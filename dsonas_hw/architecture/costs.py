"""What an architecture costs on a target: counted costs exactly, latency and energy from its profile."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

from dsonas_hw.architecture.architecture import Architecture, Block
from dsonas_hw.architecture.graph import (
    BlockSegment,
    Node,
    Segment,
    list_segments,
    output_branch,
)
from dsonas_hw.architecture.lower import lower_node, lower_segment
from dsonas_hw.architecture.metric import ArchitectureMetric
from dsonas_hw.architecture.schedule import schedule_of
from dsonas_hw.budget import METRICS, QUANTITIES, Budget, Metric
from dsonas_hw.cost.model import CostModel, Prediction
from dsonas_hw.errors import ProfileError
from dsonas_hw.kernel.costs import COUNTED, CountedCosts
from dsonas_hw.kernel.network import peak_activation_elements
from dsonas_hw.kernel.spec import Kernel
from dsonas_hw.space.operations import get_operation
from dsonas_hw.table.rows import Source
from dsonas_hw.target import Target

CostName = str
"""Of a cost that kernels add up to (`budget.Limitable.adds_up`)."""
BYTES_PER_ELEMENT = {"fp32": 4, "fp16": 2, "int8": 1}


@dataclass(frozen=True, kw_only=True)
class Costs(CountedCosts):
    """Everything a budget can limit; None is not known here. Counts are at batch 1."""

    memory_bytes: int
    latency_ms: float | None = None
    energy_mj: float | None = None

    def to_dict(self) -> dict[str, float | None]:
        return asdict(self)


class TargetCosts:
    """Costs on one target; without a model its metrics are unknown (and cannot be budgeted)."""

    def __init__(self, cost_model: CostModel | None = None, *, target: Target | None = None) -> None:
        """target: where there is no model; None: one image in fp32, wherever that runs."""
        self.cost_model = cost_model
        self.target = cost_model.target if cost_model is not None else target
        self._metrics = {
            metric: ArchitectureMetric(cost_model, metric)
            for metric in METRICS
            if cost_model is not None and not cost_model.why_not(metric)
        }
        self._block_costs: dict[tuple[BlockSegment, CostName], float] = {}

    @property
    def source(self) -> Source:
        """Where its metrics come from; counted costs are exact whatever it says."""
        return self.cost_model.source if self.cost_model else "estimated"

    @property
    def disclaimer(self) -> str:
        """What to say about its metrics before anything else; empty if they were measured."""
        return self.cost_model.disclaimer if self.cost_model else ""

    def costs(self, architecture: Architecture) -> Costs:
        """Return every known cost of a network; metrics are None where the profile lacks a kernel of it.

        Only a network whose metric is budgeted needs it: `cost` refuses to tell what was not measured.
        """
        known: dict[str, Any] = {name: self._count(architecture, name) for name in COUNTED}
        with suppress(ProfileError):
            known |= {QUANTITIES[name]: self._metric(architecture, name) for name in METRICS}
        return Costs(memory_bytes=peak_memory_bytes(architecture, self.target), **known)

    def why_not(self, metric: Metric) -> str:
        """Return why a metric is not known here, in one line; empty: it is."""
        model = self.cost_model
        return model.why_not(metric) if model else f"nothing here predicts {QUANTITIES[metric]}"

    def probability_within(self, architecture: Architecture, budget: Budget) -> float | None:
        """Return how likely an estimated metric is to hold a budget; None: it is measured, or counted."""
        if not budget.metric or self.source == "measured":
            return None
        try:
            return self.predict(architecture, budget.metric).probability_within(budget.limit)
        except ProfileError:
            return None

    def predict(self, architecture: Architecture, metric: Metric) -> Prediction:
        """Return a metric of a network with its interval.

        Raises:
            ProfileError: the metric is not known here, or the profile lacks a kernel of the network.
        """
        if metric not in self._metrics:
            raise ProfileError(self.why_not(metric))
        return self._metrics[metric].predict(architecture)

    def cost(self, architecture: Architecture, quantity: str) -> float | None:
        """Return one cost without the others, e.g. `flops` or `latency_ms`; None: not known here.

        Raises:
            ProfileError: latency or energy, and the profile lacks a kernel of the network.
        """
        if quantity in COUNTED:
            return self._count(architecture, quantity)
        if quantity == "memory_bytes":
            return peak_memory_bytes(architecture, self.target)
        return next((self._metric(architecture, m) for m in self._metrics if QUANTITIES[m] == quantity), None)

    def _count(self, architecture: Architecture, name: str) -> int:
        return sum(_segment_count(segment, name) for _, segment in list_segments(architecture))

    def _metric(self, architecture: Architecture, metric: Metric) -> float | None:
        known = self._metrics.get(metric)
        return known.predict(architecture).value if known else None

    def block_cost(self, segment: BlockSegment, name: CostName) -> float:
        """Return the cost of one block: its operations, sums, concat and merge (Eq. 9)."""
        key = (segment, name)
        if key not in self._block_costs:
            self._block_costs[key] = self._sum(name, lambda b, f: lower_segment(segment, b, f))
        return self._block_costs[key]

    def operation_cost(self, segment: BlockSegment, node: int, name: CostName) -> float:
        """Return the cost of one operation of a block: its own layers, at the block's shape (Eq. 10)."""
        operation = segment.operations[(node - 1) % len(segment.operations)].name
        layers = operation_nodes(operation, segment.shape)
        return self._sum(name, lambda b, f: [k for node in layers for k in lower_node(node, b, fuse=f)])

    def branch_cost(self, segment: BlockSegment, name: CostName) -> float:
        """Return the cost of one operation's branch of the 1×1 convolution that makes the block's output."""
        branch = output_branch(segment.shape)
        return self._sum(name, lambda b, f: lower_node(branch, b, fuse=f))

    def _sum(self, name: CostName, lower_at: Callable[[int, bool], Iterable[Kernel]]) -> float:
        metric = next((metric for metric in METRICS if metric == name), None)
        if metric is None:
            return float(sum(getattr(kernel, name) for kernel in lower_at(1, True)))
        if (model := self.cost_model) is None:
            raise ValueError(self.why_not(metric))
        return sum(model.kernel_cost(k, metric) for k in lower_at(model.target.batch_size, model.fuse))


@lru_cache(maxsize=4096)
def operation_nodes(operation: str, shape: tuple[int, ...]) -> tuple[Node, ...]:
    """Return the layers of one operation, alone, on (C, H, W) feature maps."""
    alone = BlockSegment(Block(inputs=((0,),), output=()), (get_operation(operation),), shape, False)
    return tuple(alone.nodes("", "input"))


def peak_memory_bytes(architecture: Architecture, target: Target | None = None) -> int:
    """Return the peak activation memory of one inference, layers run in order, nothing in place.

    target: whose precision and batch size; None: one image in fp32.
    """
    batch_size, precision = (target.batch_size, target.precision) if target else (1, "fp32")
    return _peak_elements(architecture) * batch_size * BYTES_PER_ELEMENT[precision]


@lru_cache(maxsize=8192)
def _peak_elements(architecture: Architecture) -> int:
    """Elements of one image that are alive together at the worst moment."""
    return peak_activation_elements(schedule_of(architecture))


@lru_cache(maxsize=65536)
def _segment_count(segment: Segment, name: str) -> int:
    return sum(getattr(kernel, name) for kernel in lower_segment(segment, 1, True))
