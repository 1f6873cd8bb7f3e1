"""Activation checkpointing and mixed precision: the same steps for less memory."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from dsonas_hw.config import SearchConfig, build_config
from dsonas_hw.errors import UserError
from dsonas_hw.search.step import Batch, lambda_gradient, weight_step
from dsonas_hw.search.supernet import Supernet
from dsonas_hw.space.space import SearchSpace
from dsonas_hw.train.evaluate import batch_accuracy
from dsonas_hw.train.loop import loss_scaler

SPACE = SearchSpace(levels=2, stages=(1, 2), channels=8, input_shape=(3, 8, 8), stage_shortcut=True)
CONFIG = SearchConfig()


def new_net(*, checkpoint_activations: bool) -> Supernet:
    torch.manual_seed(0)
    return Supernet(SPACE, checkpoint_activations=checkpoint_activations).train()


def batch() -> Batch:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(8, 3, 8, 8, generator=generator), torch.randint(10, (8,), generator=generator)


def test_checkpointed_steps_are_the_same_bit_for_bit_and_count_statistics_once() -> None:
    nets = [new_net(checkpoint_activations=on) for on in (False, True)]
    for net in nets:
        optimizer = torch.optim.SGD(net.weights(), lr=0.1, momentum=0.9)
        for step in range(3):
            weight_step(net, optimizer, batch(), CONFIG)
            net.lam.data -= lambda_gradient(net, batch(), CONFIG)
            if step == 1:
                net.lam.data[0, ::3] = 0.0
                net.prune(net.blocks_of(net.lam), optimizer)
    states = [net.state_dict() for net in nets]
    assert states[0].keys() == states[1].keys()
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name
    counted = [m.num_batches_tracked for m in nets[1].modules() if isinstance(m, nn.BatchNorm2d)]
    assert set(map(int, counted)) == {6}  # 3 steps on W, 3 on λ


def test_only_the_inputs_of_blocks_are_kept() -> None:
    kept = []
    for on in (False, True):
        net, sizes = new_net(checkpoint_activations=on), []

        def count(tensor: torch.Tensor, sizes: list[int] = sizes) -> torch.Tensor:
            sizes.append(tensor.untyped_storage().nbytes())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda t: t):
            net(batch()[0])
        kept.append(sum(sizes))
    assert kept[1] < 0.3 * kept[0]


def test_scoring_leaves_the_statistics_alone() -> None:
    net = new_net(checkpoint_activations=False)
    before = copy.deepcopy(net.state_dict())
    assert 0.0 <= batch_accuracy(net, [batch()], amp="off") <= 1.0
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_mixed_precision_learns(amp: str) -> None:
    net, config = new_net(checkpoint_activations=True), SearchConfig(amp=amp)
    optimizer = torch.optim.SGD(net.weights(), lr=0.02, momentum=0.9)
    scaler = loss_scaler(torch.device("cpu"), config.amp)
    losses = [weight_step(net, optimizer, batch(), config, scaler)[0].item() for _ in range(12)]
    assert losses[-1] < 0.8 * losses[0]
    reference = copy.deepcopy(net)
    exact = lambda_gradient(reference, batch(), CONFIG)
    found = lambda_gradient(net, batch(), config, scaler)
    assert found.dtype == torch.float32
    assert float((found - exact).norm() / exact.norm()) < 0.3


def test_the_loss_is_scaled_with_float16_only() -> None:
    assert loss_scaler(torch.device("cpu"), "fp16").get_scale() > 1000
    assert not loss_scaler(torch.device("cpu"), "bf16").is_enabled()
    assert not loss_scaler(torch.device("cpu"), "off").is_enabled()


def test_an_overflow_skips_the_step_and_lowers_the_scale() -> None:
    net, config = new_net(checkpoint_activations=False), SearchConfig(amp="fp16")
    optimizer = torch.optim.SGD(net.weights(), lr=0.02)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**60)
    before = net.classifier.weight.detach().clone()
    weight_step(net, optimizer, batch(), config, scaler)
    assert torch.equal(net.classifier.weight, before)
    assert scaler.get_scale() < 2.0**60


@pytest.mark.parametrize(("given", "meant"), [(True, "bf16"), (False, "off"), ("fp16", "fp16")])
def test_amp_reads_what_yaml_makes_of_it(given: object, meant: str) -> None:
    assert build_config({"preset": "digits", "search": {"amp": given}}).search.amp == meant


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(UserError, match=r"search\.amp"):
        build_config({"preset": "digits", "search": {"amp": "fp8"}})
