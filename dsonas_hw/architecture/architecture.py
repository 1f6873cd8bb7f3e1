"""An architecture: which edges of each block are left, and how wide the network is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from dsonas_hw.errors import UserError
from dsonas_hw.space.space import INPUT_NODE, SearchSpace

SCHEMA = 1
MAX_SIZE = 100_000
"""Of any width, side, number of classes, … in a file: nothing larger is allocated for a file from anyone."""


@dataclass(frozen=True, slots=True)
class Block:
    """The edges of a block that are alive. Build it with `close_block`, which drops what is dead.

    `inputs[n-1]` are the sources of node n (ascending; empty: the node is absent); `output` are the nodes
    that feed the block's output. Both empty: the block is the identity.
    """

    inputs: tuple[tuple[int, ...], ...]
    output: tuple[int, ...]

    @property
    def is_identity(self) -> bool:
        return not self.output

    @property
    def nodes(self) -> tuple[int, ...]:
        """Alive operations, ascending."""
        return tuple(n for n, sources in enumerate(self.inputs, start=1) if sources)

    @property
    def num_edges(self) -> int:
        return sum(map(len, self.inputs)) + len(self.output)

    @property
    def edges(self) -> set[tuple[int, int]]:
        """(source, target) pairs as in `SearchSpace.edges`."""
        inner = {(source, node) for node, sources in enumerate(self.inputs, start=1) for source in sources}
        return inner | {(source, len(self.inputs) + 1) for source in self.output}


def close_block(space: SearchSpace, edges: Iterable[tuple[int, int]]) -> Block:
    """Keep the edges on a path from the block's input to its output; everything else is dead.

    edges: (source, target) pairs as in `SearchSpace.edges`.
    """
    output_node = space.num_nodes + 1
    sources: dict[int, list[int]] = {n: [] for n in range(1, output_node + 1)}
    for source, target in edges:
        sources[target].append(source)
    fed = {INPUT_NODE}
    for node in range(1, output_node):
        if any(source in fed for source in sources[node]):
            fed.add(node)
    used = {output_node}
    for node in range(output_node, 0, -1):
        if node in used:
            used.update(source for source in sources[node] if source in fed)
    alive = fed & used
    return Block(
        inputs=tuple(
            tuple(sorted(s for s in sources[n] if s in alive)) if n in alive else ()
            for n in range(1, output_node)
        ),
        output=tuple(sorted(s for s in sources[output_node] if s in alive)),
    )


def complete_block(space: SearchSpace) -> Block:
    """Return every edge alive: the supernet's block."""
    return close_block(space, space.edges)


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A network of the space: one `Block` per block (the same one everywhere in the share space)."""

    space: SearchSpace
    blocks: tuple[Block, ...]
    width: int
    """Channels of the first stage."""

    def __post_init__(self) -> None:
        if len(self.blocks) != self.space.num_blocks:
            raise UserError(f"{len(self.blocks)} blocks given, the space has {self.space.num_blocks}")
        if self.width < 1:
            raise UserError(f"width must be positive, not {self.width}")

    @property
    def num_edges(self) -> int:
        """Edges that are left, over all blocks."""
        return sum(block.num_edges for block in self.blocks)

    @property
    def searched_blocks(self) -> tuple[Block, ...]:
        """One block per λ set: the first in the share space, else all."""
        return self.blocks[: self.space.num_lambda_sets]

    @property
    def is_collapsed(self) -> bool:
        """Every block is the identity: nothing but stem, reductions and head is left."""
        return all(block.is_identity for block in self.blocks)

    def with_width(self, width: int) -> Architecture:
        return replace(self, width=width)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object that people can read; `architecture_from_json` reads it back."""
        space = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self.space).items()}
        return {
            "schema": SCHEMA,
            "width": self.width,
            "space": space,
            "blocks": [_block_to_json(self.space, block) for block in self.searched_blocks],
        }


def build_architecture(space: SearchSpace, searched: Sequence[Block], *, width: int) -> Architecture:
    """Return the network of these blocks, one per λ set: in the share space one stands everywhere."""
    blocks = tuple(searched) * (space.num_blocks if space.share else 1)
    return Architecture(space=space, blocks=blocks, width=width)


def complete_architecture(space: SearchSpace, *, width: int | None = None) -> Architecture:
    """Return the network with every edge alive."""
    block = complete_block(space)
    return Architecture(space=space, blocks=(block,) * space.num_blocks, width=width or space.channels)


def identity_architecture(space: SearchSpace, *, width: int | None = None) -> Architecture:
    """Return the network with every block pruned to the identity: the cheapest of the space."""
    block = close_block(space, ())
    return Architecture(space=space, blocks=(block,) * space.num_blocks, width=width or space.channels)


def node_name(space: SearchSpace, node: int) -> str:
    """`input`, or level and operation, e.g. `2.sep3` (levels from 1, as in the paper)."""
    if node == INPUT_NODE:
        return "input"
    return f"{space.level_of(node) + 1}.{space.operation_of(node).name}"


def _block_to_json(space: SearchSpace, block: Block) -> dict[str, list[str]]:
    named = {node_name(space, n): [node_name(space, s) for s in block.inputs[n - 1]] for n in block.nodes}
    named["output"] = [node_name(space, n) for n in block.output]
    return named


def architecture_from_json(data: object, *, origin: str = "architecture.json") -> Architecture:
    """Read what `Architecture.to_json` wrote; the file may come from anyone.

    Raises:
        UserError: anything that is not such an architecture.
    """
    try:
        if not isinstance(data, dict) or data.get("schema") != SCHEMA:
            raise UserError(f"schema {SCHEMA} expected")
        known = {f.name for f in fields(SearchSpace)}
        raw_space: dict[str, Any] = dict(data["space"])
        if unknown := set(raw_space) - known:
            raise UserError(f"unknown field of the space: {', '.join(map(repr, sorted(unknown)))}")
        sizes: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in raw_space.items()}
        for name, value in sizes.items():
            if not _is_like(value, getattr(_DEFAULT_SPACE, name)):
                raise UserError(f"the space's {name} is out of bounds or of another type")
        space = SearchSpace(**sizes)
        if space.num_blocks > 1000 or space.num_nodes > 1000 or not _is_like(data["width"], 1):
            raise UserError("sizes out of bounds")
        numbers = {node_name(space, n): n for n in range(space.num_nodes + 1)}
        numbers["output"] = space.num_nodes + 1
        known_edges = set(space.edges)
        blocks = []
        for raw in data["blocks"]:
            edges = [(numbers[s], numbers[t]) for t, sources in raw.items() for s in sources]
            if not known_edges.issuperset(edges):
                raise UserError("an edge that the space does not have")
            blocks.append(close_block(space, edges))
        if space.share:
            blocks = blocks[:1] * space.num_blocks
        return Architecture(space=space, blocks=tuple(blocks), width=data["width"])
    except UserError as error:
        raise UserError(f"{origin} is not an architecture: {error}") from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{origin} is not an architecture: {type(error).__name__} {error}") from None


_DEFAULT_SPACE = SearchSpace()


def _is_like(value: object, default: object) -> bool:
    """Whether `value` has the type of `default`, elements of tuples too, and numbers are below `MAX_SIZE`."""
    if isinstance(default, tuple):
        return isinstance(value, tuple) and all(_is_like(item, default[0]) for item in value)
    return type(value) is type(default) and (not isinstance(value, int) or value <= MAX_SIZE)
