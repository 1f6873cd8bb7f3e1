"""Several processes, one training: `torchrun --nproc-per-node=N -m dsonas_hw search …`.

    rank 0    runs the command line: it alone decides, measures, prints and writes files
    helpers   every other rank; they do what rank 0 broadcasts, on their rows of each batch

              rank 0                                      helpers (`search.helper`)
              begin("search", state) ───────────────────▶ build the same network, load the state
              broadcast(STEP, epoch, step) ─────────────▶ their rows of that batch
              loss.backward(); average_(gradients) ◀────▶ loss.backward(); average_(gradients)
              broadcast(DONE) ──────────────────────────▶ wait for the next job

The batch is what the configuration says: each rank takes every N-th of its images (`Batches`), batch norms
use the statistics of the whole batch (`batch_norm.BatchNorm`), dropout draws for all of it, and gradients are
averaged. So N processes do what one does, to rounding. λ is moved by rank 0 and sent: all ranks prune alike.

Gradients are averaged by hand and not by DistributedDataParallel, which is tied to the parameters that it was
made with: pruning removes some. Sending gradients while others are computed would gain little, since a
supernet has few weights for its many multiply-adds.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from dsonas_hw.errors import UserError

STEP, LAMBDA, MOVED, PRUNE, TEST, COLLECT, DONE = range(7)
"""What rank 0 broadcasts: a step on W, the gradient of λ, λ moved, prune, test, add up the sums, end."""
_MESSAGE = 3
"""Numbers in a message: what, and two more."""
_PATIENCE = timedelta(days=7)
"""Helpers wait while rank 0 measures, or is asked to."""
_MEETING = timedelta(minutes=10)

_is_alone = False


class TeamError(UserError):
    """Another process of the training ended."""

    exit_code = 1


def join() -> None:
    """Meet the other processes that torchrun started.

    Raises:
        UserError: they cannot be reached.
    """
    backend = "gloo"
    if torch.cuda.is_available():
        backend = "cpu:gloo,cuda:nccl" if dist.is_nccl_available() else "cpu:gloo,cuda:gloo"
        local = int(os.environ.get("LOCAL_RANK", 0))
        if local < torch.cuda.device_count():  # else it may train on the CPU (`resolve_train_device` decides)
            torch.cuda.set_device(local)
    try:
        store, rank_, size = next(iter(rendezvous("env://", timeout=_MEETING)))
        # torchrun keeps its store when it starts the processes again: not the addresses of those that ended.
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        store = PrefixStore(f"dsonas-hw/{attempt}", store)
        dist.init_process_group(backend, store=store, rank=rank_, world_size=size, timeout=_PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"cannot meet the other processes of torchrun: {_first_line(error)}") from None


def leave() -> None:
    """Send the helpers home; nothing if there are none."""
    if dist.is_initialized():
        with suppress(TeamError):
            broadcast(DONE)
        dist.destroy_process_group()


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def local_rank() -> int:
    """Return which of this machine's GPUs is this process's."""
    return int(os.environ.get("LOCAL_RANK", 0)) if dist.is_initialized() else 0


def local_world_size() -> int:
    """Processes of the training on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1)) if dist.is_initialized() else 1


def shares_batches() -> bool:
    """Return whether what is computed now is a part of a batch: statistics must be summed over ranks."""
    return world_size() > 1 and not _is_alone


@contextmanager
def alone() -> Iterator[None]:
    """Inside, this rank computes by itself, on whole batches."""
    global _is_alone
    before, _is_alone = _is_alone, True
    try:
        yield
    finally:
        _is_alone = before


# -- what ranks exchange -----------------------------------------------------------------------------------


@contextmanager
def _exchange() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise TeamError(
            f"another process of this training ended ({_first_line(error)}); go on from the last checkpoint "
            "with --resume (torchrun --max-restarts does so by itself)"
        ) from None


def broadcast(what: int, first: int = 0, second: int = 0) -> None:
    """Tell the helpers what to do next; without helpers this does nothing."""
    if world_size() > 1 and rank() == 0:
        with _exchange():
            dist.broadcast(torch.tensor([what, first, second]), src=0)


def receive() -> tuple[int, int, int]:
    """Return what rank 0 broadcasts next."""
    message = torch.zeros(_MESSAGE, dtype=torch.int64)
    with _exchange():
        dist.broadcast(message, src=0)
    what, first, second = message.tolist()
    return what, first, second


def begin(job: str, state: Mapping[str, Any]) -> None:
    """Send the helpers a job: tensors and plain values; nothing if there are no helpers."""
    if world_size() > 1:
        file = io.BytesIO()
        torch.save({"job": job, **state}, file)
        data = torch.frombuffer(bytearray(file.getvalue()), dtype=torch.uint8)
        broadcast(STEP, len(data))
        with _exchange():
            dist.broadcast(data, src=0)


def wait_for_job() -> dict[str, Any] | None:
    """Return the next job, with its name under "job" and its tensors on the CPU; None: there is none left."""
    what, size, _ = receive()
    if what == DONE:
        return None
    data = torch.empty(size, dtype=torch.uint8)
    with _exchange():
        dist.broadcast(data, src=0)
    file = io.BytesIO(data.numpy().tobytes())
    job: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)  # not onto rank 0's GPU
    return job


@torch.no_grad()
def send_(tensor: Tensor) -> None:
    """Rank 0's values to every rank, in place."""
    if world_size() > 1:
        with _exchange():
            dist.broadcast(tensor, src=0)


@torch.no_grad()
def average_(tensors: Iterable[Tensor]) -> None:
    """The mean over ranks, in place, in one exchange; nothing if there is one rank."""
    if world_size() == 1:
        return
    parts = list(tensors)
    flat = torch.cat([part.reshape(-1) for part in parts])
    with _exchange():
        dist.all_reduce(flat)
    flat /= world_size()
    means = torch.split(flat, [part.numel() for part in parts])
    for part, mean in zip(parts, means, strict=True):
        part.copy_(mean.view_as(part))


@torch.no_grad()
def sum_(tensor: Tensor) -> Tensor:
    """Sum over ranks, in place; the same tensor if there is one rank."""
    if shares_batches():
        with _exchange():
            dist.all_reduce(tensor)
    return tensor


@torch.no_grad()
def gather(tensor: Tensor) -> Tensor:
    """Return the tensors of all ranks, stacked: (ranks, …)."""
    parts = [torch.empty_like(tensor) for _ in range(world_size())]
    with _exchange():
        dist.all_gather(parts, tensor)
    return torch.stack(parts)


def draw_rows(draw: Callable[[int], Tensor], num_images: int) -> Tensor:
    """Return this rank's rows of what `draw(images)` gives for the whole batch, as one process draws it."""
    if not shares_batches():
        return draw(num_images)
    return draw(num_images * world_size())[rank() :: world_size()]


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
