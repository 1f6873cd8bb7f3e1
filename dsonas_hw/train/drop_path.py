"""Drop-path on the edges of a derived network, as Pham et al. (2018) and the authors' release have it.

    an edge    into an operation that sums two or more inputs, or from an operation to its block's output
    dropped    with probability   rate · (l + 1) / (L + 2) · (step + 1) / steps
               l: levels before its block; L: levels of the network; a reduction counts as a block

Each edge is dropped for some images of a batch and scaled up for the others, so that its expectation stays.
The release drops a branch of the output behind its 1×1 convolution, here it is dropped before: the
convolution has no bias, so it is the same. What is drawn depends on (seed, epoch, step) alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dsonas_hw.architecture.architecture import Architecture
from dsonas_hw.architecture.graph import BlockSegment, list_segments
from dsonas_hw.train.distributed import draw_rows
from dsonas_hw.train.seeding import seeded_generator


@dataclass(frozen=True, kw_only=True)
class DropEdges:
    """The edges of a network that may be dropped, numbered."""

    of_node: Mapping[str, range]
    """Node of the graph → the numbers of its inputs, in their order."""
    depths: tuple[float, ...]
    """(l + 1) / (L + 2) of every edge."""


def find_drop_edges(architecture: Architecture) -> DropEdges:
    """Find every edge that may be dropped, in the order of the graph."""
    space = architecture.space
    num_levels = space.levels * (space.num_blocks + len(space.stages)) + 2
    of_node: dict[str, range] = {}
    depths: list[float] = []
    units = -1  # blocks and reductions before this one; the stem is none
    for name, segment in list_segments(architecture):
        if isinstance(segment, BlockSegment):
            depth = (space.levels * units + 1) / (num_levels + 2)
            for node in segment.nodes(name, ""):
                is_sum = node.op == "sum" and node.name != f"{name}.out"
                is_output = node.name == (
                    f"{name}.concat" if len(segment.block.output) > 1 else f"{name}.merge"
                )
                if is_sum or is_output:
                    of_node[node.name] = range(len(depths), len(depths) + len(node.inputs))
                    depths += [depth] * len(node.inputs)
        units += 1
    return DropEdges(of_node=of_node, depths=tuple(depths))


def draw_drop_masks(
    edges: DropEdges, *, rate: float, progress: float, num_images: int, name: tuple[int, int, int]
) -> Tensor:
    """Draw what each edge is multiplied with, for this process's rows of a batch.

    progress: (step + 1) / steps, in (0, 1]; name: seed, epoch, step. Returns shape (edges, num_images, 1, 1,
    1), on the CPU: 0 where an edge is dropped, else 1 / (1 − probability).
    """
    generator = seeded_generator("drop-path", *name)
    keep = 1 - rate * progress * torch.tensor(edges.depths)
    drawn = draw_rows(lambda n: torch.rand(n, len(keep), generator=generator), num_images)
    return ((drawn < keep) / keep).T.contiguous()[:, :, None, None, None]
