"""The part of a page that draws whichever architecture its reader points at, once the script is there.

Every edge that any architecture has is drawn once; an architecture is a mask of edges, and the script hides
the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dsonas_hw.architecture.architecture import Block, close_block
from dsonas_hw.report.draw import draw_block
from dsonas_hw.space.space import SearchSpace


@dataclass(frozen=True, kw_only=True)
class Shown:
    """An architecture that can be pointed at."""

    id: int
    """As in `Series.ids`."""
    text: str
    blocks: tuple[Block, ...]
    """Those that differ from each other by construction: one in the share space."""


@dataclass(frozen=True, kw_only=True)
class Explorer:
    """Architectures of one space to point at."""

    label: str
    space: SearchSpace
    shown: Sequence[Shown]
    start: int
    """Position of the one that is shown first."""

    def drawings(self) -> list[str]:
        """A drawing per block with every edge that any architecture has."""
        unions = [
            close_block(self.space, set().union(*(shown.blocks[n].edges for shown in self.shown)))
            for n in range(self.space.num_lambda_sets)
        ]
        return [draw_block(self.space, block) for block in unions]

    def data(self) -> dict[str, Any]:
        """What the script needs: the architectures as words and masks."""
        number = {edge: position for position, edge in enumerate(self.space.edges)}

        def mask(block: Block) -> str:
            return f"{sum(1 << number[edge] for edge in block.edges):x}"

        return {
            "points": [
                {"id": s.id, "text": s.text, "blocks": [mask(block) for block in s.blocks]}
                for s in self.shown
            ],
            "start": self.start,
            "edges": self.space.edges,
            "output": self.space.num_nodes + 1,
        }
