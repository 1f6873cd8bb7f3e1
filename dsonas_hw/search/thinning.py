"""Thinning: networks beside and beyond a path, without some of a point's operations.

On a path edges die one by one, and it ends where the death of one more would leave nothing: a chain of three
operations is an end, however much too slow it is at the width that the device runs best. Without one of its
operations, whose readers then read what it read, it still is a network.

    input ─▶ sep3 ─▶ conv3 ─▶ max3 ─▶ output   without conv3:   input ─▶ sep3 ─▶ max3 ─▶ output
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from dsonas_hw.architecture.architecture import Architecture, Block, build_architecture, close_block
from dsonas_hw.search.path import PathPoint
from dsonas_hw.space.space import INPUT_NODE, SearchSpace

MAX_OF_POINT = 32
"""Networks that come from one point, those that lack the fewest operations first."""
MAX_NETWORKS = 120


def thin(points: Sequence[PathPoint]) -> list[PathPoint]:
    """Return networks that are not on the path: points of it, from the last on, without some operations.

    They have no shared accuracy, and the step and costs of the point that they come from. Of networks that
    differ only in the levels that their operations are on, one is returned.
    """
    seen = {_expressions(point.architecture) for point in points}
    found: list[PathPoint] = []
    for point in reversed(points):
        for architecture in _thinner(point.architecture):
            if (expressions := _expressions(architecture)) not in seen:
                seen.add(expressions)
                found.append(replace(point, architecture=architecture, accuracy=None))
        if len(found) >= MAX_NETWORKS:
            break
    return found


def _thinner(architecture: Architecture) -> Iterator[Architecture]:
    """Networks without one operation, then without two, …; at most `MAX_OF_POINT`."""
    space = architecture.space
    seen = {architecture.searched_blocks}
    queue = [architecture.searched_blocks]
    for blocks in queue:  # grows meanwhile
        for index, block in enumerate(blocks):
            for node in block.nodes:
                without = (*blocks[:index], remove_operation(space, block, node), *blocks[index + 1 :])
                if without in seen or all(b.is_identity for b in without):
                    continue
                if len(seen) > MAX_OF_POINT:
                    return
                seen.add(without)
                queue.append(without)
                yield build_architecture(space, without, width=architecture.width)


def remove_operation(space: SearchSpace, block: Block, node: int) -> Block:
    """Return a block without an operation: what read it reads what it read.

    The block's output, to which the block's input is added in any case, reads that no second time.
    """

    def sources_of(sources: Sequence[int]) -> set[int]:
        through = set(block.inputs[node - 1]) if node in sources else set()
        return set(sources) - {node} | through

    edges = [
        (source, target)
        for target, sources in enumerate(block.inputs, start=1)
        if target != node
        for source in sources_of(sources)
    ]
    edges += [(s, space.num_nodes + 1) for s in sources_of(block.output) if s != INPUT_NODE]
    return close_block(space, edges)


def _expressions(architecture: Architecture) -> tuple[int, ...]:
    """What each block computes: the same for operations that are the same on another level."""
    return tuple(_expression(architecture.space, block) for block in architecture.searched_blocks)


def _expression(space: SearchSpace, block: Block) -> int:
    values = {INPUT_NODE: 0}
    for node in block.nodes:
        inputs = sorted(values[source] for source in block.inputs[node - 1])
        values[node] = hash((space.operation_of(node).name, *inputs))
    return hash(tuple(sorted(values[node] for node in block.output)))
