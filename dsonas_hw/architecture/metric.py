"""Latency and energy of architectures from a measured table, thousands a second.

A network is the sum of its segments (stem, blocks, reductions, head), so each distinct segment is paid for
once. A block that is new is not lowered to kernels either, but put together from atoms (`block_metric`).

Law (tested): equal to lowering the whole network and following the runtime kernel by kernel.
"""

from __future__ import annotations

from dataclasses import dataclass

from dsonas_hw.architecture.architecture import Architecture, Block
from dsonas_hw.architecture.block_metric import (
    NOTHING,
    BlockBuilder,
    Numbers,
    Step,
    add_up,
    block_builder,
    numbers_of,
)
from dsonas_hw.architecture.graph import BlockSegment, Segment, list_segments
from dsonas_hw.architecture.lower import lower
from dsonas_hw.architecture.segments import deploy_segment, output_shape
from dsonas_hw.budget import Metric
from dsonas_hw.cost.measured import MeasuredCosts
from dsonas_hw.cost.model import CostModel, Prediction
from dsonas_hw.cost.network_costs import Part
from dsonas_hw.kernel.spec import Shape
from dsonas_hw.space.space import SearchSpace

MAX_CACHED = 200_000
"""Distinct blocks kept; beyond, the cache starts again."""


class ArchitectureMetric:
    """Predictions of one metric of whole architectures by one model, whatever its kind."""

    def __init__(self, model: CostModel, metric: Metric) -> None:
        self.model = model
        self.metric = metric
        self._frames: dict[tuple[SearchSpace, int], list[_Place]] = {}
        self._blocks: dict[tuple[object, ...], Step] = {}
        self._builders: dict[tuple[object, ...], BlockBuilder | None] = {}

    def predict(self, architecture: Architecture) -> Prediction:
        """Return the metric of a network.

        Raises:
            ProfileError: the table does not know a kernel, or the metric.
        """
        model, metric = self.model, self.metric
        if not isinstance(model, MeasuredCosts):
            return model.predict(
                lower(architecture, batch_size=model.target.batch_size, fuse=model.fuse), metric
            )
        space = architecture.space
        frame = self._frames.get((space, architecture.width))
        if frame is None:
            frame = self._frames[space, architecture.width] = _frame(architecture)
        blocks = iter(architecture.blocks)
        found: list[Numbers] = []
        in_blocks = False  # an image never is
        for place in frame:
            if place.segment is None:
                numbers, in_blocks = self._block(model, next(blocks), place, space, in_blocks)
            else:
                step = place.steps.get(in_blocks)
                if step is None:
                    step = self._lowered(model, place.segment, place.shape, in_blocks)
                    place.steps[in_blocks] = step
                numbers, in_blocks = step
            found.append(numbers)
        return model.predict_part(Part(*add_up(found)), metric)

    def _block(
        self, model: MeasuredCosts, block: Block, place: _Place, space: SearchSpace, in_blocks: bool
    ) -> Step:
        shape, shortcut = place.shape, place.shortcut
        key = (block.inputs, block.output, shape, shortcut, space.operations, in_blocks)  # hashed fast
        step = self._blocks.get(key)
        if step is None:
            if len(self._blocks) >= MAX_CACHED:
                self._blocks.clear()
            segment = BlockSegment(block, space.operation_list, shape, shortcut)
            step = self._blocks[key] = self._new_block(model, segment, space.operations, in_blocks)
        return step

    def _new_block(
        self, model: MeasuredCosts, segment: BlockSegment, operations: tuple[str, ...], in_blocks: bool
    ) -> Step:
        if segment.block.is_identity and not segment.shortcut:
            return NOTHING, in_blocks
        key = (segment.shape, segment.shortcut, operations, len(segment.block.inputs))
        if key not in self._builders:
            self._builders[key] = block_builder(model, self.metric, segment)
        builder = self._builders[key]
        if builder is not None and builder.reads(in_blocks):
            return builder.step(segment.block, in_blocks)
        return self._lowered(model, segment, segment.shape, in_blocks)

    def _lowered(self, model: MeasuredCosts, segment: Segment, shape: Shape, in_blocks: bool) -> Step:
        deployed = deploy_segment(
            segment, shape, model.deployment, batch_size=model.target.batch_size, reads_blocked=in_blocks
        )
        return numbers_of(model.part(deployed.kernels, self.metric)), deployed.leaves_blocked


def _frame(architecture: Architecture) -> list[_Place]:
    shape: Shape = architecture.space.input_shape
    places = []
    for _, segment in list_segments(architecture):
        is_block = isinstance(segment, BlockSegment)
        shortcut = isinstance(segment, BlockSegment) and segment.shortcut
        places.append(_Place(None if is_block else segment, shape, shortcut, {}))
        shape = output_shape(segment)
    return places


@dataclass(frozen=True, slots=True)
class _Place:
    """One segment's place in the networks of a space and width."""

    segment: Segment | None
    """Stem, reduction or head; None: a block, which each architecture has its own of."""
    shape: Shape
    """(C, H, W) of what it reads."""
    shortcut: bool
    steps: dict[bool, Step]
    """What `segment` adds, by the layout that it reads."""
