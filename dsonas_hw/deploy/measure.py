"""Measuring a network on the target, if the target is here."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from dsonas_hw.budget import Metric
from dsonas_hw.config import DeviceConfig
from dsonas_hw.cost.measured import MeasuredCosts
from dsonas_hw.cost.model import CostModel
from dsonas_hw.device.lock import exclusive_device
from dsonas_hw.device.spec import LOCAL
from dsonas_hw.errors import DeviceError
from dsonas_hw.measure.energy import (
    PROFILE_WINDOWS,
    VERDICT_WINDOWS,
    EnergyMeasurement,
    EnergyMeter,
    energy_or_reason,
)
from dsonas_hw.measure.measurement import LatencyMeasurement
from dsonas_hw.measure.reference import Speed
from dsonas_hw.measure.rounds import QUICK, VERDICT, Plan, measure_rounds
from dsonas_hw.measure.statistics import Estimate, Statistic
from dsonas_hw.profile.cpu_bench import open_references
from dsonas_hw.runtime.base import Session
from dsonas_hw.runtime.model import read_model
from dsonas_hw.runtime.registry import all_runtimes, get_runtime, open_session, runtimes_of
from dsonas_hw.target import Target

if TYPE_CHECKING:
    from dsonas_hw.runtime.detect import DetectedDevice

COMPARED_AT = Speed(small_ms=0.03, large_ms=1.0)
"""About that of a usual server."""
Progress = Callable[[int, int], None]
"""Called after every turn with the turns done and those there are."""


def silent(done: int, total: int) -> None:
    """Report nothing."""


@dataclass(frozen=True, kw_only=True)
class TargetMeasurement:
    """What the target needs for one inference of one batch."""

    latency: LatencyMeasurement
    energy: EnergyMeasurement | None
    """None: the device does not tell."""
    runtime: str
    versions: Mapping[str, str]
    device_title: str

    def costs(self, statistic: Statistic, usual: Speed | None) -> dict[str, Estimate | None]:
        """What a budget limits, by quantity: that percentile of the latency in ms, and the energy in mJ.

        usual: speed of the machine, at which the latency is stated (`LatencyMeasurement.estimate`).
        """
        return {
            "latency_ms": self.latency.estimate(statistic, usual),
            "energy_mj": self.energy.estimate if self.energy else None,
        }


def usual_speed_of(model: CostModel | None) -> Speed | None:
    """The usual speed of this machine, by its profile; None: there is none, or it is another device's."""
    return model.usual_speed if isinstance(model, MeasuredCosts) else None


def find_target(target: DeviceConfig) -> tuple[DetectedDevice, str] | None:
    """The target and the runtime it is measured with; None: it is not here.

    Raises:
        DeviceError: it is here, but the runtime (or, when none is asked for, every one) cannot serve it, or
            CUDA would run on another GPU.
    """
    from dsonas_hw.runtime.cuda_order import as_cuda_gives_it
    from dsonas_hw.runtime.detect import detect_devices

    detection = detect_devices()
    device = detection.find(target.device)
    if device is None:
        return None
    device = as_cuda_gives_it(detection, device)
    if target.runtime is not None:
        wanted: tuple[str, ...] = (target.runtime,)
    else:
        served = runtimes_of(None)[:1] if device.name == LOCAL else [r for r in all_runtimes() if r.on_gpu]
        wanted = tuple(runtime.name for runtime in served)
    statuses = [device.status(runtime) for runtime in wanted]
    for status in statuses:
        if status.usable:
            return device, status.runtime
    raise DeviceError(f"{device.title} is here, but {statuses[0].runtime} cannot run: {statuses[0].reason}")


def measure_on_target(
    model: bytes | Path,
    target: DeviceConfig,
    *,
    engine_path: Path | None = None,
    plan: Plan | None = None,
    progress: Progress = silent,
) -> TargetMeasurement | None:
    """Latency and, where the device tells, energy of an ONNX model; None: the target is not here.

    Takes half a minute, and waits before until no one else measures on the device.
    engine_path: for the runtime tensorrt, an engine of this model that is timed instead of building one.
    plan: how it is timed; None: for a verdict.

    Raises:
        DeviceError: the target is here and cannot run the model.
        ModelFileError: not a model that the runtime takes.
    """
    found = find_target(target)
    if found is None:
        return None
    device, where = found[0], _target_of(target, *found)

    def open_network() -> Session:
        return open_deployed(model, where, engine_path)

    with exclusive_device(device.lock_name):
        if device.name == LOCAL:
            latency, energy, versions = _measure_here(open_network, where, plan or VERDICT, progress)
        else:
            with open_network() as session:
                latency, energy = _measure_on_gpu(session, where, device, plan or VERDICT, progress)
                versions = dict(session.versions)
    return TargetMeasurement(
        latency=latency, energy=energy, runtime=where.runtime, versions=versions, device_title=device.title
    )


def measure_relative(
    model: bytes, target: DeviceConfig, metrics: Collection[Metric]
) -> dict[Metric, float] | None:
    """Metrics of an ONNX model for comparison with other models on this target; None: it is not here.

    Takes a second for the latency, and some more for an energy. On this machine a latency is stated at the
    speed `COMPARED_AT`, which takes the machine's changes of speed out.

    Raises:
        as `measure_on_target`.
    """
    found = find_target(target)
    if found is None:
        return None
    relative: dict[Metric, float] = {}
    device, where = found[0], _target_of(target, *found)

    def open_network() -> Session:
        return open_deployed(model, where, None)

    with exclusive_device(device.lock_name):
        if "latency" in metrics and device.name == LOCAL:
            with open_references(where) as references:
                latency = measure_rounds(open_network, plan=QUICK, references=references)
                relative["latency"] = latency.latency_at(COMPARED_AT)
        elif "latency" in metrics:
            with open_network() as session:
                relative["latency"] = get_runtime(where.runtime).measure(session, plan=QUICK).quiet_ms
        if "energy" in metrics:
            with _open_meter(device, where) as meter, open_network() as session:
                energy, _ = energy_or_reason(
                    session.run, session.synchronize, meter=meter, num_windows=PROFILE_WINDOWS
                )
                if energy is not None:
                    relative["energy"] = energy.energy_mj
    return relative


@contextmanager
def _open_meter(device: DetectedDevice, target: Target) -> Iterator[EnergyMeter | None]:
    """What tells the energy of a device; None: nothing does."""
    from dsonas_hw.device.nvml import open_nvml

    if device.index is None:
        yield get_runtime(target.runtime).meter
    else:
        with open_nvml() as nvml:
            yield nvml.gpu(device.index)


def _target_of(target: DeviceConfig, device: DetectedDevice, runtime: str) -> Target:
    return Target(
        device=device.name,
        runtime=runtime,
        precision=target.precision,
        batch_size=target.batch_size,
        threads=target.threads,
    )


def open_deployed(model: bytes | Path, target: Target, engine_path: Path | None) -> Session:
    """A session of a model, or of the engine that was built from it where the runtime has such.

    Raises:
        DeviceError: the engine is of another model, precision or batch size.
    """
    runtime = get_runtime(target.runtime)
    if runtime.makes_engines and engine_path is not None:
        return runtime.open_engine(engine_path, read_model(model), target)
    return open_session(model, target)


def _measure_here(
    open_network: Callable[[], Session], target: Target, plan: Plan, progress: Progress
) -> tuple[LatencyMeasurement, EnergyMeasurement | None, dict[str, str]]:
    """Latency on this machine, the reference workload beside it; its energy; and the versions of what ran."""
    versions: dict[str, str] = {}

    def open_noted() -> Session:
        session = open_network()
        versions.update(session.versions)
        return session

    with open_references(target) as references:
        latency = measure_rounds(open_noted, plan=plan, references=references, progress=progress)
    meter = get_runtime(target.runtime).meter
    if meter is None:
        return latency, None, versions
    with open_network() as session:
        energy, remarks = energy_or_reason(
            session.run, session.synchronize, meter=meter, num_windows=VERDICT_WINDOWS
        )
    return replace(latency, remarks=(*latency.remarks, *remarks)), energy, versions


def profiled_clock_mhz(target: Target) -> int | None:
    """The SM clock at which the target was profiled; None: it moved as it liked, or there is no profile.

    Predictions are of that clock, and so is what they are compared with.
    """
    from dsonas_hw.profile.bench import clock_of
    from dsonas_hw.profile.open import find_table
    from dsonas_hw.table.table import load_table

    path = find_table(target)
    return clock_of(load_table(path)) if path is not None else None


def _measure_on_gpu(
    session: Session, target: Target, device: DetectedDevice, plan: Plan, progress: Progress
) -> tuple[LatencyMeasurement, EnergyMeasurement | None]:
    """Latency with the driver's remarks about clocks and throttling, and energy if the driver counts it."""
    from dsonas_hw.device.watch import watch_gpu

    assert device.index is not None
    with watch_gpu(device.index, sm_clock_mhz=profiled_clock_mhz(target)) as watch:
        latency = get_runtime(target.runtime).measure(
            session, plan=plan, with_cuda_graph=True, look=watch.look, progress=progress
        )
        remarks = (*latency.remarks, *watch.remarks)
        energy, why_not = energy_or_reason(
            session.run, session.synchronize, meter=watch.gpu, num_windows=VERDICT_WINDOWS
        )
    return replace(latency, remarks=(*remarks, *why_not)), energy
