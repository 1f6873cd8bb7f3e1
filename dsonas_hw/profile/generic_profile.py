"""Profiling a device for networks of any kind, whatever search space they come from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from dsonas_hw.profile.check import check_table
from dsonas_hw.profile.generic_networks import NUM_NETWORKS, generic_networks
from dsonas_hw.profile.open_bench import open_bench
from dsonas_hw.profile.profiler import profile_networks
from dsonas_hw.table.rows import CheckRow
from dsonas_hw.table.table import LookupTable
from dsonas_hw.target import Target

NAME = "networks of other kinds"
"""In a table and wherever its checks are shown."""
NUM_CHECKED = 12
HELD_OUT_SEED = 1_000
"""Seeds from here on make the networks of checks."""

Progress = Callable[[int, int, str], None]


def profile_generic(
    path: Path,
    target: Target,
    *,
    num_networks: int = NUM_NETWORKS,
    fit: bool = True,
    progress: Progress = lambda done, total, text: None,
) -> LookupTable:
    """Measure a device that is here on networks of every kind in use; continues an interrupted profile.

    fit: as in `profile_networks`.

    Raises:
        DeviceError: the device is not here, cannot run the networks, or was taken away.
        ProfileError: the table belongs to another machine, is damaged, or is being written.
    """
    probes = list(generic_networks(num_networks=num_networks, batch_size=target.batch_size))
    with open_bench(target) as bench:
        return profile_networks(path, bench, probes, fit=fit, progress=progress)


def check_generic(
    table: LookupTable,
    *,
    num_checked: int = NUM_CHECKED,
    seed: int = 0,
    progress: Progress = lambda done, total, text: None,
) -> CheckRow:
    """Compare the table with networks of these kinds that it has not seen; the result goes into the table.

    Raises:
        ProfileError: the table is not finished, another machine's, or being written.
    """
    batch_size = table.header.target.batch_size
    probes = list(
        generic_networks(num_networks=num_checked, seed=HELD_OUT_SEED + seed, batch_size=batch_size)
    )
    with open_bench(table.header.target) as bench:
        return check_table(table, bench, probes, name=NAME, progress=progress)[0]
