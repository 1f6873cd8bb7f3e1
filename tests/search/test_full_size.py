"""One step on W and one on λ of the paper's full-size supernets, on the CPU at a tiny batch."""

from __future__ import annotations

import math

import pytest
import torch

from dsonas_hw.architecture.architecture import complete_architecture
from dsonas_hw.architecture.costs import TargetCosts
from dsonas_hw.config import build_config, load_preset
from dsonas_hw.search.adaptive import relative_gamma
from dsonas_hw.search.apg_nag import APGNAG
from dsonas_hw.search.step import lambda_gradient, weight_step
from dsonas_hw.search.supernet import Supernet
from dsonas_hw.train.images import space_of_config


@pytest.mark.slow
@pytest.mark.parametrize(
    ("preset", "num_blocks", "side", "channels"), [("cifar10", 24, 32, 48), ("imagenet", 23, 224, 28)]
)
def test_one_step_of_the_full_size_supernet(preset: str, num_blocks: int, side: int, channels: int) -> None:
    config = build_config(load_preset(preset))
    space = space_of_config(config)
    assert (space.num_blocks, space.input_shape, space.channels) == (num_blocks, (3, side, side), channels)
    torch.manual_seed(0)
    net = Supernet(space).train()
    search = config.search
    w_optimizer = torch.optim.SGD(
        net.weights(), lr=search.lr, momentum=search.momentum, nesterov=True, weight_decay=search.weight_decay
    )
    lam_optimizer = APGNAG([net.lam], lr=search.lam_lr, momentum=search.lam_momentum, gamma=search.gamma)
    images, labels = torch.randn(2, *space.input_shape), torch.tensor([0, 1])

    before = net.classifier.weight.detach().clone()
    loss, logits = weight_step(net, w_optimizer, (images, labels), search)
    assert logits.shape == (2, space.num_classes)
    assert math.isfinite(loss.item())
    assert not torch.equal(net.classifier.weight, before)

    gradient = lambda_gradient(net, (images, labels), search)
    assert gradient.shape == (1, 128)  # share: one λ set
    assert bool(torch.isfinite(gradient).all())
    assert bool((gradient != 0).all())
    gamma = relative_gamma(
        complete_architecture(space), TargetCosts(), adaptive=search.adaptive, cost=search.adaptive_cost
    )
    lam_optimizer.param_groups[0]["gamma"] = [gamma * search.gamma]
    lam_optimizer.step()
    assert bool((net.lam != 1).all())
    assert bool((net.lam > 0).all())
