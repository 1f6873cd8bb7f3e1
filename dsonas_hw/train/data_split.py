"""Choosing images by class: subsets, stratified splits, and the W / λ split of the search.

Pure functions of labels and a seed; positions are returned sorted, so that a choice keeps the order of the
data and shuffling is left to `Batches`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dsonas_hw.errors import DataError
from dsonas_hw.train.seeding import seeded_generator

if TYPE_CHECKING:
    from dsonas_hw.train.data import Dataset
    from dsonas_hw.train.data_images import Images


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


def split_for_search(
    dataset: Dataset, ratio: tuple[float, float] | None = (1, 1), *, seed: int = 0
) -> tuple[Images, Images]:
    """Return the training images that teach the weights W, and those that teach λ.

    ratio: W:λ, (1, 1) or (4, 1) in the paper. None is the "no split" ablation: both are the whole set.

    Raises:
        DataError: a class would have no images on one side; named in the message.
    """
    if ratio is None:
        return dataset.train, dataset.train
    parts = split_by_class(dataset.train.labels, ratio, seed=seed)
    for part, learner in zip(parts, ("weights", "λ"), strict=True):
        counts = torch.bincount(dataset.train.labels[part], minlength=dataset.num_classes)
        for label, count in enumerate(counts.tolist()):
            if count == 0:
                total = int((dataset.train.labels == label).sum())
                raise DataError(
                    f"class {dataset.class_names[label]!r} of {dataset.name} has {total} training image(s), "
                    f"so none for the {learner} half of the {ratio[0]:g}:{ratio[1]:g} split; add images "
                    "of it, remove the class, take a larger subset, or search without a split"
                )
    return dataset.train.take(parts[0]), dataset.train.take(parts[1])
