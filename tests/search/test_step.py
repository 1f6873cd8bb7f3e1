"""One step on W, one on λ: each leaves the other alone, and looking ahead changes nothing."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from dsonas_hw.config import SearchConfig
from dsonas_hw.search.apg_nag import APGNAG
from dsonas_hw.search.step import Batch, lambda_after, lambda_gradient, weight_step
from dsonas_hw.search.supernet import Supernet
from dsonas_hw.space.space import SearchSpace
from dsonas_hw.train.evaluate import batch_accuracy

SPACE = SearchSpace(levels=2, stages=(1, 1), channels=4, input_shape=(1, 8, 8), share=False)
CONFIG = SearchConfig()


def batch_of(seed: int = 0, size: int = 16) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(size, 1, 8, 8, generator=generator)
    return images, torch.randint(10, (size,), generator=generator)


def new_net() -> Supernet:
    torch.manual_seed(0)
    return Supernet(SPACE).train()


def frozen(net: Supernet) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in net.state_dict().items()}


def changed(net: Supernet, before: dict[str, Tensor]) -> set[str]:
    return {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}


def is_statistic(name: str) -> bool:
    return name.endswith(("running_mean", "running_var", "num_batches_tracked"))


def test_a_step_on_w_leaves_lambda() -> None:
    net = new_net()
    optimizer = torch.optim.SGD(net.weights(), lr=0.1, momentum=0.9)
    before = frozen(net)
    loss, logits = weight_step(net, optimizer, batch_of(), CONFIG)
    assert logits.shape == (16, 10)
    assert loss.item() == pytest.approx(F.cross_entropy(logits, batch_of()[1]).item())
    names = {n for n in changed(net, before) if not is_statistic(n)}
    assert names == {n for n, p in net.named_parameters() if n != "lam" and p.requires_grad}
    assert net.lam.grad is None


def test_a_gradient_of_lambda_leaves_w() -> None:
    net, config = new_net(), CONFIG
    net(batch_of()[0]).sum().backward()  # type: ignore[no-untyped-call]
    grads = {
        name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None and name != "lam"
    }
    before = frozen(net)
    gradient = lambda_gradient(net, batch_of(1), config)
    assert net.lam.grad is not None
    assert torch.equal(net.lam.grad, gradient)  # small enough not to be clipped
    assert gradient.abs().max() > 0
    assert all(is_statistic(name) for name in changed(net, before))
    for name, parameter in net.named_parameters():
        if name in grads:
            assert parameter.grad is not None
            assert torch.equal(parameter.grad, grads[name])


def test_gradients_are_clipped_elementwise() -> None:
    net = new_net()
    whole = lambda_gradient(copy.deepcopy(net), batch_of(), CONFIG)
    limit = float(whole.abs().median())
    lambda_gradient(net, batch_of(), SearchConfig(grad_clip=limit))
    clipped = net.lam.grad
    assert clipped is not None
    assert torch.equal(clipped, whole.clamp(-limit, limit))
    assert not torch.equal(clipped, whole)
    net = new_net()
    optimizer = torch.optim.SGD(net.weights(), lr=1.0)
    before = frozen(net)
    weight_step(net, optimizer, batch_of(), SearchConfig(grad_clip=1e-3))
    moved = [float((p.detach() - before[name]).abs().max()) for name, p in net.named_parameters()]
    assert max(moved) == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize("keep_momentum", [True, False])
@pytest.mark.parametrize("gamma", [0.0, 0.05, 3.0])
def test_looking_ahead_is_the_step_untaken(gamma: float, keep_momentum: bool) -> None:
    net = new_net()
    optimizer = APGNAG([net.lam], lr=0.1, momentum=0.9)
    optimizer.state[net.lam] = {}
    net.alive[0, :5] = False
    optimizer.param_groups[0]["alive"] = [net.alive]
    per_edge = gamma * torch.rand(net.lam.shape, generator=torch.Generator().manual_seed(1))
    optimizer.param_groups[0]["gamma"] = [per_edge]
    for seed in range(4):
        lambda_gradient(net, batch_of(seed), CONFIG)
        if not keep_momentum:
            optimizer.state[net.lam].pop("velocity", None)
        before = frozen(net), copy.deepcopy(optimizer.state_dict())
        ahead = lambda_after(net, optimizer, per_edge, keep_momentum=keep_momentum)
        assert changed(net, before[0]) == set()
        assert same(optimizer.state_dict(), before[1])
        optimizer.step()
        assert torch.equal(net.lam.detach(), ahead)
        assert not ahead[0, :5].any()


def same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


@pytest.mark.parametrize("training", [True, False])
def test_scoring_changes_nothing(training: bool) -> None:
    net = new_net().train(training)
    before, randomness = frozen(net), torch.get_rng_state()
    batches = [batch_of(0), batch_of(1, size=8)]
    accuracy = batch_accuracy(net, batches, amp="off")
    assert changed(net, before) == set()
    assert torch.equal(torch.get_rng_state(), randomness)
    assert net.training == training
    assert all(m.momentum == 0.1 for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d))
    copied = copy.deepcopy(net).train()
    right = sum(int((copied(images).argmax(1) == labels).sum()) for images, labels in batches)
    assert accuracy == right / 24


def test_scoring_restores_the_network_after_an_error() -> None:
    net = new_net()
    before = frozen(net)
    with pytest.raises(RuntimeError):
        batch_accuracy(net, [batch_of(), (torch.randn(2, 7, 8, 8), torch.zeros(2))], amp="off")
    assert changed(net, before) == set()
    assert all(m.momentum == 0.1 for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d))


def test_autocast_steps_are_finite() -> None:
    net, config = new_net(), SearchConfig(amp="bf16")
    optimizer = torch.optim.SGD(net.weights(), lr=0.1)
    for seed in range(3):
        loss, _ = weight_step(net, optimizer, batch_of(seed), config)
        assert torch.isfinite(loss)
        assert torch.isfinite(lambda_gradient(net, batch_of(seed), config)).all()
    assert all(p.dtype == torch.float32 for p in net.parameters())


def test_a_step_on_the_weights_computes_no_gradient_of_lambda() -> None:
    torch.manual_seed(0)
    net = Supernet(SearchSpace(levels=2, stages=(1,), channels=8, input_shape=(3, 8, 8))).train()
    optimizer = torch.optim.SGD(net.weights(), lr=0.1)
    batch = (torch.randn(2, 3, 8, 8), torch.tensor([0, 1]))
    weight_step(net, optimizer, batch, SearchConfig())
    assert net.lam.grad is None
    assert net.lam.requires_grad
    assert bool((lambda_gradient(net, batch, SearchConfig()) != 0).any())


def test_a_gradient_of_lambda_too_large_for_float16_lowers_the_scale_by_itself() -> None:
    """W's gradients may be small enough for a scale at which λ's are not; clipped, infinity would be ±2."""
    config = SearchConfig(amp="fp16")
    exact = lambda_gradient(new_net(), batch_of(), CONFIG).clone()
    net, scaler = new_net(), torch.amp.GradScaler("cpu", init_scale=2.0**60)
    scales = []
    while not bool(torch.isfinite(gradient := lambda_gradient(net, batch_of(), config, scaler)).all()):
        scales.append(scaler.get_scale())
        assert len(scales) < 60
    assert scales == [2.0**power for power in range(59, 59 - len(scales), -1)]
    assert len(scales) > 20
    assert (gradient - exact).norm() < 0.05 * exact.norm()  # rounding; a wrong scale would be a factor of 2
