"""The loss with a teacher against its closed form."""

from __future__ import annotations

import pytest
import torch

from dsonas_hw.config import DistillConfig
from dsonas_hw.train.regularise import distilled_loss


def test_against_the_sum_over_classes() -> None:
    torch.manual_seed(0)
    logits, teacher, labels_loss = torch.randn(5, 4), torch.randn(5, 4), torch.tensor(1.7)
    config = DistillConfig(temperature=3.0, weight=0.3)
    p, q = (teacher / 3).softmax(1), (logits / 3).softmax(1)
    divergence = (p * (p / q).log()).sum(1).mean()
    expected = 0.7 * 1.7 + 0.3 * 9 * divergence
    assert distilled_loss(labels_loss, logits, teacher, config) == pytest.approx(float(expected), rel=1e-5)


def test_a_network_that_agrees_has_only_the_labels_left() -> None:
    logits = torch.randn(3, 10)
    config = DistillConfig(temperature=2.0, weight=0.25)
    assert distilled_loss(torch.tensor(2.0), logits, logits + 5.0, config) == pytest.approx(1.5, abs=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 8.0, 64.0])
def test_the_gradient_keeps_its_size_at_high_temperatures(temperature: float) -> None:
    """For large T the gradient is (logits − teacher) / classes, both centred (Hinton et al. 2015, Eq. 4)."""
    torch.manual_seed(1)
    logits, teacher = 0.01 * torch.randn(1, 6), 0.01 * torch.randn(1, 6)
    logits.requires_grad_()
    loss = distilled_loss(
        torch.tensor(0.0), logits, teacher, DistillConfig(temperature=temperature, weight=1)
    )
    loss.backward()
    difference = logits.detach() - teacher
    expected = (difference - difference.mean()) / 6
    assert torch.allclose(logits.grad, expected, atol=2e-5)  # type: ignore[arg-type]
