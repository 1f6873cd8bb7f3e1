"""How much memory a training step takes, and how much there is.

    bytes ≈ images · (K · elements that the kernels of one image read and write · 4) + 4 · weights · 4

The kernels are those of the deployed network (`kernel`), whose batch norms are folded; K says how much more
training keeps and holds at once: inputs of every layer for the way back, gradients, and temporary copies.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dsonas_hw.architecture.architecture import Architecture
from dsonas_hw.architecture.lower import lower
from dsonas_hw.errors import UserError
from dsonas_hw.kernel.costs import count_costs

if TYPE_CHECKING:
    import torch

BYTES_PER_ELEMENT = 4
ACTIVATIONS_PER_ACCESS = 1.0
"""K."""
COPIES_OF_WEIGHTS = 4
"""Weights, gradients, momentum, and one that is being computed."""


def training_bytes(architecture: Architecture, *, batch_size: int) -> int:
    """Return about how many bytes a step of training takes, in fp32."""
    counted = count_costs(lower(architecture))
    activations = (counted.mac - counted.params) * ACTIVATIONS_PER_ACCESS
    elements = batch_size * activations + COPIES_OF_WEIGHTS * counted.params
    return round(BYTES_PER_ELEMENT * elements)


def check_memory(architecture: Architecture, *, batch_size: int, free_bytes: int | None, field: str) -> int:
    """Return `training_bytes`, and refuse what does not fit.

    free_bytes: None: unknown, nothing is refused.
    field: of the configuration, that holds the batch size; for the message.

    Raises:
        UserError: more is needed than is free; says which batch would fit.
    """
    needed = training_bytes(architecture, batch_size=batch_size)
    if free_bytes is None or needed <= free_bytes:
        return needed
    smaller = batch_size
    while smaller > 2 and training_bytes(architecture, batch_size=smaller) > free_bytes:
        smaller //= 2
    advice = f"--set {field}={smaller}"
    if training_bytes(architecture, batch_size=smaller) > free_bytes:
        advice = "smaller images (--set data.image_size=32) or fewer channels (--set space.channels=8)"
    raise UserError(
        f"a training step on {batch_size} images needs about {format_bytes(needed)} of memory, and "
        f"{format_bytes(free_bytes)} are free; give {advice}"
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
