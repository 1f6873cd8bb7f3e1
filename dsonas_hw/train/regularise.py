"""What keeps a network from fitting noise: label smoothing, an auxiliary loss, drop-path."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dsonas_hw.train.distributed import draw_share, shares_batches


def classification_loss(
    logits: Tensor,
    labels: Tensor,
    *,
    auxiliary_logits: Tensor | None = None,
    auxiliary_weight: float = 0.4,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Mean cross-entropy, plus that of the auxiliary head times its weight.

    logits, auxiliary_logits: (N, num_classes); labels: (N,), int64.
    """
    loss = F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
    if auxiliary_logits is not None:
        loss = loss + auxiliary_weight * F.cross_entropy(
            auxiliary_logits, labels, label_smoothing=label_smoothing
        )
    return loss


class Dropout(nn.Dropout):
    """torch's; where processes share the batch, each draws for all of it, as one process would."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0 or not shares_batches():
            return super().forward(x)
        keep = 1 - self.p
        mask = draw_share(lambda images: x.new_empty(images, *x.shape[1:]).bernoulli_(keep), len(x))
        return x * mask / keep


class DropPath(nn.Module):
    """Drops a whole branch for some samples of the batch and scales it up for the others.

    In expectation the output is the input. Draws from torch's global generator of the device; does nothing in
    evaluation. `rate` may be changed while training (DARTS and its kin raise it linearly over the epochs).
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"drop-path rate must lie in [0, 1), got {rate}")
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        keep = 1 - self.rate
        ones = (1,) * (x.ndim - 1)
        drawn = draw_share(lambda images: torch.rand((images, *ones), device=x.device), len(x))
        return x * (drawn < keep).to(x.dtype) / keep

    def extra_repr(self) -> str:
        return f"rate={self.rate}"
