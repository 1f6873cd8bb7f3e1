"""What keeps a network from fitting noise: label smoothing, an auxiliary loss, a teacher, dropout."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from dsonas_hw.config import DistillConfig
from dsonas_hw.train.distributed import draw_rows, shares_batches


def classification_loss(
    logits: Tensor,
    labels: Tensor,
    *,
    auxiliary_logits: Tensor | None = None,
    auxiliary_weight: float = 0.4,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Return the mean cross-entropy, plus that of the auxiliary head times its weight.

    logits, auxiliary_logits: (N, num_classes); labels: (N,), int64.
    """
    loss = F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
    if auxiliary_logits is not None:
        loss = loss + auxiliary_weight * F.cross_entropy(
            auxiliary_logits, labels, label_smoothing=label_smoothing
        )
    return loss


def distilled_loss(loss: Tensor, logits: Tensor, teacher_logits: Tensor, config: DistillConfig) -> Tensor:
    """Return the loss of a network that learns from a teacher beside the labels (Hinton et al. 2015).

    (1 − w) · loss of the labels + w · T² · KL(softmax(teacher / T) ‖ softmax(network / T)), w and T of
    `config`; T² keeps the gradient's size whatever T is.

    loss: of the labels, (); logits, teacher_logits: (N, num_classes).
    """
    temperature = config.temperature
    divergence = F.kl_div(
        F.log_softmax(logits / temperature, dim=1),
        F.log_softmax(teacher_logits / temperature, dim=1),
        reduction="batchmean",
        log_target=True,
    )
    return (1 - config.weight) * loss + config.weight * temperature**2 * divergence


class Dropout(nn.Dropout):
    """torch's; where processes share the batch, each draws for all of it, as one process would."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0 or not shares_batches():
            return super().forward(x)
        keep = 1 - self.p
        mask = draw_rows(lambda images: x.new_empty(images, *x.shape[1:]).bernoulli_(keep), len(x))
        return x * mask / keep
