"""A running average of a network's weights, which often scores better than the weights themselves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class WeightAverage:
    """Exponential moving average of the parameters and buffers of a network.

        average ← d·average + (1 − d)·weights,   d = min(decay, (1 + n) / (10 + n)) at update n

    The ramp of d lets the first average forget the random start. Whole-number buffers (the batch counter of a
    batch norm) are copied.
    """

    def __init__(self, model: nn.Module, *, decay: float = 0.9999) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay must lie in [0, 1), got {decay}")
        self.decay = decay
        self.num_updates = 0
        self.average: dict[str, Tensor] = {
            name: value.detach().clone() for name, value in model.state_dict().items()
        }

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take the present weights into the average; call after every optimizer step."""
        self.num_updates += 1
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                self.average[name].lerp_(value, 1 - decay)
            else:
                self.average[name].copy_(value)

    @contextmanager
    def applied_to(self, model: nn.Module) -> Iterator[None]:
        """Inside the context the model holds the average; afterwards its own weights again."""
        own = {name: value.detach().clone() for name, value in model.state_dict().items()}
        model.load_state_dict(self.average)
        try:
            yield
        finally:
            model.load_state_dict(own)

    def state_dict(self) -> dict[str, Any]:
        """Everything a checkpoint needs to go on; copies, so that later updates do not change it."""
        average = {name: value.clone() for name, value in self.average.items()}
        return {"decay": self.decay, "num_updates": self.num_updates, "average": average}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint of the same network.

        Raises:
            ValueError: the checkpoint belongs to another network.
        """
        average = state["average"]
        for name in self.average.keys() ^ average.keys():
            raise ValueError(f"averaged weights do not fit the network: {name!r} is only in one of them")
        for name, value in self.average.items():
            if average[name].shape != value.shape:
                raise ValueError(
                    f"averaged weights do not fit the network: {name!r} has shape "
                    f"{tuple(average[name].shape)} instead of {tuple(value.shape)}"
                )
        self.decay = state["decay"]
        self.num_updates = state["num_updates"]
        for name, value in self.average.items():
            value.copy_(average[name])
