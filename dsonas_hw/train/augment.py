"""Augmentation of whole batches at once, on tensors, drawn from a generator that the caller owns.

What is random is drawn first (`draw`, one row per image), then applied (`crop_and_flip`, `cut_out`): so a
rank of a distributed run draws for the whole batch and applies its own rows, and the result does not depend
on how the batch is shared out.

    uint8 images ── pad, crop, flip ──▶ uint8 ── normalise ──▶ float ── cut-out ──▶ float

The cut-out square is zero *after* normalising, which is the mean colour, as in DeVries & Taylor (2017).
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What is done to a training image; every field off by default."""

    flip: bool = False
    """Mirror half of the images left to right. Wrong for digits and text."""
    pad: int = 0
    """Pixels around an image in memory, before a crop of its own size."""
    fill: tuple[int, ...] = ()
    """Their grey level 0 … 255, of each channel; () for zeros."""
    cutout: int = 0
    """Side of the square that is blanked, in pixels; 0 for none. The square may hang over the border."""
    colour: float = 0.0
    """Image files only: brightness, contrast and saturation change by up to this fraction."""
    lighting: float = 0.0
    """Image files only: standard deviation of a change along the principal components of the colours."""

    def __post_init__(self) -> None:
        if self.pad < 0 or self.cutout < 0:
            raise ValueError(f"pad and cutout must not be negative, got {self.pad} and {self.cutout}")
        if any(not 0 <= level <= 255 for level in self.fill):
            raise ValueError(f"fill must lie in 0 … 255, got {self.fill}")
        if self.lighting < 0:
            raise ValueError(f"lighting must not be negative, got {self.lighting}")
        if not 0 <= self.colour < 1:
            raise ValueError(f"colour must lie in [0, 1), got {self.colour}")


@dataclass(frozen=True, kw_only=True)
class Draw:
    """What was drawn for each image of a batch; every tensor has shape (N,)."""

    top: Tensor
    """First row of the crop in the padded image, 0 … 2·pad."""
    left: Tensor
    flip: Tensor
    """Boolean."""
    cut_y: Tensor
    """Centre row of the cut-out square, 0 … H-1."""
    cut_x: Tensor

    def rows(self, rows: slice, device: torch.device) -> Draw:
        """Return the draws of some images of the batch, where the images are."""
        return Draw(**{f.name: onto(device, getattr(self, f.name)[rows]) for f in fields(self)})


def onto(device: torch.device, tensor: Tensor) -> Tensor:
    """Bring a tensor there; a GPU takes it in its turn, and the CPU goes on."""
    return tensor.to(device, non_blocking=device.type == "cuda")


def draw(
    augmentation: Augmentation, num_images: int, height: int, width: int, generator: torch.Generator
) -> Draw:
    """Draw everything that is random for a batch. Always takes the same amount from the generator."""

    def integers(high: int) -> Tensor:
        return torch.randint(high, (num_images,), generator=generator)

    return Draw(
        top=integers(2 * augmentation.pad + 1),
        left=integers(2 * augmentation.pad + 1),
        flip=integers(2).bool() & augmentation.flip,
        cut_y=integers(height),
        cut_x=integers(width),
    )


def crop_and_flip(images: Tensor, augmentation: Augmentation, drawn: Draw) -> Tensor:
    """Pad, crop back to the same size at the drawn offset, mirror where drawn.

    images: (N, C, H, W), any dtype; the result has the same shape and dtype.
    """
    if not augmentation.pad and not augmentation.flip:
        return images
    n, c, height, width = images.shape
    padded = _pad(images, augmentation) if augmentation.pad else images
    device = images.device
    rows = drawn.top[:, None] + torch.arange(height, device=device)  # (N, H)
    columns = torch.arange(width, device=device)
    columns = torch.where(drawn.flip[:, None], width - 1 - columns, columns)
    columns = columns + drawn.left[:, None]  # (N, W)
    flat = (rows[:, :, None] * padded.shape[3] + columns[:, None, :]).view(n, 1, -1)
    return padded.reshape(n, c, -1).gather(2, flat.expand(n, c, -1)).view(n, c, height, width)


def _pad(images: Tensor, augmentation: Augmentation) -> Tensor:
    if not any(augmentation.fill):
        return F.pad(images, [augmentation.pad] * 4)
    levels = zip(images.unbind(1), augmentation.fill, strict=True)
    return torch.stack(
        [F.pad(channel, [augmentation.pad] * 4, value=level) for channel, level in levels], dim=1
    )


def cut_out(images: Tensor, augmentation: Augmentation, drawn: Draw) -> Tensor:
    """Zero a square of `augmentation.cutout` pixels around the drawn centre, clipped at the border.

    images: (N, C, H, W), floating point, already normalised.
    """
    side = augmentation.cutout
    if not side:
        return images
    height, width = images.shape[2:]

    def inside(centre: Tensor, length: int) -> Tensor:
        first = centre[:, None] - side // 2
        position = torch.arange(length, device=images.device)
        return (position >= first) & (position < first + side)

    mask = inside(drawn.cut_y, height)[:, None, :, None] & inside(drawn.cut_x, width)[:, None, None, :]
    return images.masked_fill(mask, 0.0)
