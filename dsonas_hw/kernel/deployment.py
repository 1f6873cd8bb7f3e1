"""Which kernels a runtime runs for a network: fusion and layouts.

A runtime may keep tensors in blocks of channels, padded to whole blocks, and reorder them where a kernel
cannot follow. Such rules stand with their runtime, which derives from `Deployment`; all ask through it.
"""

from __future__ import annotations

from dataclasses import dataclass

from dsonas_hw.kernel.network import Schedule
from dsonas_hw.kernel.spec import Kernel, Shape


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """A runtime that runs the kernels as they are given, in one layout."""

    block_size: int = 0
    """Channels of one block; 0 where tensors are never in blocks."""

    fuses: bool = True
    """It runs kernels with batch norms and activations inside; False: each on its own."""

    def kernels(
        self, schedule: Schedule, *, blocked_inputs: bool = False, is_part: bool = False
    ) -> tuple[Kernel, ...]:
        """Return the kernels that run for a network, or for a part of one.

        blocked_inputs: the inputs are already in blocks, as between parts of a network.
        is_part: the outputs may stay in blocks, because another part goes on.
        """
        return tuple(step.kernel for step in schedule.kernels)

    @property
    def alignment(self) -> int:
        """Channels of a tensor that is reordered into blocks must be a multiple of it."""
        return 1

    def is_regular(self, channels: int) -> bool:
        """Return whether tensors of so many channels can be in blocks, and reordered at will."""
        return bool(self.block_size) and channels % self.alignment == 0

    def padded(self, channels: int) -> int:
        """Return the channels of such a tensor in blocks."""
        return -(-channels // self.block_size) * self.block_size if self.block_size else channels

    def reorder(self, shape: Shape, *, into_blocks: bool) -> Kernel:
        """Return the kernel that changes the layout of a tensor of this shape (N, C, H, W)."""
        raise NotImplementedError("there is one layout")
