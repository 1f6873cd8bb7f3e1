"""The one way to a latency model: the device's table, or an estimate of a GPU that is only known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dsonas_hw.cost.measured import MeasuredLatency
from dsonas_hw.cost.model import LatencyModel
from dsonas_hw.device.spec import LOCAL
from dsonas_hw.errors import DeviceError, ProfileError
from dsonas_hw.kernel.spec import Shape
from dsonas_hw.runtime.base import RUNTIMES, check_runtime
from dsonas_hw.table.commands import directory_of, profile_command
from dsonas_hw.table.rows import TableHeader
from dsonas_hw.table.table import load_table, table_path

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
        command = profile_command(
            _header(name, wanted, precision, batch_size, threads),
            directory=profiles_directory,
            options=profile_options,
        )
        raise ProfileError(
            f"{name} has no profile for {wanted}, {precision}, batch {batch_size}, {threads} thread"
            f"{'s' if threads != 1 else ''}; measure it with: {command}"
        )
    return _open_estimate(name, wanted, precision, batch_size, profiles_directory or user_profiles())


def _header(device: str, runtime: str, precision: str, batch_size: int, threads: int) -> TableHeader:
    """Of a table that there is not."""
    return TableHeader(
        device=device, fingerprint="", runtime=runtime, precision=precision, batch_size=batch_size,
        threads=threads, source="measured", created="",
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where networks of files are to run: precision and batch size may be each file's own."""

    device: str
    runtime: str
    precision: str | None = None
    """None: the file's own."""
    threads: int = 1
    profiles_directory: Path | None = None
    _opened: dict[tuple[str, int], LatencyModel] = field(default_factory=dict, repr=False, compare=False)

    def open(self, *, precision: str, batch_size: int) -> LatencyModel:
        """What predicts latencies there, opened once; errors as of `open_latency_model`."""
        key = (precision, batch_size)
        if key not in self._opened:
            self._opened[key] = open_latency_model(
                self.device,
                runtime=self.runtime,
                precision=precision,
                batch_size=batch_size,
                threads=self.threads,
                profiles_directory=self.profiles_directory,
            )
        return self._opened[key]

    def keep(self, model: LatencyModel, *, precision: str, batch_size: int) -> LatencyModel:
        """Answer with this model from now on: its table has been extended."""
        self._opened[precision, batch_size] = model
        return model

    @property
    def cautions(self) -> list[str]:
        """What a reader of the predictions must be told."""
        return list(dict.fromkeys(model.caution for model in self._opened.values() if model.caution))

    def profile_command(
        self,
        precision: str,
        batch_size: int,
        *,
        models: Sequence[Path] = (),
        input_shapes: Mapping[str, Shape] | None = None,
    ) -> str:
        """What to type to measure networks of files there."""
        header = _header(self.device, self.runtime, precision, batch_size, self.threads)
        return profile_command(
            header, directory=self.profiles_directory, models=models, input_shapes=input_shapes
        )


def _open_estimate(
    device: str, runtime: str, precision: str, batch_size: int, directory: Path
) -> LatencyModel:
    """The estimate of a catalogued GPU, sharpened by the user's calibration if there is one."""
    from dsonas_hw.device.spec import load_device
    from dsonas_hw.estimate.calibrated import open_calibrated
    from dsonas_hw.estimate.estimate import load_estimate

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
            "move it away, then measure this one with: "
            + profile_command(header, directory=directory_of(path), options=profile_options)
        )


def resolve(device: str, runtime: str | None) -> tuple[str, str]:
    """A device's own name for an alias, and the runtime to assume when none is asked for.

    Raises:
        DeviceError: no such device, or its datasheet excludes the runtime.
    """
    if device == LOCAL:
        return LOCAL, runtime or "ort-cpu"
    from dsonas_hw.device.spec import load_device

    found = load_device(device)
    if runtime == "ort-cpu":
        raise DeviceError(f"ort-cpu runs on the device local, {found.name} is a GPU; leave --runtime away")
    served = [name for name in RUNTIMES if found.serves(name)]
    if runtime is None:
        return found.name, DEFAULT_GPU_RUNTIME if DEFAULT_GPU_RUNTIME in served else served[0]
    check_runtime(runtime)
    if runtime not in served:
        support = found.runtimes.get(runtime)
        reason = f": {support.install}" if support else ""
        raise DeviceError(
            f"{runtime} does not serve {found.name}{reason}; runtimes that do: {', '.join(served)}"
        )
    return found.name, runtime


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
