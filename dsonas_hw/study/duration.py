"""How long the jobs of a study with hand-made families take on this machine, from a few steps timed now.

search, random search   images · seconds per image of the complete supernet
training                images · seconds per image of a random network that fills the first budget
fit to a latency        two minutes, of which one or two measurements take most
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dsonas_hw.config import RunConfig, build_config
from dsonas_hw.search.derive import derive_architecture
from dsonas_hw.study.effort import count_effort
from dsonas_hw.study.random_points import random_point
from dsonas_hw.study.spec import Job
from dsonas_hw.task import Task, prepare_task
from dsonas_hw.train.images import space_of_config

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
        from dsonas_hw.search.duration import format_seconds

        searching, training, measuring = map(format_seconds, (self.searching, self.training, self.measuring))
        return (
            f"about {searching} of searching, {training} of training and {measuring} of measuring on this "
            "machine, by a few steps timed now; searching and training are shared by the workers"
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
    from dsonas_hw.search.duration import time_step
    from dsonas_hw.search.supernet import Supernet
    from dsonas_hw.train.loop import resolve_train_device
    from dsonas_hw.train.trainable import build_network

    device = resolve_train_device(config.train_on)
    point = random_point(task, seed="duration", index=0)
    network = build_network(
        derive_architecture([point], task.budgets, task.target).architecture, config.retrain
    )
    supernet, shape = Supernet(task.space), task.space.input_shape
    search_batch, batch = config.search.batch_size, config.retrain.batch_size
    return (
        time_step(supernet, search_batch, shape, device) / search_batch,
        time_step(network, batch, shape, device) / batch,
    )
