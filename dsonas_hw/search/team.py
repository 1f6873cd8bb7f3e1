"""What all processes of a search do together: steps on W, gradients of λ, moves of λ, pruning.

Every rank has a `SearchTeam` and runs the same methods. Rank 0 decides which: each method first says its name
(`train.distributed`), and the helpers run it as they hear it (`follow`). One process is a team without
helpers.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dsonas_hw.search.parts import SearchParts
from dsonas_hw.search.step import lambda_gradient, weight_step
from dsonas_hw.train import distributed
from dsonas_hw.train.data_batches import BatchCursor
from dsonas_hw.train.loop import EpochMeter


class SearchTeam:
    """The steps of a search, each on this rank's share of the batch."""

    def __init__(self, parts: SearchParts, device: torch.device) -> None:
        self.parts = parts
        self.supernet = parts.supernet
        self.device = device
        self.meter = EpochMeter(device)
        """Loss and accuracy on the images of W since the epoch began."""
        self._w_batches, self._lam_batches = BatchCursor(parts.w_batches), BatchCursor(parts.lam_batches)

    def step_weights(self, epoch: int, step: int) -> None:
        """Take one SGD step on W, with batch number `step` of an epoch."""
        distributed.broadcast(distributed.STEP, epoch, step)
        config = self.parts.config.search
        self.parts.set_lr(pretraining=epoch < config.pretrain_epochs)
        batch = self._w_batches.at(epoch, step)
        loss, logits = weight_step(self.supernet, self.parts.w_optimizer, batch, config, self.parts.scaler)
        self.meter.update(step, loss, logits, batch[1])

    def lambda_gradient(self, lam_step: int) -> Tensor:
        """Return ∇G(λ) on the images of λ; clipped it is left in `supernet.lam.grad`."""
        distributed.broadcast(distributed.LAMBDA, lam_step)
        batch = self._lam_batches.at(*divmod(lam_step, len(self.parts.lam_batches)))
        return lambda_gradient(self.supernet, batch, self.parts.config.search, self.parts.scaler)

    def share_lambda(self) -> None:
        """Take rank 0's λ, and silence what is dead by them: also where momentum raised a λ that is dead."""
        distributed.broadcast(distributed.MOVED)
        distributed.send_(self.supernet.lam.data)
        self.supernet.silence_dead(self.supernet.blocks_of(self.supernet.lam))

    def prune(self) -> None:
        """Remove what is dead from the supernet and from the optimizer of W."""
        distributed.broadcast(distributed.PRUNE)
        self.supernet.prune(self.supernet.blocks_of(self.supernet.lam), self.parts.w_optimizer)

    def collect(self) -> None:
        """Bring what the helpers' meters hold to rank 0."""
        distributed.broadcast(distributed.COLLECT)
        self.meter.collect()

    def follow(self) -> None:
        """Do what rank 0 says, until it says that the search is done."""
        self.supernet.train()
        while True:
            match distributed.receive():
                case (distributed.STEP, epoch, step):
                    self.step_weights(epoch, step)
                case (distributed.LAMBDA, lam_step, _):
                    self.lambda_gradient(lam_step)
                case (distributed.MOVED, _, _):
                    self.share_lambda()
                case (distributed.PRUNE, _, _):
                    self.prune()
                case (distributed.COLLECT, _, _):
                    self.collect()
                case _:
                    return
