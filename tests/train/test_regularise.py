"""The loss against its definition."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from dsonas_hw.train.regularise import classification_loss


def test_label_smoothing_by_hand():
    logits = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 2, 3, 0, 1])
    target = 0.9 * F.one_hot(labels, 4) + 0.1 / 4
    by_hand = -(target * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(classification_loss(logits, labels, label_smoothing=0.1), by_hand)


def test_auxiliary_loss_is_added_with_its_weight():
    logits, auxiliary = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 2, 0, 1])
    both = classification_loss(logits, labels, auxiliary_logits=auxiliary, auxiliary_weight=0.4)
    alone = F.cross_entropy(logits, labels) + 0.4 * F.cross_entropy(auxiliary, labels)
    torch.testing.assert_close(both, alone)
