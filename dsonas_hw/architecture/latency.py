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

MAX_CACHED = 200_000
"""Distinct segments kept; beyond, the cache starts again."""


class ArchitectureLatency:
    """Predictions of whole architectures by one latency model, whatever its kind."""

    def __init__(self, model: LatencyModel) -> None:
        self.model = model
        self._parts: dict[tuple[Segment, Shape], Part] = {}
        self._builders: dict[tuple[Shape, bool, tuple[str, ...]], _BlockBuilder | None] = {}

    def predict(self, architecture: Architecture) -> LatencyPrediction:
        """Latency of a network.

        Raises:
            ProfileError: the table does not know a kernel.
        """
        model = self.model
        if not isinstance(model, MeasuredLatency):
            return model.predict(lower(architecture, batch_size=model.batch_size, fuse=model.fuse))
        num_kernels = 0
        cost = scaled = fixed = largest = 0.0
        shape: Shape = architecture.space.input_shape
        parts = self._parts
        for _, segment in list_segments(architecture):
            key = (segment, shape)
            part = parts.get(key)
            if part is None:
                if len(parts) >= MAX_CACHED:
                    parts.clear()
                part = parts[key] = self._part(model, segment, shape)
            cost += part.cost_ms
            scaled += part.scaled_ms
            fixed += part.fixed_ms
            num_kernels += part.num_kernels
            if part.largest_mb > largest:
                largest = part.largest_mb
            shape = _output_shape(segment)
        return model.predict_part(Part(cost, scaled, fixed, num_kernels, largest))

    def _part(self, model: MeasuredLatency, segment: Segment, shape: Shape) -> Part:
        if isinstance(segment, BlockSegment):
            if segment.block.is_identity and not segment.shortcut:
                return Part()
            names = tuple([operation.name for operation in segment.operations])
            key = (segment.shape, segment.shortcut, names)
            builder = self._builders.get(key)
            if builder is None and key not in self._builders:
                builder = self._builders[key] = _builder(model, segment)
            if builder is not None:
                return builder.part(segment.block)
        schedule = segment_schedule(segment, shape, model.batch_size, model.fuse)
        return model.part_of(schedule, is_first=shape[0] <= CHANNEL_ALIGNMENT - 1)


def _output_shape(segment: Segment) -> Shape:
    if isinstance(segment, BlockSegment):
        return segment.shape
    nodes = list(segment.nodes("", ""))
    return nodes[-1].output_shape if len(nodes[-1].output_shape) == 3 else nodes[0].output_shape


def _add_up(parts: list[Part]) -> Part:
    num_kernels = 0
    cost = scaled = fixed = largest = 0.0
    for part in parts:
        cost += part.cost_ms
        scaled += part.scaled_ms
        fixed += part.fixed_ms
        num_kernels += part.num_kernels
        if part.largest_mb > largest:
            largest = part.largest_mb
    return Part(cost, scaled, fixed, num_kernels, largest)


Numbers = tuple[float, float, float, int, float]


def _numbers(part: Part) -> Numbers:
    return part.cost_ms, part.scaled_ms, part.fixed_ms, part.num_kernels, part.largest_mb


@dataclass(frozen=True, slots=True)
class _Atom:
    """An operation of a block, given its input in the layout it wants."""

    pool: Part | None
    """Its pool, which runs once for all operations that pool the same input."""
    rest: Part
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
        self._to_blocked = model.part(
            [Kernel(op="copy", function=TO_BLOCKED, inputs=(shape,), output=blocked)]
        )
        self._from_blocked = model.part(
            [Kernel(op="copy", function=FROM_BLOCKED, inputs=(blocked,), output=shape)]
        )
        self._atoms = [self._atom(operation) for operation in segment.operations]
        self._atom_numbers = [
            (None if atom.pool is None else _numbers(atom.pool), _numbers(atom.rest)) for atom in self._atoms
        ]
        self._sum_numbers: dict[int, Numbers] = {}
        self._sums: dict[tuple[int, bool], Part] = {}
        self._outputs: dict[int, Part] = {}
        self._merge_wants_blocked = channels >= model.block_size
        self._shortcut = self._conv_part(channels) if segment.shortcut else None

    def part(self, block: Block) -> Part:
        """The kernels of a block, its layout changes included."""
        if self._aligned:
            return self._aligned_part(block)
        parts: list[Part] = []
        add = parts.append
        blocked = {0: True}
        copied: set[int] = set()
        atoms, sums = self._atoms, self._sums
        num_atoms = len(atoms)
        seen_sums: dict[tuple[int, ...], int] = {}
        seen_pools: set[tuple[int, int]] = set()

        def want(buffer: int, in_blocks: bool) -> None:
            if blocked[buffer] != in_blocks and buffer not in copied:
                copied.add(buffer)
                add(self._to_blocked if in_blocks else self._from_blocked)

        for number, sources in enumerate(block.inputs):
            if not sources:
                continue
            source = sources[0]
            if len(sources) > 1:
                found = seen_sums.get(sources)
                if found is None:
                    found = seen_sums[sources] = -1 - len(seen_sums)
                    all_blocked = True
                    for buffer in sources:
                        if not blocked[buffer]:
                            all_blocked = False
                            break
                    if not all_blocked:
                        for buffer in sources:
                            if blocked[buffer]:
                                want(buffer, False)
                    add(sums.get((len(sources), all_blocked)) or self._sum(len(sources), all_blocked))
                    blocked[found] = all_blocked
                source = found
            index = number % num_atoms
            atom = atoms[index]
            if atom.pool is None:
                if blocked[source] != atom.wants_blocked:
                    want(source, atom.wants_blocked)
            elif (index, source) not in seen_pools:
                seen_pools.add((index, source))
                want(source, atom.wants_blocked)
                add(atom.pool)
            add(atom.rest)
            blocked[number + 1] = atom.is_blocked
        if self._shortcut is not None:
            want(0, self._merge_wants_blocked)
            add(self._shortcut)
        if block.output:
            self._finish(block.output, want, blocked, parts)
        return _add_up(parts)

    def _aligned_part(self, block: Block) -> Part:
        """The same where channels fill their blocks: then every buffer is in blocks, and stays there.

        Searches ask for thousands of these a second, hence the plain tuples.
        """
        atoms, sums = self._atom_numbers, self._sum_numbers
        num_atoms = len(atoms)
        found = [] if self._shortcut is None else [_numbers(self._shortcut)]
        add = found.append
        seen: set[tuple[int, ...]] = set()
        pooled: set[tuple[int, tuple[int, ...]]] = set()
        for number, sources in enumerate(block.inputs):
            if not sources:
                continue
            count = len(sources)
            if count > 1 and sources not in seen:
                seen.add(sources)
                if count not in sums:
                    sums[count] = _numbers(self._sum(count, True))
                add(sums[count])
            index = number % num_atoms
            pool, rest = atoms[index]
            if pool is not None and (index, sources) not in pooled:
                pooled.add((index, sources))
                add(pool)
            add(rest)
        if block.output:
            add(_numbers(self._output(len(block.output))))
        if not found:
            return Part()
        costs, scaled, fixed, counts, largest = zip(*found, strict=True)
        return Part(sum(costs), sum(scaled), sum(fixed), sum(counts), max(largest))

    def _finish(
        self, branches: tuple[int, ...], want: object, blocked: dict[int, bool], parts: list[Part]
    ) -> None:
        """Concat, merge and the sum with the block's input."""
        assert callable(want)
        if len(branches) == 1:
            want(branches[0], self._merge_wants_blocked)
        elif not (self._aligned and all(blocked[branch] for branch in branches)):
            for branch in branches:
                want(branch, False)
        parts.append(self._output(len(branches)))

    def _sum(self, count: int, in_blocks: bool) -> Part:
        key = (count, in_blocks)
        if key not in self._sums:
            shape = (self._batch, *self._segment.shape)
            kernel = Kernel(op="sum", inputs=(shape,) * count, output=shape)
            self._sums[key] = self._part_of([kernel], in_blocks)
        return self._sums[key]

    def _output(self, count: int) -> Part:
        """Concat of `count` branches in the layout it wants, merge, and the sum with the block's input."""
        if count not in self._outputs:
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
            self._outputs[count] = part
        return self._outputs[count]

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
            pool=self._model.part(runs[:1]) if is_pool else None,
            rest=self._model.part(runs[1:] if is_pool else runs),
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
