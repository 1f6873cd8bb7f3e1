"""What a job would cost to run, in steps and images, known before anything runs.

    pretraining   epochs · (W images // batch)                   steps on W
    search        epochs · (W images // batch // w_steps)        steps on λ, w_steps on W for each
    selection     networks · epochs · (W images // batch)        steps on W
    retraining    epochs · (images // batch)                     steps on W

A search that has met its budget rests its λ, so its λ steps are the most there can be. Scoring and testing
are not counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from dsonas_hw.config import DataConfig, RunConfig, build_config
from dsonas_hw.search.halving import selection_epochs, unhalved_epochs
from dsonas_hw.study.hand_made import SEARCHED
from dsonas_hw.study.spec import Job

NUM_TRAIN: Mapping[str, int] = {
    "digits": 1438, "fashion-mnist": 60_000, "cifar10": 50_000, "cifar100": 50_000, "imagenet": 1_281_167,
}  # fmt: skip
"""Training images of the named datasets, so that they need not be there."""


@dataclass(frozen=True, kw_only=True)
class Effort:
    """Steps, each on one batch, and the images in them."""

    w_steps: int = 0
    lam_steps: int = 0
    images: int = 0

    def __add__(self, other: Effort) -> Effort:
        return Effort(
            w_steps=self.w_steps + other.w_steps,
            lam_steps=self.lam_steps + other.lam_steps,
            images=self.images + other.images,
        )

    def __str__(self) -> str:
        lam = f" and {self.lam_steps:,} on λ" if self.lam_steps else ""
        return f"{self.w_steps:,} steps on W{lam}, {self.images:,} images"


def count_effort(job: Job) -> Effort:
    """Count what a job trains; nothing for one that only derives or measures.

    Raises:
        DataError: a folder of images that is not there.
    """
    config = build_config(job.config)
    num_images = _num_train(config.data)
    match job.kind:
        case "pretrain":
            return _pretraining(config, num_images)
        case "search":
            begins = Effort() if job.needs else _pretraining(config, num_images)
            return begins + _search(config, num_images)
        case "train" | "searched" | "random" | "transferred" | "teacher" | "fitted":
            return _retraining(config, num_images)
        case "fit" if job.network == SEARCHED:
            return _brief(config, num_images, selection_epochs(config.select))
        case "choose":  # for as long as search and selection: told as their steps
            selection = _brief(config, num_images, selection_epochs(config.select))
            return _pretraining(config, num_images) + _search(config, num_images) + selection
        case "evaluate":  # the most that there can be: no network is on two slates
            networks = config.select.candidates * len(job.devices) * len(job.budgets)
            return _brief(config, num_images, networks * unhalved_epochs(config.select))
    return Effort()


def _pretraining(config: RunConfig, num_images: int) -> Effort:
    steps = config.search.pretrain_epochs * _w_batches(config, num_images)
    return Effort(w_steps=steps, images=steps * config.search.batch_size)


def _search(config: RunConfig, num_images: int) -> Effort:
    cfg = config.search
    lam_steps = cfg.epochs * max(1, _w_batches(config, num_images) // cfg.w_steps)
    w_steps = cfg.w_steps * lam_steps
    return Effort(w_steps=w_steps, lam_steps=lam_steps, images=(w_steps + lam_steps) * cfg.batch_size)


def _brief(config: RunConfig, num_images: int, epochs: int) -> Effort:
    """So many epochs of brief trainings, over the images of W."""
    w, lam = config.data.split_ratio
    for_w = num_images * w // (w + lam)
    batch = min(config.retrain.batch_size, for_w)
    steps = epochs * (for_w // batch)
    return Effort(w_steps=steps, images=steps * batch)


def _retraining(config: RunConfig, num_images: int) -> Effort:
    recipe = config.retrain
    batch = min(recipe.batch_size, num_images)
    steps = recipe.epochs * (num_images // batch)
    return Effort(w_steps=steps, images=steps * batch)


def _w_batches(config: RunConfig, num_images: int) -> int:
    """Batches of W in an epoch of the search."""
    for_w, for_lam = config.data.split_ratio if config.data.split else (1, 0)
    return num_images * for_w // (for_w + for_lam) // config.search.batch_size


@lru_cache(maxsize=64)
def _num_train(data: DataConfig) -> int:
    known = NUM_TRAIN.get(data.dataset)
    if known is None:
        from dsonas_hw.train.data import load_dataset

        return len(load_dataset(data.dataset, image_size=data.image_size, subset=data.subset).train)
    return min(known, data.subset or known)
