"""What every process of a search has: the supernet, its optimizer, the batches of W and of λ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from dsonas_hw.architecture.architecture import close_block
from dsonas_hw.config import RunConfig
from dsonas_hw.errors import UserError
from dsonas_hw.search.supernet import Supernet
from dsonas_hw.space.space import SearchSpace
from dsonas_hw.train import distributed
from dsonas_hw.train.data import Dataset
from dsonas_hw.train.data_batches import Batches
from dsonas_hw.train.data_images import Images
from dsonas_hw.train.loop import keep_freed_memory, loss_scaler, seed_everything


class SearchParts:
    """Made from the configuration alone, so alike in every process."""

    def __init__(self, config: RunConfig, space: SearchSpace, dataset: Dataset, device: torch.device) -> None:
        """
        Raises:
            UserError: too few images for one batch, or for the W steps of one λ step.
        """
        cfg = config.search
        keep_freed_memory()
        seed_everything(config.seed)
        self.config = config
        self.supernet = Supernet(
            space,
            free_bn_scale=cfg.free_bn_scale,
            path_strength=cfg.path_strength,
            checkpoint_activations=cfg.checkpoint_activations,
        ).to(device)
        self.w_optimizer = torch.optim.SGD(
            self.supernet.weights(), lr=cfg.lr, momentum=cfg.momentum, nesterov=cfg.momentum > 0,
            weight_decay=cfg.weight_decay,
        )  # fmt: skip
        self.scaler = loss_scaler(device, cfg.amp)
        w_images, self.lam_images = check_dataset(config, dataset)

        def batches(images: Images, seed: int) -> Batches:
            return Batches(
                images=images, dataset=dataset, batch_size=cfg.batch_size, seed=seed, drop_last=True,
                augmentation=dataset.augmentation, device=device, num_workers=config.data.num_workers,
                rank=distributed.rank(), world_size=distributed.world_size(),
            )  # fmt: skip

        self.w_batches = batches(w_images, config.seed)
        self.lam_batches = batches(self.lam_images, config.seed + 1)

    def set_lr(self, *, pretraining: bool) -> None:
        """The rate of W, which pretraining may have of its own."""
        cfg = self.config.search
        for group in self.w_optimizer.param_groups:
            group["lr"] = (cfg.pretrain_lr if pretraining else None) or cfg.lr

    def state_dict(self) -> dict[str, Any]:
        return {
            "model": self.supernet.state_dict(),
            "w_optimizer": self.w_optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take what `state_dict` gave, pruned alike."""
        space = self.supernet.space
        kept = [
            close_block(space, [e for e, on in zip(space.edges, row, strict=True) if on])
            for row in state["model"]["alive"].tolist()
        ]
        self.supernet.prune(kept, self.w_optimizer)
        self.supernet.load_state_dict(state["model"])
        self.w_optimizer.load_state_dict(state["w_optimizer"])
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(state["scaler"])
        self.supernet.silence_dead(self.supernet.blocks_of(self.supernet.lam))


def check_dataset(config: RunConfig, dataset: Dataset) -> tuple[Images, Images]:
    """The images of W and of λ; cheap, so that what is too small is refused before anything is measured.

    Raises:
        UserError: too few images for one batch, or for the W steps of one λ step.
    """
    ratio = config.data.split_ratio if config.data.split else None
    w_images, lam_images = dataset.split_for_search(ratio, seed=config.seed)
    _check_sizes(dataset.name, len(w_images), len(lam_images), config)
    return w_images, lam_images


def _check_sizes(name: str, num_w_images: int, num_lam_images: int, config: RunConfig) -> None:
    cfg = config.search
    if (smaller := min(num_w_images, num_lam_images)) < cfg.batch_size:
        raise UserError(
            f"{name}: the smaller part of the W:λ split has {smaller} images, fewer than one batch of "
            f"{cfg.batch_size}; give a smaller search.batch_size or more images"
        )
    if (num_batches := num_w_images // cfg.batch_size) < cfg.w_steps:
        raise UserError(
            f"{name}: an epoch has {num_batches} batches for W, fewer than search.w_steps={cfg.w_steps}; "
            "give fewer steps, a smaller search.batch_size or more images"
        )
