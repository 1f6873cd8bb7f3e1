"""The table of a GPU that is absent: its estimate, kernel by kernel, and every row says so."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from dsonas_hw.device.spec import load_device
from dsonas_hw.errors import ProfileError
from dsonas_hw.kernel.spec import Kernel
from dsonas_hw.profile.probes import probe_networks
from dsonas_hw.profile.profile_space import NUM_NETWORKS, path_of
from dsonas_hw.space.space import SearchSpace
from dsonas_hw.table.rows import ESTIMATE, KernelRow, TableHeader
from dsonas_hw.table.table import load_table, now_utc, save_table
from dsonas_hw.target import Target


@dataclass(frozen=True, kw_only=True)
class EstimatedTable:
    """A table of estimates."""

    path: Path
    expected_error: float
    """Relative error to expect of a network: half the 90 % interval."""
    num_kernels: int


def estimate_gpu(
    spaces: Iterable[SearchSpace], target: Target, *, profiles_directory: Path | None = None
) -> EstimatedTable:
    """List what the estimate of a GPU says about the kernels of some spaces; nothing is measured.

    Raises:
        DeviceError: no such GPU.
        ProfileError: no estimate exists for this runtime, or the table cannot be written.
    """
    from dsonas_hw import __version__
    from dsonas_hw.estimate.estimate import load_estimate

    device = load_device(target.device)
    model = load_estimate(target)
    kernels: dict[Kernel, None] = {}
    for space in spaces:
        for probe in probe_networks(
            space, num_networks=NUM_NETWORKS, batch_size=target.batch_size, fuse=model.fuse
        ):
            kernels.update(dict.fromkeys(step.kernel for step in probe.schedule.kernels))
    header = TableHeader(
        target=target,
        fingerprint=device.fingerprint,
        source="estimated",
        created=now_utc(),
        versions={"dsonas-hw": __version__},
        settings={
            "device_title": device.title,
            "expected_error": round(model.expected_error, 3),
            "disclaimer": model.disclaimer,
        },
    )
    rows = [
        KernelRow(
            kernel=kernel,
            latency_ms=max(model.kernel_cost(kernel), 1e-9),
            source="estimated",
            statistic=ESTIMATE,
        )
        for kernel in kernels
    ]
    path = path_of(target, profiles_directory)
    if path.exists() and load_table(path).header.source != "estimated":
        raise ProfileError(
            f"the table {path} holds measurements, which estimates would replace; choose another directory "
            "with --profiles"
        )
    save_table(path, header, rows)
    return EstimatedTable(path=path, expected_error=model.expected_error, num_kernels=len(rows))
