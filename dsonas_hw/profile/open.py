"""The one way to a latency model: the device's table, or an estimate of a GPU that is only known."""

from __future__ import annotations

import shlex
from pathlib import Path

from dsonas_hw.cost.model import LatencyModel
from dsonas_hw.device.spec import LOCAL
from dsonas_hw.errors import DeviceError, ProfileError
from dsonas_hw.profile.measured import MeasuredLatency, profile_command
from dsonas_hw.profile.rows import TableHeader
from dsonas_hw.profile.runtimes import RUNTIMES, check_runtime
from dsonas_hw.profile.table import load_table, table_path

DEFAULT_GPU_RUNTIME = "tensorrt"


def open_latency_model(
    device: str,
    *,
    runtime: str | None = None,
    precision: str = "fp32",
    batch_size: int = 1,
    threads: int = 1,
    profiles_directory: Path | None = None,
    profile_options: str = "",
) -> LatencyModel:
    """What predicts latencies on a device.

    A table in `profiles_directory` (or the user's data directory), else one that is shipped, else, for a GPU
    of the catalogue, an estimate.

    profile_options: of `dsonas-hw profile`, for the space in question; for messages.

    Raises:
        ProfileError: there is no table; says which `dsonas-hw profile` command makes it.
        DeviceError: no such device, runtime or precision.
    """
    name, wanted = resolve(device, runtime)
    check_runtime(wanted, precision)
    if profiles_directory is not None:
        profile_options = f"{profile_options} --profiles {shlex.quote(str(profiles_directory))}".lstrip()
    path = find_table(
        name,
        runtime=wanted,
        precision=precision,
        batch_size=batch_size,
        threads=threads,
        profiles_directory=profiles_directory,
    )
    if path is not None and (model := open_table(path, profile_options=profile_options)) is not None:
        return model
    if name == LOCAL:
        header = TableHeader(
            device=name, fingerprint="", runtime=wanted, precision=precision, batch_size=batch_size,
            threads=threads, source="measured", created="",
        )  # fmt: skip
        raise ProfileError(
            f"{name} has no profile for {wanted}, {precision}, batch {batch_size}, {threads} thread"
            f"{'s' if threads != 1 else ''}; measure it with: {profile_command(header, profile_options)}"
        )
    return _open_estimate(name, wanted, precision, batch_size, profiles_directory or user_profiles())


def _open_estimate(
    device: str, runtime: str, precision: str, batch_size: int, directory: Path
) -> LatencyModel:
    """The estimate of a catalogued GPU, sharpened by the user's calibration if there is one."""
    from dsonas_hw.device.spec import load_device
    from dsonas_hw.profile.calibrated import open_calibrated
    from dsonas_hw.profile.estimate import load_estimate

    calibrated = open_calibrated(
        device, runtime=runtime, precision=precision, batch_size=batch_size, directory=directory
    )
    if calibrated is not None:
        return calibrated
    return load_estimate(load_device(device), runtime=runtime, precision=precision, batch_size=batch_size)


def open_table(path: Path, *, profile_options: str = "") -> MeasuredLatency | None:
    """The model of one table; None for a listing of estimates, which the estimate itself answers better.

    Raises:
        ProfileError: damaged, unfinished, or measured on another machine than this `local`.
    """
    table = load_table(path)
    if table.header.device == LOCAL:
        check_is_this_machine(table.header, path, profile_options=profile_options)
    if table.header.source in ("estimated", "calibrated"):
        return None
    return MeasuredLatency(table, profile_options=profile_options)


def check_is_this_machine(header: TableHeader, path: Path, *, profile_options: str = "") -> None:
    """Refuse a table of another machine's `local`.

    Raises:
        ProfileError: the fingerprints differ.
    """
    from dsonas_hw.device.cpu import local_cpu

    cpu = local_cpu()
    if header.fingerprint != cpu.fingerprint:
        there = header.settings.get("device_title") or header.fingerprint
        raise ProfileError(
            f"the table {path} was measured on another machine ({there}; this is {cpu.title}); "
            f"move that table away and measure this one with: {profile_command(header, profile_options)}"
        )


def resolve(device: str, runtime: str | None) -> tuple[str, str]:
    """A device's own name for an alias, and the runtime to assume when none is asked for.

    Raises:
        DeviceError: no such device.
    """
    if device == LOCAL:
        return LOCAL, runtime or "ort-cpu"
    from dsonas_hw.device.spec import load_device

    found = load_device(device)
    if runtime == "ort-cpu":
        raise DeviceError(f"ort-cpu runs on the device local, {found.name} is a GPU; leave --runtime away")
    if runtime is not None:
        return found.name, runtime
    supported = [name for name in RUNTIMES if name in found.runtimes]
    if DEFAULT_GPU_RUNTIME in supported or not supported:
        return found.name, DEFAULT_GPU_RUNTIME
    return found.name, supported[0]


def find_table(
    device: str,
    *,
    runtime: str,
    precision: str,
    batch_size: int,
    threads: int,
    profiles_directory: Path | None = None,
) -> Path | None:
    """The table that serves a target: the user's own before a shipped one; None if there is neither."""
    for directory in (profiles_directory or user_profiles(), shipped_profiles()):
        path = table_path(
            directory, device, runtime=runtime, precision=precision, batch_size=batch_size, threads=threads
        )
        if path.exists():
            return path
    return None


def user_profiles() -> Path:
    """Where a user's own tables live."""
    from dsonas_hw.device.paths import data_directory

    return data_directory() / "profiles"


def shipped_profiles() -> Path:
    """Where the tables of this package lie; read only."""
    from importlib import import_module

    return Path(import_module("dsonas_hw.profiles").__path__[0])
