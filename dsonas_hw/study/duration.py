"""How long the jobs of a study with hand-made families take on this machine, from a few steps timed now.

search, random search   images · seconds per image of the complete supernet
training                images · seconds per image of a random network that fills the first budget
fit to a latency        two minutes, of which one or two measurements take most
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dsonas_hw.config import RunConfig, build_config
from dsonas_hw.search.derive import derive_architecture
from dsonas_hw.study.effort import count_effort
from dsonas_hw.study.random_points import random_point
from dsonas_hw.study.spec import Job
from dsonas_hw.task import Task, prepare_task
from dsonas_hw.train.images import space_of_config

if TYPE_CHECKING:
    import torch
    from torch import nn

NUM_STEPS = 5
FIT_SECONDS = 120.0
BY_SUPERNET = ("search", "choose")


@dataclass(frozen=True, kw_only=True)
class Duration:
    """Seconds of one process, as far as a few steps tell."""

    searching: float
    training: float
    measuring: float
    """With nothing else on the machine."""

    def __str__(self) -> str:
        return (
            f"about {_minutes(self.searching)} of searching, {_minutes(self.training)} of training and "
            f"{_minutes(self.measuring)} of measuring on this machine, by a few steps timed now; "
            "searching and training are shared by the workers"
        )


def estimate_duration(jobs: Sequence[Job]) -> Duration:
    """Time a few steps of the first search's supernet and of a network that fills its budget.

    Raises:
        BudgetError: no random network fills the budget.
    """
    first = next(job for job in jobs if job.kind == "fit")
    config = build_config({**first.config, "budget": list(first.budgets)})
    task = prepare_task(config, space_of_config(config))
    supernet_s, network_s = _seconds_per_image(config, task)
    searching = training = measuring = 0.0
    for job in jobs:
        images = count_effort(job).images
        if job.kind in BY_SUPERNET:
            searching += images * supernet_s
        else:
            training += images * network_s
        measuring += FIT_SECONDS * job.exclusive
    return Duration(searching=searching, training=training, measuring=measuring)


def _seconds_per_image(config: RunConfig, task: Task) -> tuple[float, float]:
    """Of the complete supernet, and of a network that fills the budget, each with its own batch."""
    from dsonas_hw.search.supernet import Supernet
    from dsonas_hw.train.loop import resolve_train_device
    from dsonas_hw.train.trainable import build_network

    device = resolve_train_device(config.train_on)
    point = random_point(task, seed="duration", index=0)
    network = build_network(
        derive_architecture([point], task.budgets, task.target).architecture, config.retrain
    )
    supernet = Supernet(task.space)
    return (
        _time_steps(supernet, config.search.batch_size, task, device),
        _time_steps(network, config.retrain.batch_size, task, device),
    )


def _time_steps(module: nn.Module, batch_size: int, task: Task, device: torch.device) -> float:
    """Seconds per image of forward and backward: the quickest step's, which others disturb least."""
    import torch
    from torch.nn import functional as F

    module.to(device).train()
    images = torch.zeros(batch_size, *task.space.input_shape, device=device)
    labels = torch.zeros(batch_size, dtype=torch.int64, device=device)
    seconds = []
    for _ in range(NUM_STEPS):
        started = time.perf_counter()
        loss = F.cross_entropy(module(images), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - started)
    return min(seconds) / batch_size


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
