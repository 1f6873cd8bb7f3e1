"""What an ONNX file costs on a device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dsonas_hw.cost.model import LatencyModel, LatencyPrediction, Source
from dsonas_hw.errors import ProfileError
from dsonas_hw.kernel.network import Schedule
from dsonas_hw.profile.measured import MeasuredLatency

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class NetworkPrediction:
    """The fields of `dsonas-hw predict --json`."""

    model: str
    device: str
    runtime: str
    precision: str
    batch_size: int
    flops: int
    mac: int
    params: int
    latency_ms: float
    latency_ms_low: float
    latency_ms_high: float
    source: Source
    unknown_kernels: tuple[str, ...]
    """Operations that no kernel stands for, and kernels the table does not know: not in the latency."""

    def to_json(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "device": self.device,
            "runtime": self.runtime,
            "precision": self.precision,
            "batch_size": self.batch_size,
            "flops": self.flops,
            "mac": self.mac,
            "params": self.params,
            "latency_ms": self.latency_ms,
            "latency_ms_low": self.latency_ms_low,
            "latency_ms_high": self.latency_ms_high,
            "source": self.source,
            "unknown_kernels": list(self.unknown_kernels),
        }


def predict_onnx(path: Path, model: LatencyModel) -> NetworkPrediction:
    """Count and predict an ONNX network.

    Raises:
        ModelFileError: the file is not a network that can be read.
        ProfileError: more than half of its operations are unknown, or of its kernels to the device's table.
    """
    from dsonas_hw.kernel.from_onnx import schedule_from_onnx

    schedule, unknown = schedule_from_onnx(path, batch_size=model.batch_size, fuse=model.fuse)
    kernels = [step.kernel for step in schedule.kernels]
    if len(unknown) > len(kernels):
        raise ProfileError(
            f"{len(unknown)} operations of {path} are unknown, e.g. {unknown[0]}; the latency of the "
            f"{len(kernels)} that are known would not be the network's"
        )
    counted = kernels if model.fuse else [s.kernel for s in _fused(path, model.batch_size).kernels]
    prediction, missing = _predict(model, schedule, str(path))
    return NetworkPrediction(
        model=str(path),
        device=model.device,
        runtime=model.runtime,
        precision=model.precision,
        batch_size=model.batch_size,
        flops=sum(kernel.flops for kernel in counted),
        mac=sum(kernel.mac for kernel in counted),
        params=sum(kernel.params for kernel in counted),
        latency_ms=prediction.latency_ms,
        latency_ms_low=prediction.latency_ms_low,
        latency_ms_high=prediction.latency_ms_high,
        source=prediction.source,
        unknown_kernels=(*unknown, *missing),
    )


def learn_onnx(path: Path, model: LatencyModel, *, say: Say) -> LatencyModel:
    """The model that knows the kernels of a network: if its table lacks some, the network is timed first.

    Where that is not possible, or the network has operations that no kernel stands for, it stays as it is.

    Raises:
        ModelFileError: the file is not a network that can be read.
    """
    from dsonas_hw.kernel.from_onnx import schedule_from_onnx
    from dsonas_hw.profile.model_probes import model_probe
    from dsonas_hw.profile.on_demand import can_be_extended, measure_unknown

    if not isinstance(model, MeasuredLatency) or not can_be_extended(model):
        return model
    schedule, unknown_operations = schedule_from_onnx(path, batch_size=model.batch_size, fuse=model.fuse)
    unknown = model.unknown(schedule)
    if unknown_operations or not unknown:
        return model
    return measure_unknown(model, unknown, [model_probe(path, batch_size=model.batch_size)], say=say)


def _fused(path: Path, batch_size: int) -> Schedule:
    from dsonas_hw.kernel.from_onnx import schedule_from_onnx

    return schedule_from_onnx(path, batch_size=batch_size, fuse=True)[0]


def _predict(model: LatencyModel, schedule: Schedule, name: str) -> tuple[LatencyPrediction, tuple[str, ...]]:
    if not isinstance(model, MeasuredLatency):
        return model.predict([step.kernel for step in schedule.kernels]), ()
    deployed = model.deploy(schedule)
    known = [kernel for kernel in deployed if model.knows(kernel)]
    missing = tuple(dict.fromkeys(k.key for k in deployed if not model.knows(k)))
    num_flops = sum(kernel.flops for kernel in deployed)
    if 2 * len(known) < len(deployed) or 2 * sum(kernel.flops for kernel in known) < num_flops:
        raise ProfileError(
            f"{len(deployed) - len(known)} of {len(deployed)} kernels of {name} were never measured on "
            f"{model.device} with {model.runtime}, e.g. {missing[0]}"
        )
    return model.predict_part(model.part(known)), missing
