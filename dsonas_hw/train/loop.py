"""What every training loop needs: a device, seeds, a polite stop, sums over an epoch that notice a NaN.

Shared by the search and by retraining, so that both stop, resume and fail in the same way.
"""

from __future__ import annotations

import ctypes
import os
import random
import signal
import threading
from collections.abc import Callable, Mapping
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from dsonas_hw.config import Amp
from dsonas_hw.errors import DeviceError, UserError
from dsonas_hw.train import distributed

if TYPE_CHECKING:
    from typing import Self

CHECK_EVERY = 20
"""Steps between two looks for a NaN, each of which waits for the device; its step is named exactly."""
Progress = Callable[[int, int, str], None]
"""Called as (steps done, steps in all, a few words for the reader)."""


class Interrupted(UserError):  # noqa: N818 - nothing went wrong
    """SIGINT or SIGTERM stopped a stage after a checkpoint; the message says how to resume."""

    exit_code = 130


class DivergedError(UserError):
    """The loss is no longer a number."""


# -- device and seeds --------------------------------------------------------------------------------------


def resolve_train_device(name: str | None) -> torch.device:
    """Return where training runs: `cpu`, `cuda`, `cuda:1`, `mps`; None = CUDA if there, else the CPU.

    Of several processes each has the GPU of its local rank.

    Raises:
        DeviceError: torch does not know such a device, or this machine has none.
    """
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and distributed.world_size() > 1:
        name = f"cuda:{distributed.local_rank()}"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise DeviceError(f"cannot train on {name!r}; use cpu, cuda or cuda:N (--train-on)") from None
    if device.type not in ("cpu", "cuda", "mps"):
        raise DeviceError(f"cannot train on {name!r}; use cpu, cuda or cuda:N (--train-on)")
    if device.type == "cuda":
        num_gpus = torch.cuda.device_count()
        if num_gpus == 0:
            raise DeviceError(f"cannot train on {name!r}: torch sees no CUDA device here; use --train-on cpu")
        if (device.index or 0) >= num_gpus:
            raise DeviceError(f"cannot train on {name!r}: there are {num_gpus} CUDA devices, from cuda:0 on")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise DeviceError(f"cannot train on {name!r}: torch finds no MPS device here; use --train-on cpu")
    return device


def seed_everything(seed: int) -> None:
    """Seed every generator and ask for deterministic algorithms where torch has them."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Filling new memory costs time, and nothing reads it here. (setattr: torch does not annotate the flag.)
    setattr(torch.utils.deterministic, "fill_uninitialized_memory", False)  # noqa: B010
    torch.backends.cudnn.benchmark = False


def keep_freed_memory() -> None:
    """Let glibc keep the memory of freed activations for the next step; elsewhere this does nothing.

    By default it gives every block over 32 MB back to the system at once and gets it again, zeroed page by
    page: a third of the time of a step on the CPU.
    """
    trim_threshold, mmap_max = -1, -4  # names of mallopt's parameters, from malloc.h
    try:
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(mmap_max, 0)
        libc.mallopt(trim_threshold, -1)
    except (OSError, AttributeError):
        return


def random_state(device: torch.device) -> dict[str, Any]:
    """Return the state of torch's global generators of the CPU and the GPU that trains."""
    cuda = [torch.cuda.get_rng_state(device)] if device.type == "cuda" else []
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def restore_random_state(state: Mapping[str, Any], device: torch.device) -> None:
    """Go on drawing where `random_state` was taken, be it on another GPU."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and state["cuda"]:
        torch.cuda.set_rng_state(state["cuda"][0], device)


def autocast(device: torch.device, amp: Amp) -> torch.autocast:
    """bfloat16 or float16 where it is safe, unless `amp` is off."""
    dtype = torch.float16 if amp == "fp16" else torch.bfloat16
    return torch.autocast(device.type, dtype=dtype, enabled=amp != "off")


def loss_scaler(device: torch.device, amp: Amp) -> torch.amp.GradScaler:
    """Scales the loss so that small float16 gradients do not vanish; does nothing but with fp16."""
    return torch.amp.GradScaler(device.type, enabled=amp == "fp16")


# -- stopping ----------------------------------------------------------------------------------------------


class StopSignal:
    """Inside this context the first SIGINT or SIGTERM sets `requested`; a second one acts at once.

    The loop looks at `requested` after each step, saves a checkpoint and raises `Interrupted`. Outside the
    main thread, where Python delivers no signals, it only offers `request`.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.requested = False
        self._previous: dict[signal.Signals, Any] = {}

    def request(self) -> None:
        """Ask the loop to stop after the present step."""
        self.requested = True

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in self.SIGNALS:
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.request()
        self._restore()

    def _restore(self) -> None:
        while self._previous:
            number, handler = self._previous.popitem()
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


# -- sums over an epoch ------------------------------------------------------------------------------------


class EpochMeter:
    """Mean loss and accuracy of the steps so far, kept on the device so that no step waits for it.

    `check` raises when a loss or gradient was not finite and names the step; call it every few steps and
    before a checkpoint, so that no checkpoint holds broken weights.
    """

    def __init__(self, device: torch.device) -> None:
        exact = torch.float32 if device.type == "mps" else torch.float64  # MPS has no float64
        self._loss_sum = torch.zeros((), dtype=exact, device=device)
        self._num_correct = torch.zeros((), dtype=torch.int64, device=device)
        self._bad_step = torch.full((), -1, dtype=torch.int64, device=device)
        self.num_images = 0

    @torch.no_grad()
    def update(
        self, step: int, loss: Tensor, logits: Tensor, labels: Tensor, *, grad_norm: Tensor | None = None
    ) -> None:
        """Take in one step's mean loss () and logits (N, classes), and the norm of its gradient if known."""
        self._loss_sum += loss.detach() * len(labels)
        self._num_correct += (logits.detach().argmax(1) == labels).sum()
        watched = loss.detach() if grad_norm is None else loss.detach() + grad_norm
        self._bad_step.masked_fill_((self._bad_step < 0) & ~torch.isfinite(watched), step)
        self.num_images += len(labels)

    def collect(self) -> None:
        """Bring what the helpers have to rank 0; they start again from nothing."""
        if distributed.world_size() == 1:
            return
        sums = [self._loss_sum.double(), self._num_correct.double(), self.num_images]
        totals = distributed.sum_(torch.tensor(sums, dtype=torch.float64)).tolist()
        if distributed.rank():
            totals = [0.0, 0, 0]
        self._loss_sum.fill_(totals[0])
        self._num_correct.fill_(int(totals[1]))
        self.num_images = int(totals[2])

    def check(self, where: str, advice: str) -> None:
        """Raise if any loss or gradient so far was NaN or infinite.

        where: e.g. "retraining, epoch 3"; advice: what to change.

        Raises:
            DivergedError: names the first such step.
        """
        step = int(self._bad_step)
        if step >= 0:
            raise DivergedError(
                f"the loss or its gradient became NaN or infinite in {where}, step {step + 1}; {advice}"
            )

    @property
    def loss(self) -> float | None:
        return float(self._loss_sum) / self.num_images if self.num_images else None

    @property
    def accuracy(self) -> float | None:
        return int(self._num_correct) / self.num_images if self.num_images else None

    def state_dict(self) -> dict[str, Any]:
        return {
            "loss_sum": self._loss_sum.item(),
            "num_correct": int(self._num_correct),
            "num_images": self.num_images,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._loss_sum.fill_(state["loss_sum"])
        self._num_correct.fill_(state["num_correct"])
        self.num_images = state["num_images"]
