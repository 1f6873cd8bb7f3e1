"""How much memory a training step takes, and how much there is.

    bytes ≈ images · (K · elements that the kernels of one image read and write · 4) + 4 · weights · 4

The kernels are those of the deployed network (`kernel`), whose batch norms are folded; K says how much more
training keeps and holds at once: inputs of every layer for the way back, gradients, and temporary copies.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dsonas_hw.architecture.architecture import Architecture
from dsonas_hw.architecture.graph import list_segments
from dsonas_hw.architecture.lower import lower_segment
from dsonas_hw.errors import UserError
from dsonas_hw.kernel.costs import count_costs

if TYPE_CHECKING:
    import torch

BYTES_PER_ELEMENT = 4
ACTIVATIONS_PER_ACCESS = 0.4
"""K: 0.32 to 0.40 for the paper's operations, up to 0.65 for others (`benchmarks/memory.py`)."""
CHECKPOINTED = 0.1
"""Of what the other blocks keep, where activations of all but one are computed again."""
COPIES_OF_WEIGHTS = 4
"""Weights, gradients, momentum, and one that is being computed."""


def training_bytes(architecture: Architecture, *, batch_size: int, checkpointed: bool = False) -> int:
    """Return about how many bytes a step of training takes, in fp32.

    checkpointed: `search.checkpoint_activations`.
    """
    parts = [count_costs(lower_segment(segment, 1, True)) for _, segment in list_segments(architecture)]
    activations = [part.mac - part.params for part in parts]
    kept = float(sum(activations))
    if checkpointed:
        kept = max(activations) + CHECKPOINTED * (kept - max(activations))
    weights = sum(part.params for part in parts)
    elements = batch_size * ACTIVATIONS_PER_ACCESS * kept + COPIES_OF_WEIGHTS * weights
    return round(BYTES_PER_ELEMENT * elements)


def fitting_batch(
    architecture: Architecture, *, batch_size: int, free_bytes: int | None, checkpointed: bool = False
) -> int | None:
    """Return the batch itself if a step of it fits in memory, else the largest half, quarter, … that does.

    free_bytes: None: unknown, everything fits. Returns None where not even two images fit.
    """
    while batch_size >= 2:
        needed = training_bytes(architecture, batch_size=batch_size, checkpointed=checkpointed)
        if free_bytes is None or needed <= free_bytes:
            return batch_size
        batch_size //= 2
    return None


def check_memory(
    architecture: Architecture, *, batch_size: int, free_bytes: int | None, setting: str
) -> None:
    """Refuse a batch that does not fit in memory.

    setting: what the user writes before a batch size to set it, such as `--set search.batch_size=`.

    Raises:
        UserError: says how much is needed and free, and what to set.
    """
    fitting = fitting_batch(architecture, batch_size=batch_size, free_bytes=free_bytes)
    if fitting != batch_size:
        needed = training_bytes(architecture, batch_size=batch_size)
        raise UserError(memory_refusal(batch_size, needed, free_bytes, fitting, setting))


def memory_refusal(
    batch_size: int, needed: int, free_bytes: int | None, fitting: int | None, setting: str
) -> str:
    """Say that a step on a batch does not fit, and what to set instead.

    fitting: as of `fitting_batch`; setting: as of `check_memory`.
    """
    advice = f"{setting}{fitting}"
    if fitting is None:
        advice = "smaller images (--set data.image_size=32) or fewer channels (--set space.channels=8)"
    return (
        f"a training step on {batch_size} images needs about {format_bytes(needed)} of memory, and "
        f"{format_bytes(free_bytes or 0)} are free; give {advice}"
    )


def format_bytes(number: float) -> str:
    """Return bytes in GB, or in MB below one."""
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{number / 1e6:.0f} MB"


def free_memory_bytes(device: torch.device) -> int | None:
    """Return what a training on this device can have; None: the system does not tell."""
    if device.type == "cuda":
        import torch

        return int(torch.cuda.mem_get_info(device)[0])
    return free_host_bytes(Path("/"))


def free_host_bytes(root: Path) -> int | None:
    """Return what Linux can give to a new process, less where a control group allows less; None elsewhere.

    root: of the file system, for tests.
    """
    lines = _read(root / "proc/meminfo").splitlines()
    found = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    group = root / "sys/fs/cgroup"
    limit, used = _read(group / "memory.max").strip(), _read(group / "memory.current").strip()
    if limit.isdigit() and used.isdigit():  # else there is no limit, or no version 2
        stat = dict(line.split() for line in _read(group / "memory.stat").splitlines())
        cached = int(stat.get("inactive_file", 0))  # given up when it is needed
        found.append(max(0, int(limit) - int(used) + cached))
    return min(found, default=None)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
