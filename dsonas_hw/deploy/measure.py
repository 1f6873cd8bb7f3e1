"""Measuring a network on the target, if the target is here."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from dsonas_hw.config import DeviceConfig
from dsonas_hw.device.lock import exclusive_device
from dsonas_hw.device.spec import LOCAL
from dsonas_hw.errors import DeviceError, command_line
from dsonas_hw.profile.measurement import LatencyMeasurement, measure_together
from dsonas_hw.profile.profiler import MeasuringConditions, open_yardstick
from dsonas_hw.profile.runtimes import Session, measure_session, open_session, read_model

if TYPE_CHECKING:
    from dsonas_hw.device.detect import DetectedDevice
    from dsonas_hw.device.energy import EnergyMeasurement

GPU_RUNTIMES = ("tensorrt", "ort-tensorrt", "ort-cuda", "eager")
"""In the order in which they are tried when none is asked for."""
NUM_ROUNDS = 20
"""Of 30 ms or 5 inferences: on a shared machine speed changes within a second, and 6 rounds repeat to 1 %."""


@dataclass(frozen=True, kw_only=True)
class TargetMeasurement:
    """What the target needs for one inference of one batch."""

    latency: LatencyMeasurement
    energy: EnergyMeasurement | None
    """None: the device does not tell."""
    runtime: str
    versions: Mapping[str, str]
    device_title: str


def find_target(target: DeviceConfig) -> tuple[DetectedDevice, str] | None:
    """The target and the runtime it is measured with; None: it is not here.

    Raises:
        DeviceError: it is here, but the runtime (or, when none is asked for, every one) cannot serve it, or
            CUDA would run on another GPU.
    """
    from dsonas_hw.device.cuda_order import as_cuda_gives_it
    from dsonas_hw.device.detect import detect_devices

    detection = detect_devices()
    device = detection.find(target.device)
    if device is None:
        return None
    device = as_cuda_gives_it(detection, device)
    if target.runtime is not None:
        wanted: tuple[str, ...] = (target.runtime,)
    else:
        wanted = ("ort-cpu",) if device.name == LOCAL else GPU_RUNTIMES
    statuses = [device.status(runtime) for runtime in wanted]
    for status in statuses:
        if status.usable:
            return device, status.runtime
    raise DeviceError(f"{device.title} is here, but {statuses[0].runtime} cannot run: {statuses[0].reason}")


def measure_on_target(
    model: bytes | Path, target: DeviceConfig, *, engine_path: Path | None = None
) -> TargetMeasurement | None:
    """Latency and, where the device tells, energy of an ONNX model; None: the target is not here.

    Waits until no one else measures on the device.
    engine_path: for the runtime tensorrt, an engine of this model that is timed instead of building one.

    Raises:
        DeviceError: the target is here and cannot run the model.
        ModelFileError: not a model that the runtime takes.
    """
    found = find_target(target)
    if found is None:
        return None
    device, runtime = found
    with exclusive_device(device.name), _open(model, runtime, target, device, engine_path) as session:
        if device.name == LOCAL:
            conditions = MeasuringConditions(runtime=runtime, threads=target.threads)
            with open_yardstick(conditions) as yardstick:
                latency, energy = measure_rounds(session, yardstick=yardstick.run), None
        else:
            latency, energy = _measure_on_gpu(session, device)
        return TargetMeasurement(
            latency=latency,
            energy=energy,
            runtime=runtime,
            versions=dict(session.versions),
            device_title=device.title,
        )


def _open(
    model: bytes | Path, runtime: str, target: DeviceConfig, device: DetectedDevice, engine_path: Path | None
) -> Session:
    if runtime == "tensorrt" and engine_path is not None:
        from dsonas_hw.profile.tensorrt import open_engine

        _check_engine(engine_path, read_model(model), target)
        return open_engine(engine_path)
    return open_session(
        model,
        runtime=runtime,
        precision=target.precision,
        batch_size=target.batch_size,
        threads=target.threads,
        on_cpu=device.name == LOCAL,
    )


def _check_engine(engine_path: Path, model: bytes, target: DeviceConfig) -> None:
    """Refuse an engine whose timing would be another network's, or another precision's or batch's."""
    from dsonas_hw.profile.tensorrt_build import load_engine_info

    info = load_engine_info(engine_path)
    if info.model_sha256 != hashlib.sha256(model).hexdigest():
        found = "another model"
    elif (info.precision, info.batch_size) != (target.precision, target.batch_size):
        found = f"{info.precision} at batch {info.batch_size}, not {target.precision} at {target.batch_size}"
    else:
        return
    command = command_line(
        "export", engine_path.parent, "--format", "tensorrt", "--precision", target.precision
    )
    raise DeviceError(f"{engine_path} is of {found}; build it again: {command}; or delete it")


def measure_rounds(
    session: Session, *, num_rounds: int = NUM_ROUNDS, yardstick: Callable[[], object] | None = None
) -> LatencyMeasurement:
    """Latency on a machine that others may use: short rounds, of which the quiet ones count.

    yardstick: run between the rounds, and tells how fast the machine was (`LatencyMeasurement.turns`).
    """
    (measurement,) = measure_together(
        [session.run], session.synchronize, num_rounds=num_rounds, yardstick=yardstick
    )
    return measurement


def _measure_on_gpu(
    session: Session, device: DetectedDevice
) -> tuple[LatencyMeasurement, EnergyMeasurement | None]:
    """Latency with the driver's remarks about clocks and throttling, and energy if the driver counts it."""
    from dsonas_hw.device.energy import NO_ENERGY, measure_energy
    from dsonas_hw.device.watch import watch_gpu

    assert device.index is not None
    with watch_gpu(device.index) as watch:
        latency = measure_session(session)
        watch.look()
        remarks = (*latency.remarks, *watch.remarks)
        try:
            energy = measure_energy(session.run, session.synchronize, meter=watch.gpu)
        except DeviceError as error:
            energy, remarks = None, (*remarks, f"{NO_ENERGY}{error}")
    return replace(latency, remarks=remarks), energy
