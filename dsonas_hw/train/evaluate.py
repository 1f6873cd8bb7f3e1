"""What a network gets right: class by class with its running statistics, in all with those of the batch."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from dsonas_hw.config import Amp
from dsonas_hw.train import distributed
from dsonas_hw.train.batch_norm import fixed_statistics
from dsonas_hw.train.loop import autocast


@torch.no_grad()
def count_confusion(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    num_classes: int,
    device: torch.device,
    amp: Amp = "off",
) -> Tensor:
    """Return how many images of class i have their largest logit at j: int64 (classes, classes), on the CPU.

    batches: (images, labels) pairs, e.g. `Batches(…, shuffle=False).epoch(0)`.
    The model is left in the mode it was in.

    Raises:
        ValueError: there are no images.
    """
    was_training = model.training
    model.eval()
    counts = torch.zeros(num_classes**2, dtype=torch.int64, device=device)
    try:
        for images, labels in batches:
            if not len(labels):  # this rank has no row of the last, small batch
                continue
            with autocast(device, amp):
                logits = model(images.to(device, non_blocking=True))
            told = labels.to(device) * num_classes + logits.argmax(1)
            counts += torch.bincount(told, minlength=num_classes**2)
    finally:
        model.train(was_training)
    summed = distributed.sum_(counts.cpu()).reshape(num_classes, num_classes)
    if not summed.any():
        raise ValueError("no images to evaluate on")
    return summed


@torch.no_grad()
def batch_accuracy(network: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], *, amp: Amp) -> float:
    """Return the accuracy with batch norms by the batch, of this process alone; the network stays as it was.

    After a short training, and while λ moves, the running statistics lag behind. Every batch should be of all
    classes alike: without what distinguishes it from the others, a class is not recognised.
    """
    was_training = network.training
    network.eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train()
    num_correct = num_images = 0
    try:
        with distributed.alone(), fixed_statistics(network):
            for images, labels in batches:
                with autocast(images.device, amp):
                    logits = network(images)
                num_correct += int((logits.argmax(1) == labels).sum())
                num_images += len(labels)
    finally:
        network.train(was_training)
    return num_correct / num_images


def accuracy_of(confusion: Tensor) -> float:
    """Return the fraction of images on the diagonal."""
    return int(confusion.trace()) / int(confusion.sum())
