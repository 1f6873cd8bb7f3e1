"""How long a run takes here, and how much memory: told before it starts, from a few steps timed now.

    searching    images of W and λ · seconds per image of the complete supernet
    selecting    images of the brief trainings · seconds per image of a network as the budget allows
    retraining   images · the same

A step is timed on a space of one block a stage, and on few images, where the whole takes long; its time grows
as the memory accesses (`mac`) that are counted.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from dsonas_hw.architecture.architecture import Architecture, complete_architecture
from dsonas_hw.architecture.costs import TargetCosts
from dsonas_hw.architecture.fit import budget_ratio, choose_width, ideal_complete_over_budget
from dsonas_hw.architecture.lower import lower
from dsonas_hw.budget import Budget
from dsonas_hw.config import RunConfig
from dsonas_hw.device.spec import LOCAL
from dsonas_hw.errors import UserError
from dsonas_hw.kernel.costs import count_costs
from dsonas_hw.profile.open import resolve_target
from dsonas_hw.search.effort import brief_effort, pretraining_effort, retraining_effort, search_effort
from dsonas_hw.search.supernet import Supernet
from dsonas_hw.space.space import SearchSpace
from dsonas_hw.train import distributed
from dsonas_hw.train.loop import resolve_train_device
from dsonas_hw.train.memory import (
    fitting_batch,
    format_bytes,
    free_memory_bytes,
    memory_refusal,
    training_bytes,
)

if TYPE_CHECKING:
    from torch import nn

NUM_STEPS = 5
MOST_TIMED_MAC = 1e8
"""Memory accesses of the steps that are timed: a fraction of a second on a CPU."""
LEFT_OF_SUPERNET = 0.7
"""Of the supernet's work, on average over a search that prunes it."""
VERDICT_SECONDS = 30.0
NUM_VERDICTS = 4
"""Networks that are measured for half a minute: finalists of the selection, and the one that was trained."""


@dataclass(frozen=True, kw_only=True)
class RunEstimate:
    """What a run takes on this machine, as far as a few steps tell; seconds, bytes."""

    searching_s: float
    selecting_s: float
    retraining_s: float
    measuring_s: float
    memory_bytes: int
    """Of a step of the search."""
    free_bytes: int | None
    refusal: str | None
    """Why it cannot run here, and what to set; None: it can."""

    def check(self) -> None:
        """Refuse a search that does not fit in memory.

        Raises:
            UserError: says what to set.
        """
        if self.refusal is not None:
            raise UserError(self.refusal)

    def __str__(self) -> str:
        parts = {
            "searching": self.searching_s,
            "selecting": self.selecting_s,
            "retraining": self.retraining_s,
            "measuring": self.measuring_s,
        }
        told = ", ".join(f"{format_seconds(seconds)} of {part}" for part, seconds in parts.items() if seconds)
        free = "" if self.free_bytes is None else f" of {format_bytes(self.free_bytes)} that are free"
        return (
            f"about {format_seconds(sum(parts.values()))} on this machine, by a few steps timed now: {told}; "
            f"a search step needs {format_bytes(self.memory_bytes)}{free}"
        )


def estimate_run(config: RunConfig, space: SearchSpace, num_images: int) -> RunEstimate:
    """Time a few steps and count the rest; num_images: of the training side."""
    device = resolve_train_device(config.train_on)
    free = free_memory_bytes(device)
    supernet = complete_architecture(space)
    batch_size, checkpointed = config.search.batch_size, config.search.checkpoint_activations
    needed = training_bytes(supernet, batch_size=batch_size, checkpointed=checkpointed)
    fitting = fitting_batch(supernet, batch_size=batch_size, free_bytes=free, checkpointed=checkpointed)
    refusal = None
    if fitting != batch_size:
        refusal = memory_refusal(batch_size, needed, free, fitting, "--set search.batch_size=")
    seconds_per_access = _seconds_per_access(space, batch_size, device)
    supernet_s = seconds_per_access * _count_mac(supernet)
    network_s = seconds_per_access * _network_mac(config, space)
    pretraining, search = pretraining_effort(config, num_images), search_effort(config, num_images)
    selects = config.select.candidates and config.budget
    brief = brief_effort(config, num_images).images if selects else 0
    is_here = config.target.device == LOCAL
    times = is_here and any(budget.metric for budget in config.budgets)
    return RunEstimate(
        searching_s=supernet_s * (pretraining.images + LEFT_OF_SUPERNET * search.images),
        selecting_s=network_s * brief,
        retraining_s=network_s * retraining_effort(config, num_images).images,
        measuring_s=VERDICT_SECONDS * (NUM_VERDICTS if times and selects else is_here),
        memory_bytes=needed,
        free_bytes=free,
        refusal=refusal,
    )


def _network_mac(config: RunConfig, space: SearchSpace) -> float:
    """Memory accesses of a network that fills the budgets; latency and energy are not known yet."""
    counted: Sequence[Budget] = [budget for budget in config.budgets if not budget.metric]
    target = TargetCosts(target=resolve_target(config.target))
    width = config.retrain.width or choose_width(space, counted, target)
    complete = complete_architecture(space, width=width)
    over = budget_ratio(complete, counted, target) if counted else ideal_complete_over_budget(space)
    return _count_mac(complete) / max(1.0, over)


def _count_mac(architecture: Architecture) -> int:
    return count_costs(lower(architecture)).mac


def _seconds_per_access(space: SearchSpace, batch_size: int, device: torch.device) -> float:
    """Seconds of a training step per image and memory access of the deployed network."""
    timed = space
    if _count_mac(complete_architecture(space)) * min(batch_size, 8) > MOST_TIMED_MAC:
        timed = replace(space, stages=(1,) * len(space.stages), share=False)
    mac = _count_mac(complete_architecture(timed))
    batch_size = max(2, min(batch_size, int(MOST_TIMED_MAC / mac)))
    return time_step(Supernet(timed), batch_size, timed.input_shape, device) / batch_size / mac


def time_step(
    module: nn.Module, batch_size: int, input_shape: tuple[int, int, int], device: torch.device
) -> float:
    """Seconds of forward and backward on a batch: the quickest step's, which others disturb least."""
    module.to(device).train()
    images = torch.zeros(batch_size, *input_shape, device=device)
    labels = torch.zeros(batch_size, dtype=torch.int64, device=device)
    seconds = []
    with distributed.alone():  # the helpers of a training on several processes wait for its first job
        for _ in range(NUM_STEPS):
            started = time.perf_counter()
            loss = F.cross_entropy(module(images), labels)
            loss.backward()  # type: ignore[no-untyped-call]
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds.append(time.perf_counter() - started)
    return min(seconds)


def format_seconds(seconds: float) -> str:
    """Return a duration in seconds, minutes, hours or days: `40 s`, `3 min`, `2.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.0f} days"
