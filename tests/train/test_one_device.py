"""A step touches one device only: whatever stays on the CPU makes the CPU wait for the GPU, or fails there.

The device `meta`, which computes no values, stands in for the GPU; PyTorch's dispatcher tells of every
operation on which devices its tensors are.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dsonas_hw.architecture.architecture import complete_architecture
from dsonas_hw.config import DataConfig, SearchConfig, build_config, load_preset, overlay
from dsonas_hw.search import step
from dsonas_hw.search.apg_nag import APGNAG
from dsonas_hw.search.supernet import Supernet
from dsonas_hw.space.space import SearchSpace
from dsonas_hw.train import trainer
from dsonas_hw.train.augment import Augmentation
from dsonas_hw.train.data import load_dataset
from dsonas_hw.train.data_batches import Batches
from dsonas_hw.train.loop import EpochMeter
from dsonas_hw.train.trainer import Trainer

GPU = torch.device("meta")
SPACE = SearchSpace(levels=2, stages=(1, 1), channels=8, input_shape=(1, 8, 8))


class Devices(TorchDispatchMode):
    """Notes every operation that touches the CPU."""

    def __init__(self) -> None:
        super().__init__()
        self.on_cpu: set[str] = set()
        self.num_operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        tensors = [x for x in tree_leaves((args, kwargs, result)) if isinstance(x, Tensor)]
        self.num_operations += 1
        if any(tensor.device.type == "cpu" for tensor in tensors):
            self.on_cpu.add(str(func))
        return result


class Copies(TorchDispatchMode):
    """Notes of every copy from the CPU to the GPU whether the CPU goes on meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.goes_on: list[bool] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten._to_copy.default and args[0].device != result.device:
            self.goes_on.append(kwargs.get("non_blocking", False))
        return result


@pytest.fixture(autouse=True)
def _no_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    """`meta` has none."""
    enabled = torch.is_autocast_enabled
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda kind: kind != GPU.type and enabled(kind))
    for module in (step, trainer):
        monkeypatch.setattr(module, "autocast", lambda *args: nullcontext())


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("pruned", [False, True])
def test_the_steps_of_a_search(checkpointed: bool, pruned: bool) -> None:
    net = Supernet(SPACE, checkpoint_activations=checkpointed).train()
    if pruned:
        net.lam.data[:, ::2] = 0.0
    blocks = net.blocks_of(net.lam)
    net = net.to(GPU)
    if pruned:
        net.prune(blocks)
    w_optimizer = torch.optim.SGD(net.weights(), lr=0.1, momentum=0.9, nesterov=True)
    lam_optimizer = APGNAG([net.lam])
    meter, config = EpochMeter(GPU), SearchConfig()
    batch = (torch.zeros(4, 1, 8, 8, device=GPU), torch.zeros(4, dtype=torch.int64, device=GPU))
    with Devices() as seen:
        for number in range(2):
            loss, logits = step.weight_step(net, w_optimizer, batch, config)
            meter.update(number, loss, logits, batch[1])
            step.lambda_gradient(net, batch, config)
            step.lambda_after(net, lam_optimizer, torch.ones_like(net.lam), keep_momentum=True)
            lam_optimizer.step()
    assert seen.num_operations > 300
    assert seen.on_cpu == set()


def test_the_steps_of_a_retraining(monkeypatch: pytest.MonkeyPatch) -> None:
    changes = {"drop_path": 0.3, "dropout": 0.2, "aux_weight": 0.4, "label_smoothing": 0.1}
    recipe = build_config(overlay(load_preset("digits"), {"retrain": changes})).retrain
    dataset = load_dataset(DataConfig(dataset="digits", subset=200, test_subset=50))
    training = Trainer(complete_architecture(SPACE), dataset, recipe, seed=0, device=GPU)
    training.epoch = 1
    # Its masks are drawn on the CPU, as augmentation is, and copied in the GPU's turn.
    draw = trainer.draw_drop_masks
    monkeypatch.setattr(trainer, "draw_drop_masks", lambda *args, **options: masks)
    masks = draw(
        training.network.drop_edges, rate=0.3, progress=0.5, num_images=recipe.batch_size, name=(0, 1, 0)
    ).to(GPU)
    batch = next(training.batches.epoch(1))
    with Devices() as seen:
        for _ in range(2):
            training.train_step(batch)
    assert seen.num_operations > 300
    assert seen.on_cpu == set()


def test_the_cpu_goes_on_while_a_batch_is_copied() -> None:
    """It would wait for all that the GPU has still to do. PyTorch's fake tensors stand in for CUDA's."""
    dataset = load_dataset(DataConfig(dataset="digits", subset=64, test_subset=50))
    augmentation = Augmentation(flip=True, pad=1, cutout=3)
    batches = Batches(
        images=dataset.train,
        dataset=replace(dataset, augmentation=augmentation),
        batch_size=32,
        augmentation=augmentation,
        device="cuda",
    )
    with FakeTensorMode(allow_non_fake_inputs=True), Copies() as seen:
        images, labels = next(batches.epoch(0))
    assert (images.device.type, labels.device.type) == ("cuda", "cuda")
    assert len(seen.goes_on) >= 4
    assert all(seen.goes_on)
