"""The loss of a network that learns from a teacher beside the labels (Hinton et al. 2015).

loss = (1 − w) · loss of the labels + w · T² · KL(softmax(teacher / T) ‖ softmax(network / T))

T   temperature; T² keeps the gradient's size whatever T is
w   weight
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from dsonas_hw.config import DistillConfig


def distilled_loss(loss: Tensor, logits: Tensor, teacher_logits: Tensor, config: DistillConfig) -> Tensor:
    """Return the loss that the module describes.

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
