"""What the stages of a run train, in steps and images, counted before anything runs.

    pretraining   epochs · (W images // batch)                   steps on W
    search        epochs · (W images // batch // w_steps)        steps on λ, w_steps on W for each
    selection     networks · epochs of their round · (W images // batch)
    retraining    epochs · (images // batch)                     steps on W

A search that has met its budget rests its λ, so its λ steps are the most there can be. Scoring and testing
are not counted.
"""

from __future__ import annotations

from dataclasses import dataclass

from dsonas_hw.config import RunConfig
from dsonas_hw.search.halving import selection_epochs


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


def pretraining_effort(config: RunConfig, num_images: int) -> Effort:
    """Count the pretraining of the supernet; num_images: of the training side."""
    steps = config.search.pretrain_epochs * (_w_images(config, num_images) // config.search.batch_size)
    return Effort(w_steps=steps, images=steps * config.search.batch_size)


def search_effort(config: RunConfig, num_images: int) -> Effort:
    """Count the search behind the pretraining."""
    cfg = config.search
    lam_steps = cfg.epochs * max(1, _w_images(config, num_images) // cfg.batch_size // cfg.w_steps)
    w_steps = cfg.w_steps * lam_steps
    return Effort(w_steps=w_steps, lam_steps=lam_steps, images=(w_steps + lam_steps) * cfg.batch_size)


def brief_effort(config: RunConfig, num_images: int, *, epochs: int | None = None) -> Effort:
    """Count brief trainings; epochs: over the images of W, all networks together; None: the selection's."""
    num_w, batch = _w_images(config, num_images), config.retrain.batch_size
    epochs = selection_epochs(config.select) if epochs is None else epochs
    steps = epochs * (num_w // min(batch, max(num_w, 1)))
    return Effort(w_steps=steps, images=steps * batch)


def retraining_effort(config: RunConfig, num_images: int) -> Effort:
    """Count the retraining."""
    recipe = config.retrain
    batch = min(recipe.batch_size, num_images)
    steps = recipe.epochs * (num_images // batch)
    return Effort(w_steps=steps, images=steps * batch)


def _w_images(config: RunConfig, num_images: int) -> int:
    for_w, for_lam = config.data.split_ratio if config.data.split else (1, 0)
    return num_images * for_w // (for_w + for_lam)
