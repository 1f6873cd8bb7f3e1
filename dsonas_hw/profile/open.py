"""The one way to a latency model: the device's table, or an estimate of a GPU that is only known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from dsonas_hw.config import DeviceConfig
from dsonas_hw.cost.measured import MeasuredCosts
from dsonas_hw.cost.model import CostModel
from dsonas_hw.device.spec import LOCAL
from dsonas_hw.errors import DeviceError, ProfileError
from dsonas_hw.kernel.spec import Shape
from dsonas_hw.runtime.registry import get_runtime, runtimes_of
from dsonas_hw.table.commands import directory_of, profile_command
from dsonas_hw.table.rows import TableHeader
from dsonas_hw.table.table import load_table, table_path
from dsonas_hw.target import Target

if TYPE_CHECKING:
    from dsonas_hw.estimate.calibrated import CalibratedLatency
    from dsonas_hw.estimate.estimate import EstimatedLatency


def open_cost_model(
    target: Target, *, profiles_directory: Path | None = None, profile_options: str = ""
) -> CostModel:
    """What predicts latencies on a target.

    A table in `profiles_directory` (or the user's data directory), else, for a GPU of the catalogue, an
    estimate: calibrated by the user, or on networks that others measured, or as its datasheet has it.

    profile_options: of `dsonas-hw profile`, for the space in question; for messages.

    Raises:
        ProfileError: there is no table; says which `dsonas-hw profile` command makes it.
        DeviceError: no such precision of the runtime.
    """
    get_runtime(target.runtime, target.precision)
    path = find_table(target, profiles_directory=profiles_directory)
    if path is not None and (model := open_table(path, profile_options=profile_options)) is not None:
        return model
    if target.device == LOCAL:
        command = profile_command(target, directory=profiles_directory, options=profile_options)
        raise ProfileError(f"{target.device} has no profile for {target}; measure it with: {command}")
    return open_estimate(target, profiles_directory or user_profiles())


def resolve_target(config: DeviceConfig) -> Target:
    """The target of a configuration, its device by its own name and its runtime chosen.

    Raises:
        DeviceError: no such device, its datasheet excludes the runtime, or that has no such precision.
    """
    device, runtime = resolve(config.device, config.runtime)
    get_runtime(runtime, config.precision)
    return Target(
        device=device,
        runtime=runtime,
        precision=config.precision,
        batch_size=config.batch_size,
        threads=config.threads,
    )


@dataclass(frozen=True, kw_only=True)
class Models:
    """What predicts networks of files somewhere: precision and batch size may be each file's own."""

    device: str
    runtime: str
    precision: str | None = None
    """None: the file's own."""
    threads: int = 1
    profiles_directory: Path | None = None
    _opened: dict[tuple[str, int], CostModel] = field(default_factory=dict, repr=False, compare=False)

    def open(self, *, precision: str, batch_size: int) -> CostModel:
        """What predicts latencies there, opened once; errors as of `open_cost_model`."""
        key = (precision, batch_size)
        if key not in self._opened:
            target = self._target(precision, batch_size)
            self._opened[key] = open_cost_model(target, profiles_directory=self.profiles_directory)
        return self._opened[key]

    def keep(self, model: CostModel, *, precision: str, batch_size: int) -> CostModel:
        """Answer with this model from now on: its table has been extended."""
        self._opened[precision, batch_size] = model
        return model

    @property
    def is_measured_here(self) -> bool:
        """Whether all that was opened is (see the function `is_measured_here`)."""
        return all(map(is_measured_here, self._opened.values()))

    @property
    def disclaimers(self) -> list[str]:
        """What a reader of the predictions must be told."""
        return list(dict.fromkeys(model.disclaimer for model in self._opened.values() if model.disclaimer))

    def profile_command(
        self,
        precision: str,
        batch_size: int,
        *,
        models: Sequence[Path] = (),
        input_shapes: Mapping[str, Shape] | None = None,
    ) -> str:
        """What to type to measure networks of files there."""
        target = self._target(precision, batch_size)
        return profile_command(
            target, directory=self.profiles_directory, models=models, input_shapes=input_shapes
        )

    def _target(self, precision: str, batch_size: int) -> Target:
        return Target(
            device=self.device,
            runtime=self.runtime,
            precision=precision,
            batch_size=batch_size,
            threads=self.threads,
        )


def open_estimate(target: Target, directory: Path) -> CostModel:
    """The estimate of a catalogued GPU, calibrated by the user, or else on measurements of others."""
    from dsonas_hw.estimate.calibrated import open_calibrated
    from dsonas_hw.estimate.estimate import load_estimate

    estimate = load_estimate(target)
    return open_calibrated(estimate.target, directory) or open_shipped(estimate) or estimate


def open_shipped(estimate: EstimatedLatency) -> CalibratedLatency | None:
    """The estimate as calibrated on networks that others measured; None if nobody did.

    A device file of the user's own describes another device, whatever its name: what is shipped is not of it.
    """
    from dsonas_hw.device.spec import load_device
    from dsonas_hw.estimate.calibrated import CalibratedLatency, calibration_path, load_calibration

    path = calibration_path(shipped_profiles(), estimate.target)
    if not path.exists():
        return None
    calibration = load_calibration(path)
    if calibration.base != estimate.fingerprint:
        return None
    return CalibratedLatency(
        load_device(estimate.target.device), batch_size=estimate.target.batch_size, calibration=calibration
    )


def is_measured_here(model: CostModel) -> bool:
    """Whether the user (or a table of hers) measured something on this device: not so for estimates, nor for
    what is calibrated on the measurements of others."""
    from dsonas_hw.estimate.calibrated import CalibratedLatency

    if isinstance(model, CalibratedLatency):
        return not model.calibration.measured_by
    return model.source != "estimated"


def open_table(path: Path, *, profile_options: str = "") -> MeasuredCosts | None:
    """The model of one table; None for a listing of estimates, which the estimate itself answers better.

    Raises:
        ProfileError: damaged, unfinished, or measured on another machine than this `local`.
    """
    table = load_table(path)
    if table.header.target.device == LOCAL:
        check_is_this_machine(table.header, path, profile_options=profile_options)
    if table.header.source == "estimated":
        return None
    return MeasuredCosts(table, profile_options=profile_options)


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
            + profile_command(header.target, directory=directory_of(path), options=profile_options)
        )


def resolve(device: str, runtime: str | None) -> tuple[str, str]:
    """A device's own name for an alias, and the runtime to assume when none is asked for.

    Raises:
        DeviceError: no such device, or its datasheet excludes the runtime.
    """
    if device == LOCAL:
        return LOCAL, get_runtime(runtime).name if runtime else runtimes_of(None)[0].name
    from dsonas_hw.device.spec import load_device

    found = load_device(device)
    served = [served.name for served in runtimes_of(found)]
    if runtime is None:
        return found.name, served[0]
    if not get_runtime(runtime).on_gpu:
        raise DeviceError(
            f"{runtime} runs on the device {LOCAL}, {found.name} is a GPU; leave --runtime away"
        )
    if runtime not in served:
        support = found.runtimes.get(runtime)
        reason = f": {support.install}" if support else ""
        raise DeviceError(
            f"{runtime} does not serve {found.name}{reason}; runtimes that do: {', '.join(served)}"
        )
    return found.name, runtime


def find_table(target: Target, *, profiles_directory: Path | None = None) -> Path | None:
    """The user's table that serves a target; None if there is none."""
    path = table_path(profiles_directory or user_profiles(), target)
    return path if path.exists() else None


def user_profiles() -> Path:
    """Where a user's own tables live."""
    from dsonas_hw.device.paths import data_directory

    return data_directory() / "profiles"


def shipped_profiles() -> Path:
    """Where the calibrations of this package lie; read only."""
    from importlib import import_module

    return Path(import_module("dsonas_hw.profiles").__path__[0])
