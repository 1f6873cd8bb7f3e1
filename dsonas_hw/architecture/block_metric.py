"""A metric of a block, put together from atoms instead of being lowered to kernels.

A block's nodes come from a small set of operations at one shape, so its cost is the sum of *atoms*: an
operation, a sum of k, a concat of k with its merge, a change of layout; each is looked up once per shape.

Law (tested): equal to lowering the whole network and following the runtime kernel by kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from dsonas_hw.architecture.architecture import Block
from dsonas_hw.architecture.graph import BlockSegment
from dsonas_hw.architecture.schedule import segment_schedule
from dsonas_hw.budget import Metric
from dsonas_hw.cost.measured import MeasuredCosts
from dsonas_hw.cost.network_costs import Part
from dsonas_hw.kernel.network import Schedule, ScheduledKernel
from dsonas_hw.kernel.spec import Kernel

Buffer = int | tuple[int, ...]
Numbers = tuple[float, float, float, int, float, float]
"""The fields of a `Part`; as plain tuples they add up faster, and searches ask for thousands a second."""
Step = tuple[Numbers, bool]
"""What a segment adds, and whether it leaves its output in blocks."""
NOTHING: Numbers = (0.0, 0.0, 0.0, 0, 0.0, 0.0)


def numbers_of(part: Part) -> Numbers:
    return (
        part.cost_ms,
        part.scaled,
        part.fixed,
        part.num_kernels,
        part.largest_mb,
        part.uncertain_ms,
    )


def _multiples(numbers: Numbers, up_to: int) -> list[Numbers]:
    """The numbers of 0, 1, … `up_to` times the same kernels."""
    return [NOTHING, *(add_up([numbers] * times) for times in range(1, up_to + 1))]


_Multiples = tuple[list[Numbers] | None, list[Numbers]]
"""Of an operation's pool, if it begins with one, and of the rest of it."""


def add_up(found: list[Numbers]) -> Numbers:
    if not found:
        return NOTHING
    costs, scaled, fixed, counts, largest, uncertain = zip(*found, strict=True)
    return sum(costs), sum(scaled), sum(fixed), sum(counts), max(largest), sum(uncertain)


@dataclass(frozen=True, slots=True)
class _Atom:
    """An operation of a block, given its input in the layout it wants."""

    pool: Numbers | None
    """Its pool, which runs once for all operations that pool the same input."""
    rest: Numbers
    wants_blocked: bool
    is_blocked: bool
    """Whether its output is in blocks."""


def block_builder(model: MeasuredCosts, metric: Metric, segment: BlockSegment) -> BlockBuilder | None:
    """Return the builder of a block's shape; None where atoms do not tell its cost.

    They do not where an operation is an identity, or where its channels cannot be in blocks.
    """
    has_kernels = all(operation.layers for operation in segment.operations)
    if not model.deployment.is_regular(segment.shape[0]) or not has_kernels:
        return None
    return BlockBuilder(model, metric, segment)


class BlockBuilder:
    """Costs of the blocks of one shape. The table is asked for a kernel when a block first has it."""

    def __init__(self, model: MeasuredCosts, metric: Metric, segment: BlockSegment) -> None:
        self._model = model
        self._metric = metric
        self._segment = segment
        self._batch = model.target.batch_size
        channels = segment.shape[0]
        self._aligned = model.deployment.padded(channels) == channels
        self._shape = (self._batch, *segment.shape)
        num_atoms = len(segment.operations)
        self._num_levels = len(segment.block.inputs) // num_atoms
        self._atoms: list[_Atom | None] = [None] * num_atoms
        self._multiples: list[_Multiples | None] = [None] * num_atoms
        self._sums: dict[tuple[int, bool], Numbers] = {}
        self._merges: dict[int, Numbers] = {}

    def reads(self, in_blocks: bool) -> bool:
        """Return whether the rules here hold for blocks whose input is in blocks, or is not."""
        return in_blocks or not self._aligned

    def step(self, block: Block, in_blocks: bool) -> Step:
        """Return the kernels of a block, its layout changes included."""
        if self._aligned:
            return self._aligned_numbers(block), True
        found: list[Numbers] = []
        add = found.append
        num_atoms = len(self._atoms)
        # A buffer is the block's input (0), an operation's output (1, 2, …) or the sum of several of them.
        blocked: dict[Buffer, bool] = {0: in_blocks}
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
                    all_blocked = blocked[source] = all([blocked[buffer] for buffer in sources])
                    if not all_blocked:
                        for buffer in sources:
                            if blocked[buffer] and buffer not in copied:
                                copy(buffer)
                    add(self._sum_numbers(len(sources), all_blocked))
            index = number % num_atoms
            atom = self._atoms[index] or self._new_atom(index)
            if atom.pool is None or (index, source) not in pooled:
                if blocked[source] != atom.wants_blocked and source not in copied:
                    copy(source)
                if atom.pool is not None:
                    pooled.add((index, source))
                    add(atom.pool)
            add(atom.rest)
            blocked[number + 1] = atom.is_blocked
        if self._segment.shortcut:
            if blocked[0] != self._conv_wants_blocked and 0 not in copied:
                copy(0)
            add(self._shortcut)
        leaves_blocked = in_blocks or self._segment.shortcut
        if block.output:
            merge_wants_blocked = self._conv_wants_blocked and len(block.output) == 1
            for branch in block.output:
                if blocked[branch] != merge_wants_blocked and branch not in copied:
                    copy(branch)
            add(self._merge_numbers(len(block.output)))
            if not leaves_blocked:
                add(self._from_blocked)  # the merge's output, for the sum with the block's input
            add(self._sum_numbers(2, leaves_blocked))
        return add_up(found), leaves_blocked

    def _aligned_numbers(self, block: Block) -> Numbers:
        """The same where channels fill their blocks: then every buffer is in blocks, and stays there."""
        num_atoms = len(self._atoms)
        counts = [len(reads) for reads in set(block.inputs) if len(reads) > 1]
        found = [self._sum_numbers(count, True) for count in counts]
        for index in range(num_atoms):
            reading = [reads for reads in block.inputs[index::num_atoms] if reads]
            if reading:
                pools, rests = self._multiples[index] or self._new_multiples(index)
                found.append(rests[len(reading)])
                if pools:
                    found.append(pools[len(set(reading))])
        if self._segment.shortcut:
            found.append(self._shortcut)
        if block.output:
            found.append(self._merge_numbers(len(block.output)))
            found.append(self._sum_numbers(2, True))
        return add_up(found)

    @cached_property
    def _to_blocked(self) -> Numbers:
        return self._numbers([self._model.deployment.reorder(self._shape, into_blocks=True)])

    @cached_property
    def _from_blocked(self) -> Numbers:
        return self._numbers([self._unblock])

    @cached_property
    def _unblock(self) -> Kernel:
        return self._model.deployment.reorder(self._shape, into_blocks=False)

    @cached_property
    def _conv_wants_blocked(self) -> bool:
        """Whether a 1×1 convolution of the block's channels reads them in blocks."""
        return self._wants_blocked(schedule_in_order([self._conv(self._segment.shape[0])]))

    def _wants_blocked(self, schedule: Schedule) -> bool:
        """Whether what runs first reads blocks, rather than undo them."""
        return self._deploy(schedule, in_blocks=True)[0] != self._unblock

    def _deploy(self, schedule: Schedule, *, in_blocks: bool, is_part: bool = True) -> tuple[Kernel, ...]:
        return self._model.deployment.kernels(schedule, blocked_inputs=in_blocks, is_part=is_part)

    @cached_property
    def _shortcut(self) -> Numbers:
        return self._deployed([self._conv(self._segment.shape[0])], self._conv_wants_blocked)

    def _sum_numbers(self, count: int, in_blocks: bool) -> Numbers:
        found = self._sums.get((count, in_blocks))
        if found is None:
            kernel = Kernel(op="sum", inputs=(self._shape,) * count, output=self._shape)
            found = self._sums[count, in_blocks] = self._deployed([kernel], in_blocks)
        return found

    def _merge_numbers(self, count: int) -> Numbers:
        found = self._merges.get(count)
        if found is None:
            found = self._merges[count] = self._merge(count)
        return found

    def _merge(self, count: int) -> Numbers:
        """Concat of `count` branches in the layout it wants, and the 1×1 convolution behind it."""
        channels, height, width = self._segment.shape
        conv = self._conv(count * channels)
        if count == 1:
            return self._deployed([conv], self._conv_wants_blocked)
        joined = (self._batch, count * channels, height, width)
        concat = Kernel(op="concat", inputs=(self._shape,) * count, output=joined)
        return self._deployed([concat, conv], self._aligned)

    def _conv(self, channels_in: int) -> Kernel:
        """A 1×1 convolution to the block's channels, as merge and shortcut are."""
        channels, height, width = self._segment.shape
        return Kernel(
            op="conv",
            inputs=((self._batch, channels_in, height, width),),
            output=(self._batch, channels, height, width),
            num_weights=channels_in * channels,
            num_bias=channels,
            epilogue=("relu",),
        )

    def _new_multiples(self, index: int) -> _Multiples:
        atom = self._new_atom(index)
        pools = _multiples(atom.pool, self._num_levels) if atom.pool else None
        found = self._multiples[index] = pools, _multiples(atom.rest, self._num_levels)
        return found

    def _new_atom(self, index: int) -> _Atom:
        """What an operation runs; asked of the runtime's rules with its input in blocks and without."""
        operation = self._segment.operations[index]
        alone = replace(
            self._segment,
            block=Block(inputs=((0,),), output=()),
            operations=(operation,),
            shortcut=False,
        )
        schedule = segment_schedule(alone, self._segment.shape, self._batch, True)
        wants_blocked = self._wants_blocked(schedule)
        runs = self._deploy(schedule, in_blocks=wants_blocked)
        left = self._deploy(schedule, in_blocks=wants_blocked, is_part=False)
        is_pool = operation.layers[0].kind in ("avgpool", "maxpool")
        atom = self._atoms[index] = _Atom(
            pool=self._numbers(runs[:1]) if is_pool else None,
            rest=self._numbers(runs[1:] if is_pool else runs),
            wants_blocked=wants_blocked,
            is_blocked=len(left) > len(runs),
        )
        return atom

    def _deployed(self, kernels: list[Kernel], in_blocks: bool) -> Numbers:
        return self._numbers(self._deploy(schedule_in_order(kernels), in_blocks=in_blocks))

    def _numbers(self, kernels: Sequence[Kernel]) -> Numbers:
        return numbers_of(self._model.part(kernels, self._metric))


def schedule_in_order(kernels: Sequence[Kernel]) -> Schedule:
    """Return kernels that each read what the one before wrote; the first reads the inputs."""
    reads = tuple(f"input{i}" for i in range(len(kernels[0].inputs)))
    inputs = dict(zip(reads, kernels[0].inputs, strict=True))
    steps = []
    for index, kernel in enumerate(kernels):
        steps.append(ScheduledKernel(kernel=kernel, reads=reads, writes=f"buffer{index}"))
        reads = (f"buffer{index}",)
    return Schedule(kernels=tuple(steps), inputs=inputs, outputs=frozenset({reads[0]}))
