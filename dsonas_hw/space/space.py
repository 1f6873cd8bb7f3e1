"""The search space: which networks there are.

A network is stem → stages of blocks, a reduction block between stages → head. A block has M levels of N
operations; node (i, j) sums the block input and every operation of earlier levels, each scaled by its λ
(DSO-NAS, Eq. 1-4).

Node numbers of a block: 0 is the block input; operation j of level i (both from 0) is 1 + i·N + j; the
output is not numbered.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, get_args

from dsonas_hw.errors import UserError
from dsonas_hw.space.operations import Operation, get_operation

INPUT_NODE = 0
StemKind = Literal["cifar", "strided", "imagenet"]
STEMS: tuple[StemKind, ...] = get_args(StemKind)
"""By how often they halve the image: never, once, twice."""


@dataclass(frozen=True, kw_only=True)
class SearchSpace:
    """Sizes of the complete network, and what of it is searched.

    Raises:
        UserError: sizes that make no network.
    """

    levels: int = 4
    operations: tuple[str, ...] = ("sep3", "sep5", "avg3", "max3")
    stages: tuple[int, ...] = (8, 8, 8)
    """Blocks of each stage."""
    channels: int = 48
    """Of the first stage, in search; every reduction doubles them."""
    stem: StemKind = "cifar"
    """One 3×3 convolution (`strided`: of stride 2), or two of stride 2 (C/2, C)."""
    input_shape: tuple[int, int, int] = (3, 32, 32)
    num_classes: int = 10
    share: bool = True
    """One λ set for all blocks (share) or one for each block (full)."""
    first_level_lambda: bool = True
    """Whether edges from the block input into level 1 carry a λ (Eq. 3); the authors' release has none."""
    stage_shortcut: bool = False
    """The release's 1×1 Conv-BN-ReLU shortcut in the first block of every stage."""
    width_step: int = 4
    """Deployment widths are multiples of it."""
    max_width: int = field(default=0)
    """Largest deployment width (first-stage channels); 0 means four times `channels`."""

    def __post_init__(self) -> None:
        if self.levels < 1 or not self.operations or not self.stages:
            raise UserError("a search space needs at least one level, one operation and one stage")
        for name in self.operations:
            get_operation(name)
        if len(set(self.operations)) != len(self.operations):
            raise UserError(f"operations are listed twice: {', '.join(self.operations)}")
        if min(self.stages) < 1 or self.channels < 1 or self.width_step < 1 or self.num_classes < 2:
            raise UserError("stages, channels and width_step must be positive, num_classes at least 2")
        if self.channels % self.width_step:
            raise UserError(
                f"channels={self.channels} is not a multiple of width_step={self.width_step}; change one"
            )
        if self.stem not in STEMS:
            raise UserError(f"unknown stem {self.stem!r}; there are {', '.join(STEMS)}")
        if self.stem == "imagenet" and self.width_step % 2:
            raise UserError("the imagenet stem halves the width: width_step must be even")
        if self.max_width and self.max_width < self.width_step:
            raise UserError(f"max_width={self.max_width} is below width_step={self.width_step}")
        if min(self.input_shape, default=0) < 1:
            raise UserError(f"images of shape {self.input_shape} have no pixels")
        if min(self.resolution(len(self.stages) - 1)) < 1:
            raise UserError(
                f"images of {self.input_shape[1]}×{self.input_shape[2]} are too small for "
                f"{len(self.stages)} stages: use fewer stages or larger images"
            )

    # -- blocks --------------------------------------------------------------------------------------

    @cached_property
    def operation_list(self) -> tuple[Operation, ...]:
        return tuple(get_operation(name) for name in self.operations)

    @property
    def num_nodes(self) -> int:
        """Operations of a block: M·N."""
        return self.levels * len(self.operations)

    def node(self, level: int, index: int) -> int:
        """Number of operation `index` of `level` (both from 0)."""
        return 1 + level * len(self.operations) + index

    def level_of(self, node: int) -> int:
        return (node - 1) // len(self.operations)

    def operation_of(self, node: int) -> Operation:
        return self.operation_list[(node - 1) % len(self.operations)]

    def sources(self, node: int) -> range:
        """Nodes that may feed `node`: the input and every operation of earlier levels."""
        return range(0, 1 + self.level_of(node) * len(self.operations))

    @cached_property
    def edges(self) -> tuple[tuple[int, int], ...]:
        """(source, target) of every edge that may carry a λ, in the order of the λ vector.

        Edges into operations come first, by target; then one edge from each operation into the output,
        whose target is numbered `num_nodes + 1`.
        """
        inner = [(s, t) for t in range(1, self.num_nodes + 1) for s in self.sources(t)]
        outer = [(s, self.num_nodes + 1) for s in range(1, self.num_nodes + 1)]
        return tuple(inner + outer)

    # -- the network ---------------------------------------------------------------------------------

    @property
    def num_blocks(self) -> int:
        return sum(self.stages)

    @property
    def num_lambda_sets(self) -> int:
        return 1 if self.share else self.num_blocks

    def resolution(self, stage: int) -> tuple[int, int]:
        """Height and width of the feature maps of a stage."""
        _, height, width = self.input_shape
        halvings = stage + STEMS.index(self.stem)
        for _ in range(halvings):
            height, width = (height + 1) // 2, (width + 1) // 2
        return height, width

    def widths(self) -> range:
        """Deployment widths: first-stage channels, from the narrowest to the widest."""
        widest = self.max_width or 4 * self.channels
        return range(self.width_step, widest + 1, self.width_step)

    def log10_size(self) -> float:
        """log10 of the number of edge subsets: 2 to the number of searched λ."""
        searched = len(self.edges) - (0 if self.first_level_lambda else len(self.operations))
        return self.num_lambda_sets * searched * 0.30102999566398120
