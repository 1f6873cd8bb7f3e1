"""Loss and drop-path against their definitions."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from dsonas_hw.train.regularise import DropPath, classification_loss


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


def test_drop_path_drops_whole_samples_and_scales_the_others():
    torch.manual_seed(0)
    out = DropPath(0.4)(torch.ones(4000, 2, 3, 3))
    per_sample = out.flatten(1)
    assert torch.equal(per_sample.min(1).values, per_sample.max(1).values)
    torch.testing.assert_close(per_sample[:, 0].unique(), torch.tensor([0.0, 1 / 0.6]))
    assert abs(float(out.mean()) - 1) < 0.05  # the expectation is the input


def test_drop_path_does_nothing_in_evaluation_or_at_rate_0():
    x = torch.randn(8, 3)
    assert DropPath(0.5).eval()(x) is x
    assert DropPath(0.0)(x) is x


def test_drop_path_rate_can_be_raised_while_training():
    module = DropPath(0.0)
    module.rate = 0.999
    assert module(torch.ones(50, 1)).count_nonzero() < 5


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_senseless_rate_is_refused(rate: float):
    with pytest.raises(ValueError, match="drop-path rate"):
        DropPath(rate)
