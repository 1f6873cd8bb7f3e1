"""Run by test_distributed.py, alone or as one of several ranks: some steps in float64; prints the outcome."""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
from torch import Tensor

from dsonas_hw.architecture.architecture import complete_architecture
from dsonas_hw.config import build_config, load_preset, overlay
from dsonas_hw.search.parts import SearchParts
from dsonas_hw.search.step import lambda_gradient, weight_step
from dsonas_hw.train import distributed
from dsonas_hw.train.data_batches import Batch
from dsonas_hw.train.images import build_space, load_data
from dsonas_hw.train.loop import StopSignal
from dsonas_hw.train.trainer import Trainer

CPU = torch.device("cpu")
CHANGES: dict[str, Any] = {
    "data": {"subset": 200, "test_subset": 45},
    "space": {"levels": 2, "stages": [1, 1], "channels": 8, "share": False},
    "search": {"batch_size": 16, "lam_lr": 0.05},
    "retrain": {"batch_size": 16, "dropout": 0.3, "drop_path": 0.4, "epochs": 2, "cutout": 2},
}


def exact(batch: Batch) -> Batch:
    return batch[0].double(), batch[1]


def digest(tensors: list[Tensor]) -> list[float]:
    return [float(t.detach().double().sum()) for t in tensors] + [float(t.detach().norm()) for t in tensors]


def search() -> dict[str, Any]:
    """W and λ steps, half of the edges removed in between."""
    config = build_config(overlay(load_preset("digits"), CHANGES))
    dataset = load_data(config)
    parts = SearchParts(config, build_space(config, dataset.input_shape, dataset.num_classes), dataset, CPU)
    net = parts.supernet.double().train()
    w_stream, lam_stream = parts.w_batches.stream(), parts.lam_batches.stream()
    lams: list[list[float]] = []
    for number in range(8):
        weight_step(net, parts.w_optimizer, exact(next(w_stream)), config.search, parts.scaler)
        gradient = lambda_gradient(net, exact(next(lam_stream)), config.search, parts.scaler)
        net.lam.data.sub_(0.05 * gradient.sign() * gradient.abs().sqrt())
        if number == 4:
            net.lam.data[:, ::2] = 0.0
            net.prune(net.blocks_of(net.lam), parts.w_optimizer)
        net.silence_dead(net.blocks_of(net.lam))
        lams.append(net.lam.detach().flatten().tolist())
    state = [value for value in net.state_dict().values() if value.is_floating_point()]
    return {"lam": lams, "weights": digest(state), "num_w": sum(p.numel() for p in net.weights())}


def retrain() -> dict[str, Any]:
    """Steps with dropout and drop-path, then the test."""
    config = build_config(overlay(load_preset("digits"), CHANGES))
    dataset = load_data(config)
    space = build_space(config, dataset.input_shape, dataset.num_classes)
    trainer = Trainer(complete_architecture(space), dataset, config.retrain, seed=3, device=CPU)
    trainer.network.double()
    trainer.epoch = 1  # the second of two, so that drop-path is at half of its rate and more
    for batch in trainer.batches.epoch(1):
        trainer.train_step(exact(batch))
    trainer.meter.collect()
    loss, images = trainer.meter.loss, trainer.meter.num_images
    trainer.network.float()
    if distributed.rank():
        assert distributed.receive()[0] == distributed.TEST  # rank 0 says so in `test`
    confusion = trainer.test(StopSignal())
    weights = digest([v for v in trainer.network.state_dict().values() if v.is_floating_point()])
    return {"loss": loss, "images": images, "confusion": confusion.tolist(), "weights": weights}


def main() -> None:
    torch.set_num_threads(1)
    if sys.argv[1] == "shared":
        distributed.join()
    found = {"search": search(), "retrain": retrain()}
    if distributed.rank() == 0:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
