"""The latency of architectures from a measured table, thousands a second.

A network is the sum of its segments (stem, blocks, reductions, head), so each distinct segment is paid for
once. A block that is new is not lowered to kernels either: its nodes come from a small set of operations at
one shape, so its cost is put together from *atoms* (an operation, a sum of k, a concat of k with its merge, a
change of layout), each looked up once per shape.

Law (tested): equal to lowering the whole network and following the runtime kernel by kernel.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from dsonas_hw.architecture.architecture import Architecture, Block
from dsonas_hw.architecture.graph import BlockSegment, Segment, list_segments
from dsonas_hw.architecture.lower import lower
from dsonas_hw.architecture.probes import segment_schedule
from dsonas_hw.cost.model import LatencyModel, LatencyPrediction
from dsonas_hw.kernel.network import Schedule, ScheduledKernel
from dsonas_hw.kernel.spec import Kernel, Shape
from dsonas_hw.profile.measured import MeasuredLatency
from dsonas_hw.profile.network_costs import Part
from dsonas_hw.profile.ort_layout import CHANNEL_ALIGNMENT, FROM_BLOCKED, TO_BLOCKED
from dsonas_hw.space.operations import Operation
from dsonas_hw.space.space import SearchSpace

MAX_CACHED = 200_000
"""Distinct blocks kept; beyond, the cache starts again."""


class ArchitectureLatency:
    """Predictions of whole architectures by one latency model, whatever its kind."""

    def __init__(self, model: LatencyModel) -> None:
        self.model = model
        self._frames: dict[tuple[SearchSpace, int], _Frame] = {}
        self._blocks: dict[tuple[object, ...], Numbers] = {}
        self._builders: dict[tuple[Shape, bool, tuple[str, ...]], _BlockBuilder | None] = {}

    def predict(self, architecture: Architecture) -> LatencyPrediction:
        """Latency of a network.

        Raises:
            ProfileError: the table does not know a kernel.
        """
        model = self.model
        if not isinstance(model, MeasuredLatency):
            return model.predict(lower(architecture, batch_size=model.batch_size, fuse=model.fuse))
        space, known = architecture.space, self._blocks
        frame = self._frames.get((space, architecture.width))
        if frame is None:
            frame = self._frames[space, architecture.width] = self._frame(model, architecture)
        found = [frame.numbers]
        for block, shape, shortcut in zip(architecture.blocks, frame.shapes, frame.shortcuts, strict=True):
            key = (block.inputs, block.output, shape, shortcut, space.operations)  # tuples are hashed fast
            numbers = known.get(key)
            if numbers is None:
                if len(known) >= MAX_CACHED:
                    known.clear()
                segment = BlockSegment(block, space.operation_list, shape, shortcut)
                numbers = known[key] = self._block(model, segment, space.operations)
            found.append(numbers)
        return model.predict_part(Part(*_add_up(found)))

    def _frame(self, model: MeasuredLatency, architecture: Architecture) -> _Frame:
        shape: Shape = architecture.space.input_shape
        found, shapes, shortcuts = [], [], []
        for _, segment in list_segments(architecture):
            if isinstance(segment, BlockSegment):
                shapes.append(segment.shape)
                shortcuts.append(segment.shortcut)
            else:
                found.append(self._lowered(model, segment, shape))
            shape = _output_shape(segment)
        return _Frame(_add_up(found), tuple(shapes), tuple(shortcuts))

    def _block(self, model: MeasuredLatency, segment: BlockSegment, operations: tuple[str, ...]) -> Numbers:
        if segment.block.is_identity and not segment.shortcut:
            return NOTHING
        key = (segment.shape, segment.shortcut, operations)
        if key not in self._builders:
            self._builders[key] = _builder(model, segment)
        builder = self._builders[key]
        return builder.numbers(segment.block) if builder else self._lowered(model, segment, segment.shape)

    def _lowered(self, model: MeasuredLatency, segment: Segment, shape: Shape) -> Numbers:
        schedule = segment_schedule(segment, shape, model.batch_size, model.fuse)
        return _numbers(model.part_of(schedule, is_first=shape[0] <= CHANNEL_ALIGNMENT - 1))


def _output_shape(segment: Segment) -> Shape:
    if isinstance(segment, BlockSegment):
        return segment.shape
    nodes = list(segment.nodes("", ""))
    return nodes[-1].output_shape if len(nodes[-1].output_shape) == 3 else nodes[0].output_shape


Buffer = int | tuple[int, ...]
Numbers = tuple[float, float, float, int, float, float]
"""The fields of a `Part`; as plain tuples they add up faster, and searches ask for thousands a second."""
NOTHING: Numbers = (0.0, 0.0, 0.0, 0, 0.0, 0.0)


def _numbers(part: Part) -> Numbers:
    return (
        part.cost_ms,
        part.scaled_ms,
        part.fixed_ms,
        part.num_kernels,
        part.largest_mb,
        part.uncertain_ms,
    )


def _multiples(numbers: Numbers, up_to: int) -> list[Numbers]:
    """The numbers of 0, 1, … `up_to` times the same kernels."""
    return [NOTHING, *(_add_up([numbers] * times) for times in range(1, up_to + 1))]


def _add_up(found: list[Numbers]) -> Numbers:
    if not found:
        return NOTHING
    costs, scaled, fixed, counts, largest, uncertain = zip(*found, strict=True)
    return sum(costs), sum(scaled), sum(fixed), sum(counts), max(largest), sum(uncertain)


@dataclass(frozen=True, slots=True)
class _Frame:
    """What the networks of a space and width have in common."""

    numbers: Numbers
    """Of stem, reductions and head."""
    shapes: tuple[Shape, ...]
    """What each block reads and writes."""
    shortcuts: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class _Atom:
    """An operation of a block, given its input in the layout it wants."""

    pool: Numbers | None
    """Its pool, which runs once for all operations that pool the same input."""
    rest: Numbers
    wants_blocked: bool
    is_blocked: bool
    """Whether its output is in blocks."""


def _builder(model: MeasuredLatency, segment: BlockSegment) -> _BlockBuilder | None:
    """None where the atoms do not say it all: identity operations, channels that cannot be in blocks."""
    channels = segment.shape[0]
    plain_names = all(operation.layers for operation in segment.operations)
    if model.runtime != "ort-cpu" or not model.block_size or channels % CHANNEL_ALIGNMENT or not plain_names:
        return None
    return _BlockBuilder(model, segment)


class _BlockBuilder:
    """Costs of the blocks of one shape."""

    def __init__(self, model: MeasuredLatency, segment: BlockSegment) -> None:
        self._model = model
        self._segment = segment
        self._batch = model.batch_size
        channels, height, width = segment.shape
        padded = -(-channels // model.block_size) * model.block_size
        self._aligned = padded == channels
        shape, blocked = (self._batch, *segment.shape), (self._batch, padded, height, width)
        to_blocked = Kernel(op="copy", function=TO_BLOCKED, inputs=(shape,), output=blocked)
        from_blocked = Kernel(op="copy", function=FROM_BLOCKED, inputs=(blocked,), output=shape)
        self._to_blocked = _numbers(model.part([to_blocked]))
        self._from_blocked = _numbers(model.part([from_blocked]))
        self._atoms = [self._atom(operation) for operation in segment.operations]
        num_levels = len(segment.block.inputs) // len(self._atoms)
        self._multiples = [
            (atom.pool and _multiples(atom.pool, num_levels), _multiples(atom.rest, num_levels))
            for atom in self._atoms
        ]
        self._sums: dict[bool, dict[int, Numbers]] = {True: {}, False: {}}
        self._outputs: dict[int, Numbers] = {}
        self._merge_wants_blocked = channels >= model.block_size
        self._shortcut = _numbers(self._conv_part(channels)) if segment.shortcut else None

    def numbers(self, block: Block) -> Numbers:
        """The kernels of a block, its layout changes included."""
        if self._aligned:
            return self._aligned_numbers(block)
        found: list[Numbers] = []
        add = found.append
        num_atoms = len(self._atoms)
        # A buffer is the block's input (0), an operation's output (1, 2, …) or the sum of several of them.
        blocked: dict[Buffer, bool] = {0: True}
        copied: set[Buffer] = set()
        pooled: set[tuple[int, Buffer]] = set()

        def copy(buffer: Buffer) -> None:
            copied.add(buffer)
            add(self._from_blocked if blocked[buffer] else self._to_blocked)

        for number, sources in enumerate(block.inputs):
            if not sources:
                continue
            source: Buffer = sources[0]
            if len(sources) > 1:
                source = sources
                if source not in blocked:
                    in_blocks = blocked[source] = all([blocked[buffer] for buffer in sources])
                    if not in_blocks:
                        for buffer in sources:
                            if blocked[buffer] and buffer not in copied:
                                copy(buffer)
                    add(self._sum_numbers(len(sources), in_blocks))
            index = number % num_atoms
            atom = self._atoms[index]
            if atom.pool is None or (index, source) not in pooled:
                if blocked[source] != atom.wants_blocked and source not in copied:
                    copy(source)
                if atom.pool is not None:
                    pooled.add((index, source))
                    add(atom.pool)
            add(atom.rest)
            blocked[number + 1] = atom.is_blocked
        if self._shortcut is not None:
            if not self._merge_wants_blocked and 0 not in copied:
                copy(0)
            add(self._shortcut)
        if block.output:
            merge_wants_blocked = self._merge_wants_blocked and len(block.output) == 1
            for branch in block.output:
                if blocked[branch] != merge_wants_blocked and branch not in copied:
                    copy(branch)
            add(self._output_numbers(len(block.output)))
        return _add_up(found)

    def _aligned_numbers(self, block: Block) -> Numbers:
        """The same where channels fill their blocks: then every buffer is in blocks, and stays there."""
        num_atoms = len(self._atoms)
        counts = [len(reads) for reads in set(block.inputs) if len(reads) > 1]
        try:
            found = [self._sums[True][count] for count in counts]
        except KeyError:
            found = [self._sum_numbers(count, True) for count in counts]
        for index, (pools, rests) in enumerate(self._multiples):
            reading = [reads for reads in block.inputs[index::num_atoms] if reads]
            found.append(rests[len(reading)])
            if pools:
                found.append(pools[len(set(reading))])
        if self._shortcut is not None:
            found.append(self._shortcut)
        if block.output:
            found.append(self._output_numbers(len(block.output)))
        return _add_up(found)

    def _sum_numbers(self, count: int, in_blocks: bool) -> Numbers:
        found = self._sums[in_blocks].get(count)
        if found is None:
            found = self._sums[in_blocks][count] = _numbers(self._sum(count, in_blocks))
        return found

    def _output_numbers(self, count: int) -> Numbers:
        found = self._outputs.get(count)
        if found is None:
            found = self._outputs[count] = _numbers(self._output(count))
        return found

    def _sum(self, count: int, in_blocks: bool) -> Part:
        shape = (self._batch, *self._segment.shape)
        return self._part_of([Kernel(op="sum", inputs=(shape,) * count, output=shape)], in_blocks)

    def _output(self, count: int) -> Part:
        """Concat of `count` branches in the layout it wants, merge, and the sum with the block's input."""
        channels, height, width = self._segment.shape
        part = self._conv_part(count * channels) + self._sum(2, True)
        if count > 1:
            shape = (self._batch, *self._segment.shape)
            joined = (self._batch, count * channels, height, width)
            concat = Kernel(op="concat", inputs=(shape,) * count, output=joined)
            part += self._part_of([concat], self._aligned)
            if not self._aligned and joined[1] >= self._model.block_size:
                blocks = -(-joined[1] // self._model.block_size) * self._model.block_size
                padded = (self._batch, blocks, height, width)
                reorder = Kernel(op="copy", function=TO_BLOCKED, inputs=(joined,), output=padded)
                part += self._model.part([reorder])
        return part

    def _conv_part(self, channels_in: int) -> Part:
        """A 1×1 convolution to the block's channels, as merge and shortcut are, its input as it wants it."""
        channels, height, width = self._segment.shape
        kernel = Kernel(
            op="conv",
            inputs=((self._batch, channels_in, height, width),),
            output=(self._batch, channels, height, width),
            num_weights=channels_in * channels,
            num_bias=channels,
            epilogue=("relu",),
        )
        return self._part_of([kernel], channels_in >= self._model.block_size)

    def _atom(self, operation: Operation) -> _Atom:
        """What an operation runs; asked of the runtime's rules with its input in blocks and without."""
        alone = replace(
            self._segment,
            block=Block(inputs=((0,),), output=()),
            operations=(operation,),
            shortcut=False,
        )
        schedule = segment_schedule(alone, self._segment.shape, self._batch, True)
        in_blocks = self._model.deploy(schedule, blocked_inputs=True, is_part=True)
        wants_blocked = in_blocks[0].function != FROM_BLOCKED
        runs = self._model.deploy(schedule, blocked_inputs=wants_blocked, is_part=True)
        left = self._model.deploy(schedule, blocked_inputs=wants_blocked, is_part=False)
        is_pool = operation.layers[0].kind in ("avgpool", "maxpool")
        return _Atom(
            pool=_numbers(self._model.part(runs[:1])) if is_pool else None,
            rest=_numbers(self._model.part(runs[1:] if is_pool else runs)),
            wants_blocked=wants_blocked,
            is_blocked=len(left) > len(runs),
        )

    def _part_of(self, kernels: list[Kernel], in_blocks: bool) -> Part:
        names = tuple(f"input{i}" for i in range(len(kernels[0].inputs)))
        schedule = Schedule(
            kernels=(ScheduledKernel(kernel=kernels[0], reads=names, writes="output"),),
            inputs=dict(zip(names, kernels[0].inputs, strict=True)),
            outputs=frozenset(),
        )
        return self._model.part_of(schedule, is_first=not in_blocks)
