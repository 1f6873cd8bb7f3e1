"""Training on a real GPU takes the steps that it takes on the CPU."""

from __future__ import annotations

import copy

import pytest
import torch

from dsonas_hw.config import SearchConfig
from dsonas_hw.runtime.detect import DetectedDevice
from dsonas_hw.search.step import lambda_gradient, weight_step
from dsonas_hw.search.supernet import Supernet
from dsonas_hw.space.space import SearchSpace

pytestmark = pytest.mark.gpu
SPACE = SearchSpace(levels=2, stages=(1, 1), channels=8, input_shape=(3, 8, 8))


@pytest.fixture(autouse=True)
def _without_tf32(gpu: DetectedDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def test_a_search_step_on_the_gpu_is_that_of_the_cpu() -> None:
    torch.manual_seed(0)
    on_cpu = Supernet(SPACE).train()
    on_gpu = copy.deepcopy(on_cpu).to("cuda").train()
    images, labels = torch.randn(4, *SPACE.input_shape), torch.tensor([0, 1, 2, 3])
    for net in (on_cpu, on_gpu):
        device = next(net.parameters()).device
        batch = (images.to(device), labels.to(device))
        optimizer = torch.optim.SGD(net.weights(), lr=0.01, momentum=0.9, nesterov=True)
        weight_step(net, optimizer, batch, SearchConfig())
        lambda_gradient(net, batch, SearchConfig())
    for (name, wanted), found in zip(on_cpu.state_dict().items(), on_gpu.state_dict().values(), strict=True):
        torch.testing.assert_close(
            found.cpu(), wanted, rtol=1e-3, atol=1e-3, msg=lambda m, n=name: f"{n}: {m}"
        )
    assert on_cpu.lam.grad is not None
    assert on_gpu.lam.grad is not None
    torch.testing.assert_close(on_gpu.lam.grad.cpu(), on_cpu.lam.grad, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_mixed_precision_learns(amp: str, gpu: DetectedDevice) -> None:
    torch.manual_seed(0)
    net = Supernet(SPACE).to("cuda").train()
    search = SearchConfig(amp=amp)  # type: ignore[arg-type]
    optimizer = torch.optim.SGD(net.weights(), lr=0.05, momentum=0.9, nesterov=True)
    batch = (torch.randn(8, *SPACE.input_shape, device="cuda"), torch.arange(8, device="cuda"))
    for _ in range(30):
        weight_step(net, optimizer, batch, search)
    loss = torch.nn.functional.cross_entropy(net(batch[0]), batch[1])
    assert loss < 1.0  # ln 10 = 2.3 before
