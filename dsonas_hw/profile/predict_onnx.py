"""What an ONNX file costs on a device."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dsonas_hw.budget import METRICS, Metric
from dsonas_hw.cost.measured import MeasuredCosts
from dsonas_hw.cost.model import CostModel, Prediction
from dsonas_hw.errors import ProfileError, one_line
from dsonas_hw.kernel.onnx.from_onnx import OnnxNetwork, network_from_onnx
from dsonas_hw.kernel.onnx.unknown import NEGLIGIBLE, work_of
from dsonas_hw.kernel.recurrent import unrolled
from dsonas_hw.kernel.spec import Kernel, Shape, by
from dsonas_hw.profile.model_precision import precision_of_model
from dsonas_hw.profile.model_probes import PREFIX, model_probe, why_not_timed
from dsonas_hw.profile.on_demand import can_be_extended, measure_unknown
from dsonas_hw.profile.open import Models
from dsonas_hw.table.rows import NetworkRow, Source

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class NetworkPrediction:
    """The fields of `dsonas-hw predict --json`."""

    model: str
    device: str
    runtime: str
    precision: str
    file_precision: str
    """What the file computes in: fp32, fp16, bf16, int8, …"""
    batch_size: int
    input_shapes: Mapping[str, list[int]]
    flops: int
    mac: int
    params: int
    at_least: bool
    """Whether flops, mac and params lack what `unknown_kernels` names."""
    latency_ms: float | None
    """None: nothing that is known would be the network's; `why_no_latency` says why."""
    latency_ms_low: float | None
    latency_ms_high: float | None
    energy_mj: float | None
    """None: there is no latency either, or no energy was measured on this target."""
    energy_mj_low: float | None
    energy_mj_high: float | None
    source: Source | None
    unknown_kernels: tuple[str, ...]
    """Operations that no kernel stands for, and kernels the table does not know: not in the latency."""
    notes: tuple[str, ...]
    """How the bodies of If, Loop and Scan were counted, and what is particular about the precision."""
    why_no_latency: str | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def predict_onnx(
    path: Path,
    target: Models,
    *,
    batch_size: int | None = None,
    input_shapes: Mapping[str, Shape] | None = None,
    say: Say = lambda line: None,
) -> NetworkPrediction:
    """Count and predict an ONNX network; without a latency where none can be told.

    Where this machine's own table lacks a kernel, the network is timed first, and its kernels are known from
    then on.

    batch_size, input_shapes: as of `network_from_onnx`.
    say: hears one line before anything is timed.

    Raises:
        ModelFileError: the file is not a network that can be read, or contradicts the target's precision.
        ProfileError: the target has no table, and none can be estimated.
    """
    network = network_from_onnx(path, batch_size=batch_size, input_shapes=input_shapes)
    precision, warning = precision_of_model(
        str(path), network.precision, asked=target.precision, runtime=target.runtime
    )
    missing: tuple[str, ...] = ()
    predictions: dict[Metric, Prediction] = {}
    reason = _empty_reason(network) if network.is_known else _unknown_reason(network, str(path))
    if reason is None:
        model = target.open(precision=precision, batch_size=network.batch_size)
        running = network
        if not model.fuse:
            sizes: Any = {"batch_size": batch_size, "input_shapes": input_shapes}
            running = network_from_onnx(path, fuse=False, **sizes)
        kernels: Sequence[Kernel] = unrolled(running.kernels)
        timed: NetworkRow | None = None
        if isinstance(model, MeasuredCosts):
            model, timed = _learn(model, running, path, input_shapes or {}, say)
            kernels = model.kernels(running.schedule, timed)
            target.keep(model, precision=precision, batch_size=network.batch_size)
            missing = tuple(kernel.key for kernel in model.unknown(kernels))
            reason = _unmeasured_reason(model, kernels, running, path, target, input_shapes or {})
        try:
            if reason is None:
                predictions = _predict(model, kernels, timed)
        except ProfileError as error:
            reason = one_line(error)
    latency, energy = predictions.get("latency"), predictions.get("energy")
    notes = [*network.notes, *filter(None, [warning, _mixture(network)])]
    return NetworkPrediction(
        model=str(path),
        device=target.device,
        runtime=target.runtime,
        precision=precision,
        file_precision=network.precision or "fp32",
        batch_size=network.batch_size,
        input_shapes={name: list(shape) for name, shape in network.input_shapes.items()},
        **asdict(network.costs),
        at_least=bool(network.unknown),
        latency_ms=latency.value if latency else None,
        latency_ms_low=latency.low if latency else None,
        latency_ms_high=latency.high if latency else None,
        energy_mj=energy.value if energy else None,
        energy_mj_low=energy.low if energy else None,
        energy_mj_high=energy.high if energy else None,
        source=latency.source if latency else None,
        unknown_kernels=(*network.unknown, *missing),
        notes=tuple(notes),
        why_no_latency=reason,
    )


def _learn(
    model: MeasuredCosts, network: OnnxNetwork, path: Path, input_shapes: Mapping[str, Shape], say: Say
) -> tuple[MeasuredCosts, NetworkRow | None]:
    """The model that knows a network, and the network's own row if it was timed, which it is if need be."""
    unknown = model.unknown(model.kernels(network.schedule))
    has_timed = any(row.name.startswith(PREFIX) for row in model.table.networks)
    if why_not_timed(network) or not (unknown or has_timed):
        return model, None
    probe = model_probe(
        path,
        batch_size=network.batch_size,
        input_shapes=input_shapes,
        precision=model.target.precision,
        runtime=model.target.runtime,
    )
    timed = model.timed(probe.name)
    unknown = model.unknown(model.kernels(network.schedule, timed))
    if unknown and can_be_extended(model):
        model = measure_unknown(model, unknown, [probe], say=say)
        timed = model.timed(probe.name)
    return model, timed


def _empty_reason(network: OnnxNetwork) -> str | None:
    """Why there is no latency of a network of which nothing runs; None if something does."""
    if network.kernels:
        return None
    empty = [f"{name}={by(shape)}" for name, shape in network.input_shapes.items() if 0 in shape]
    why = (
        f"an input has a size of 0 ({', '.join(empty)})"
        if empty
        else "every operation is a constant or a view"
    )
    return f"nothing runs in this network: {why}"


def _unknown_reason(network: OnnxNetwork, name: str) -> str:
    """Why there is no latency of a network of which so much is unknown."""
    num = len(network.unknown)
    some = ", ".join(network.unknown[:3]) + (", …" if num > 3 else "")
    what = f"{num} operations of {name} are" if num > 1 else f"1 operation of {name} is"
    return (
        f"{what} unknown ({some}) and may take most of its time; the latency of the rest would not be the "
        "network's"
    )


def _mixture(network: OnnxNetwork) -> str:
    """What to say of a file that computes in several precisions."""
    total = sum(network.flops_in.values())
    own = network.flops_in.get(network.precision, 0)
    if not total or own >= 0.99 * total:
        return ""
    others = (
        ", ".join(sorted(filter(None, network.flops_in.keys() - {network.precision}))) or "another precision"
    )
    return f"{own / total:.0%} of its flops are {network.precision}, the rest {others}"


def _unmeasured_reason(
    model: MeasuredCosts,
    kernels: Sequence[Kernel],
    network: OnnxNetwork,
    path: Path,
    target: Models,
    input_shapes: Mapping[str, Shape],
) -> str | None:
    """Why there is no latency of a network whose kernels the table does not know; None if they are few."""
    unknown = model.unknown(kernels)
    total = sum(map(work_of, kernels))
    lacking = sum(work_of(kernel) for kernel in kernels if kernel in unknown)
    if lacking <= (NEGLIGIBLE - network.unknown_fraction) * (total - lacking):
        return None
    if reason := why_not_timed(network):
        advice = f"they cannot be timed one by one: {reason}"
    elif can_be_extended(model):
        command = target.profile_command(
            model.target.precision, model.target.batch_size, models=[path], input_shapes=input_shapes
        )
        advice = f"measure them with: {command}"
    else:
        advice = "its table cannot be added to"
    return one_line(
        f"{len(unknown)} kernels of {path} ({lacking / total:.0%} of its work) were never measured on "
        f"{model.target.device} with {model.target.runtime}, e.g. {unknown[0].key}; {advice}"
    )


def _predict(
    model: CostModel, kernels: Sequence[Kernel], timed: NetworkRow | None
) -> dict[Metric, Prediction]:
    """What is known of these kernels, by metric; timed: the row of the network itself."""
    metrics = [metric for metric in METRICS if not model.why_not(metric)]
    if not isinstance(model, MeasuredCosts):
        return {metric: model.predict(kernels, metric) for metric in metrics}
    if timed and model.table.kernels_of(timed):
        return {metric: model.predict_timed(timed, metric) for metric in metrics}
    known = [kernel for kernel in kernels if model.knows(kernel)]
    return {metric: model.predict_part(model.part(known, metric), metric) for metric in metrics}
