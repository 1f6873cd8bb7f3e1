"""Which kernels the networks of a search space can need, and small networks that hold what is missing.

A kernel follows from the operation, its shapes and the layout of what it reads. All of these are local: a
layout is decided by the channels (`kernel.deployment`), and between two segments of a network only one bit
is handed on, whether the buffer is in blocks (`segments`). So instead of all architectures a few *patterns*
of a block are followed through the network, from every layout that can reach them: operations behind each
other, sums of few and of many, every number of branches.

    kernels of the space = ∪ over widths, places, layouts that reach the place, patterns
    witness              = the network of patterns that holds most of the kernels that are still missing

All of it is a pure function of the space and of the runtime's deployment on a processor; nothing is measured
here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache, partial

from dsonas_hw.architecture.architecture import Architecture, Block, close_block, complete_block
from dsonas_hw.architecture.graph import BlockSegment, Segment, list_segments
from dsonas_hw.architecture.segments import DeployedSegment, deploy_segment, output_shape
from dsonas_hw.cost.kernel_costs import Category, category_of
from dsonas_hw.kernel.deployment import Deployment
from dsonas_hw.kernel.spec import Kernel, Shape
from dsonas_hw.space.space import INPUT_NODE, SearchSpace

MAX_BLOCKS = 2
"""Blocks of a stage that are enough to reach every layout: the first one makes it, the second reads it."""
MOST_LARGER = 2.0
"""A kernel so many times as large as the largest of its category, or as small as the smallest, is covered."""
ENOUGH_KERNELS = 3
"""Kernels of a category to fit its costs on, where the space has so many."""


class CoveredKernels:
    """What a set of kernels says about others: categories, and the range of sizes in each."""

    def __init__(self, kernels: Iterable[Kernel] = ()) -> None:
        self._kernels: dict[Kind, set[Kernel]] = {}
        self._ranges: dict[Kind, tuple[Sizes, Sizes]] = {}
        self.add(kernels)

    def add(self, kernels: Iterable[Kernel]) -> None:
        for kernel in kernels:
            category = _kind(kernel)
            sizes = _sizes(kernel)
            self._kernels.setdefault(category, set()).add(kernel)
            low, high = self._ranges.get(category, (sizes, sizes))
            self._ranges[category] = _sizes_of(map(min, low, sizes)), _sizes_of(map(max, high, sizes))

    def missing(self, needed: Iterable[Kernel]) -> list[Kernel]:
        """The kernels that are of no category here, of one with too few, or far larger or smaller."""
        grouped: dict[Kind, list[Kernel]] = {}
        for kernel in needed:
            grouped.setdefault(_kind(kernel), []).append(kernel)
        found: list[Kernel] = []
        for category, kernels in grouped.items():
            here = self._kernels.get(category, set())
            if len(here) < min(ENOUGH_KERNELS, len(here.union(kernels))):
                found += [kernel for kernel in kernels if kernel not in here]
            else:
                low, high = self._ranges[category]
                found += [kernel for kernel in kernels if not _is_within(_sizes(kernel), low, high)]
        return found


Kind = tuple[Category, tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[str, ...]]


def _kind(kernel: Kernel) -> Kind:
    """What two kernels that differ in size only have in common."""
    return category_of(kernel), kernel.kernel_size, kernel.stride, kernel.dilation, kernel.epilogue


Sizes = tuple[int, int, int]


def _sizes(kernel: Kernel) -> Sizes:
    """Elements moved, weights, multiply-adds."""
    return kernel.mac - kernel.num_weights, kernel.num_weights, kernel.flops


def _sizes_of(values: Iterable[int]) -> Sizes:
    moved, weights, flops = values
    return moved, weights, flops


def _is_within(sizes: Sizes, low: Sizes, high: Sizes) -> bool:
    return all(
        least <= MOST_LARGER * size and size <= MOST_LARGER * most
        for size, least, most in zip(sizes, low, high, strict=True)
    )


def needed_kernels(
    space: SearchSpace, deployment: Deployment, *, batch_size: int = 1, widths: Sequence[int] | None = None
) -> tuple[Kernel, ...]:
    """At least one kernel of every category and extreme size that networks of a space can run.

    widths: first-stage channels that are deployed; by default all of the space.
    """
    chosen = tuple(widths) if widths else representatives(space.widths(), deployment)
    found: dict[Kernel, None] = {}
    for width in chosen:
        for place in _walk(_shallow(space), width, deployment, batch_size):
            for choices in place.values():
                for _, deployed in choices:
                    found.update(dict.fromkeys(deployed.kernels))
    return tuple(found)


def witnesses(
    space: SearchSpace,
    needed: Sequence[Kernel],
    covered: CoveredKernels,
    *,
    deployment: Deployment,
    batch_size: int = 1,
    widths: Sequence[int] | None = None,
) -> list[Architecture]:
    """Networks that hold the kernels of `needed` which `covered` lacks; `covered` is added to.

    Each is the network of patterns, at the width, that holds most of what is still missing.

    needed: kernels of `needed_kernels` for the same space, sizes and widths.
    """
    shallow = _shallow(space)
    chosen = tuple(widths) if widths else representatives(space.widths(), deployment)
    found: list[Architecture] = []
    while missing := set(covered.missing(needed)):
        walks = ((width, _walk(shallow, width, deployment, batch_size)) for width in chosen)
        gains = ((_best_values(places, missing)[0][False], width) for width, places in walks)
        gain, width = max(gains)
        assert gain > 0, "what is needed comes from the same walks"
        blocks, kernels = _fullest(_walk(shallow, width, deployment, batch_size), missing)
        found.append(Architecture(space=shallow, blocks=tuple(blocks), width=width))
        covered.add(kernels)
    return found


def representatives(widths: Sequence[int], deployment: Deployment) -> tuple[int, ...]:
    """The widths that stand for all: what a layout depends on is channels below a block, and their remainder.

    Channels of any tensor are multiples of the width, or of half of it, so every narrow width counts for
    itself, and the widest of each remainder for those of its remainder.
    """
    period = 2 * _period(deployment)
    widest: dict[int, int] = {}
    for width in widths:
        widest[width % period] = width
    narrow = {widths[0], *(width for width in widths if deployment.block_size and width < period)}
    return tuple(sorted(narrow | set(widest.values())))


def _period(deployment: Deployment) -> int:
    """Channels after which layouts are as before."""
    return max(deployment.block_size, deployment.alignment)


def _shallow(space: SearchSpace) -> SearchSpace:
    """The space with as few blocks as reach every layout, each of its own."""
    return replace(space, share=False, stages=tuple(min(count, MAX_BLOCKS) for count in space.stages))


# -- patterns of a block ---------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def block_patterns(space: SearchSpace, period: int) -> tuple[Block, ...]:
    """Blocks that hold every local pattern: who reads whom, sums of few and many, numbers of branches.

    period: numbers of branches that differ by it are of one kind.
    """
    edges = [*_chains(space), *_sums(space), *_branches(space, period)]
    blocks = [close_block(space, ()), *(close_block(space, e) for e in edges), complete_block(space)]
    return tuple(dict.fromkeys(blocks))


Edges = list[tuple[int, int]]


def _chains(space: SearchSpace) -> Iterator[Edges]:
    """Every operation reads every operation; each of them is also the only branch once."""
    count = len(space.operations)
    for index in range(count):
        yield _with_output(space, [(INPUT_NODE, space.node(0, index))], [space.node(0, index)])
    if space.levels == 1:
        return
    second = [space.node(1, index) for index in range(count)]
    for shift in range(count):
        edges = [(INPUT_NODE, space.node(0, index)) for index in range(count)]
        edges += [(space.node(0, (index + shift) % count), node) for index, node in enumerate(second)]
        yield _with_output(space, edges, second)


def _sums(space: SearchSpace) -> Iterator[Edges]:
    """Every operation reads sums: of two, with and without the block's input, and of all that are alike."""
    if space.levels == 1:
        return
    count = len(space.operations)
    first = [(INPUT_NODE, space.node(0, index)) for index in range(count)]
    second = [space.node(1, index) for index in range(count)]
    for shift in range(count):
        mixed: Edges = list(first)
        with_input: Edges = list(first)
        for index, node in enumerate(second):
            sources = {space.node(0, index), space.node(0, (index + shift) % count)}
            mixed += [(source, node) for source in sources]
            with_input += [(INPUT_NODE, node), (space.node(0, (index + shift) % count), node)]
        yield _with_output(space, mixed, second)
        yield _with_output(space, with_input, second)
    last = [space.node(space.levels - 1, index) for index in range(count)]
    for kind in range(count):
        alike = [space.node(level, kind) for level in range(space.levels - 1)]
        edges = [(INPUT_NODE, node) for node in alike]
        edges += [(source, node) for node in last for source in alike]
        yield _with_output(space, edges, last)


def _branches(space: SearchSpace, period: int) -> Iterator[Edges]:
    """Every number of branches, the widest of each kind and all small ones."""
    every = range(1, space.num_nodes + 1)
    for count in {*every[:period], *every[-period:]}:
        nodes = list(every[:count])
        yield _with_output(space, [(INPUT_NODE, node) for node in nodes], nodes)


def _with_output(space: SearchSpace, edges: Edges, output: Sequence[int]) -> Edges:
    return [*edges, *((node, space.num_nodes + 1) for node in output)]


# -- the walk through a network --------------------------------------------------------------------------

Choice = tuple[Block | None, DeployedSegment]
Place = dict[bool, list[Choice]]
"""Layout of what a segment reads → what can stand there; a block that is None is no block's place."""


@lru_cache(maxsize=512)
def _walk(space: SearchSpace, width: int, deployment: Deployment, batch_size: int) -> tuple[Place, ...]:
    """Every place of the networks of one width, with all that can stand there for each layout it can read."""
    patterns = block_patterns(space, _period(deployment))
    empty = close_block(space, ())
    template = Architecture(space=space, blocks=(empty,) * space.num_blocks, width=width)
    deploy = partial(deploy_segment, batch_size=batch_size)
    places: list[Place] = []
    shape: Shape = space.input_shape
    reachable = {False}  # an image is never in blocks
    for _, segment in list_segments(template):
        place: Place = {}
        for reads_blocked in sorted(reachable):
            place[reads_blocked] = [
                (block, deploy(each, shape, deployment, reads_blocked=reads_blocked))
                for block, each in _variants(segment, patterns)
            ]
        places.append(place)
        reachable = {done.leaves_blocked for choices in place.values() for _, done in choices}
        shape = output_shape(segment)
    return tuple(places)


def _variants(segment: Segment, patterns: Sequence[Block]) -> Iterator[tuple[Block | None, Segment]]:
    if isinstance(segment, BlockSegment):
        for block in patterns:
            yield block, replace(segment, block=block)
    else:
        yield None, segment


def _best_values(places: Sequence[Place], missing: set[Kernel]) -> list[dict[bool, int]]:
    """For every place and layout: how many missing kernels the best rest of a network holds."""
    values: list[dict[bool, int]] = [{False: 0, True: 0}]
    for place in reversed(places):
        after = values[-1]
        values.append(
            {
                layout: max(
                    len(missing.intersection(done.kernels)) + after.get(done.leaves_blocked, 0)
                    for _, done in choices
                )
                for layout, choices in place.items()
            }
        )
    return values[::-1]


def _fullest(places: Sequence[Place], missing: set[Kernel]) -> tuple[list[Block], list[Kernel]]:
    """The blocks of the network that holds most of what is missing, and all kernels of that network."""
    values = _best_values(places, missing)
    left = set(missing)
    blocks: list[Block] = []
    kernels: list[Kernel] = []
    in_blocks = False
    for place, after in zip(places, values[1:], strict=True):
        block, done = max(
            place[in_blocks],
            key=lambda choice: len(left.intersection(choice[1].kernels)) + after[choice[1].leaves_blocked],
        )
        if block is not None:
            blocks.append(block)
        kernels += done.kernels
        left.difference_update(done.kernels)
        in_blocks = done.leaves_blocked
    return blocks, kernels
