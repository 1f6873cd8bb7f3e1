"""Choosing images by class: subsets and stratified splits.

Pure functions of labels and a seed; positions are returned sorted, so that a choice keeps the order of the
data and shuffling is left to `Batches`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dsonas_hw.errors import DataError
from dsonas_hw.train.seeding import seeded_generator


def choose_subset(labels: Tensor, num_images: int, *, seed: int) -> Tensor:
    """Return the positions of `num_images` images, as many of each class as there are to take.

    A class with fewer images than its part gives all of them, and the others make up for it. A smaller
    subset with the same seed is contained in a larger one.
    """
    if not 1 <= num_images <= len(labels):
        raise DataError(f"a subset of {num_images} images was asked for; give 1 to {len(labels)}")
    shuffled = torch.randperm(len(labels), generator=seeded_generator("subset", seed))
    by_class = shuffled[labels[shuffled].argsort(stable=True)]  # class by class, shuffled within
    counts = torch.bincount(labels)
    rank = torch.arange(len(labels)) - (counts.cumsum(0) - counts)[labels[by_class]]
    return by_class[rank.argsort(stable=True)[:num_images]].sort().values


def split_by_class(labels: Tensor, ratio: tuple[float, float], *, seed: int) -> tuple[Tensor, Tensor]:
    """Split positions in two disjoint parts that hold every class in the same ratio.

    Each class is off its exact part by less than one image, and so is the total, except that a class of two
    or more images always has one on either side. A class of one image is on one side only.
    """
    if not all(part > 0 for part in ratio):
        raise DataError(f"both parts of a split ratio must be positive, got {ratio[0]}:{ratio[1]}")
    fraction = ratio[0] / (ratio[0] + ratio[1])
    generator = seeded_generator("split", seed)
    first: list[Tensor] = []
    second: list[Tensor] = []
    seen = 0
    for label in range(int(labels.max()) + 1):
        members = (labels == label).nonzero().flatten()
        members = members[torch.randperm(len(members), generator=generator)]
        # Rounding the running total keeps the sum right where rounding each class would not.
        num_first = round((seen + len(members)) * fraction) - round(seen * fraction)
        seen += len(members)
        if len(members) > 1:
            num_first = min(max(num_first, 1), len(members) - 1)
        first.append(members[:num_first])
        second.append(members[num_first:])
    return torch.cat(first).sort().values, torch.cat(second).sort().values
