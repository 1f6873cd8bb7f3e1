"""Profiling a GPU: measured through its runtime if it is here, listed from the estimate if it is not.

A GPU that is here is measured on whole networks of a space; they calibrate the analytic estimate of its model
(`estimate.calibrate`), whose error on networks that were left out goes into the table. A GPU that is absent
gets a table whose every row says `estimated`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from dsonas_hw.cost.model import LatencyModel
from dsonas_hw.device.lock import exclusive_device
from dsonas_hw.device.spec import load_device
from dsonas_hw.device.watch import GpuWatch, watch_gpu
from dsonas_hw.errors import DeviceError
from dsonas_hw.kernel.spec import Kernel
from dsonas_hw.measure.probe import Probe
from dsonas_hw.profile.check import fit_flops_line, summarise_errors
from dsonas_hw.profile.open import user_profiles
from dsonas_hw.profile.probes import probe_networks
from dsonas_hw.profile.profile_space import NUM_NETWORKS, Progress, path_of
from dsonas_hw.runtime.base import Session
from dsonas_hw.runtime.registry import get_runtime, open_session
from dsonas_hw.space.space import SearchSpace
from dsonas_hw.table.rows import ESTIMATE, CheckRow, KernelRow, NetworkRow, Row, Scalar, Source, TableHeader
from dsonas_hw.table.table import TableWriter, now_utc, save_table
from dsonas_hw.target import Target

if TYPE_CHECKING:
    from dsonas_hw.estimate.calibrate import Calibration
    from dsonas_hw.runtime.detect import DetectedDevice

OpenSession = Callable[[bytes, Target], Session]
Watch = Callable[..., AbstractContextManager[GpuWatch]]


@dataclass(frozen=True, kw_only=True)
class GpuProfile:
    """A table of a GPU."""

    path: Path
    source: Source
    expected_error: float
    """Relative error to expect of a network: half the 90 % interval, or the cross-validated MAPE."""
    num_kernels: int
    remarks: tuple[str, ...] = ()
    """What makes the measurements doubtful."""


def estimate_gpu(
    spaces: Iterable[SearchSpace],
    target: Target,
    *,
    profiles_directory: Path | None = None,
) -> GpuProfile:
    """List what the estimate of a GPU says about the kernels of some spaces; nothing is measured.

    Raises:
        DeviceError: no such GPU.
        ProfileError: no estimate exists for this runtime, or the table cannot be written.
    """
    from dsonas_hw.estimate.estimate import load_estimate

    device = load_device(target.device)
    model = load_estimate(target)
    probes = [
        probe
        for space in spaces
        for probe in probe_networks(
            space, num_networks=NUM_NETWORKS, batch_size=target.batch_size, fuse=model.fuse
        )
    ]
    facts: dict[str, Scalar] = {
        "device_title": device.title,
        "expected_error": round(model.expected_error, 3),
        "caution": model.caution,
    }
    header = _header(target, device.fingerprint, "estimated", facts)
    rows = _kernel_rows(model, probes, "estimated")
    path = path_of(target, profiles_directory)
    save_table(path, header, rows)
    return GpuProfile(
        path=path, source="estimated", expected_error=model.expected_error, num_kernels=len(rows)
    )


def measure_gpu(
    spaces: Sequence[SearchSpace],
    target: Target,
    detected: DetectedDevice,
    *,
    profiles_directory: Path | None = None,
    num_networks: int = NUM_NETWORKS,
    sm_clock_mhz: int | None = None,
    open_network: OpenSession | None = None,
    watch: Watch = watch_gpu,
    progress: Progress = lambda done, total, text: None,
) -> GpuProfile:
    """Time networks of some spaces on a GPU that is here, and calibrate its estimate with them.

    Continues a profile that was interrupted. Waits, network by network, until no one else measures there.

    sm_clock_mhz: the SM clock to hold meanwhile, if the driver permits.
    open_network, watch: stand-ins for tests.

    Raises:
        DeviceError: the runtime cannot serve the GPU, or the GPU is not in the catalogue.
        ProfileError: the table is another device's, damaged, or being written.
    """
    status = detected.status(target.runtime)
    if not status.usable:
        raise DeviceError(f"{detected.title} is here, but {target.runtime} cannot run: {status.reason}")
    if detected.device is None:
        raise DeviceError(
            f"{detected.title} is in no device file; describe it in one (see: dsonas-hw devices --help)"
        )
    runtime = get_runtime(target.runtime)
    fuse = runtime.fuses
    probes = [
        probe
        for space in spaces
        for probe in probe_networks(space, num_networks=num_networks, batch_size=target.batch_size, fuse=fuse)
    ]
    facts = {"device_title": detected.title, "driver": detected.driver_version or ""}
    header = _header(target, detected.fingerprint, "calibrated", facts)
    versions = {**runtime.versions(), runtime.module: status.version or ""}
    header = replace(header, versions={**header.versions, **versions})
    path = path_of(target, profiles_directory)
    open_network = open_network or open_session
    assert detected.index is not None
    with watch(detected.index, sm_clock_mhz=sm_clock_mhz) as seen:
        # A clock that is held is a condition: timings under another are not mixed with these.
        header = replace(header, settings={**header.settings, "locked_sm_mhz": seen.locked_mhz})
        with TableWriter(path, header) as writer:
            done = {network.name: network for network in writer.existing.networks}
            for index, probe in enumerate(probes):
                progress(index, len(probes), probe.name)
                if probe.name in done:
                    continue
                with (
                    exclusive_device(detected.lock_name),
                    open_network(probe.build(), target) as session,
                ):
                    latency = runtime.measure(session, look=seen.look)
                row = NetworkRow(
                    name=probe.name,
                    latency_ms=latency.latency_ms,
                    flops=probe.flops,
                    relative_noise=latency.coefficient_of_variation,
                    remarks=latency.warnings,
                    kernels=_counts(probe),
                )
                writer.append(row)
                done[probe.name] = row
            networks = [done[probe.name] for probe in probes]
            calibration = _calibrate(
                target,
                probes,
                networks,
                profiles_directory or user_profiles(),
                locked_sm_mhz=seen.locked_mhz,
            )
            model = _calibrated_model(target, calibration)
            rows = _kernel_rows(model, probes, "calibrated")
            check = _check_row(calibration, probes, networks)
            if seen.states:  # the clocks under load, which were not known when the table was begun
                writer.header = replace(writer.header, clocks=dict(seen.clocks))
            writer.rewrite([*rows, *networks, check])
    progress(len(probes), len(probes), "")
    return GpuProfile(
        path=path,
        source="calibrated",
        expected_error=calibration.mape,
        num_kernels=len(rows),
        remarks=(*seen.remarks, *_remarks_on(networks)),
    )


def _remarks_on(networks: Sequence[NetworkRow]) -> tuple[str, ...]:
    """What is remarked on networks, each once, with how many it is said of and the first as an example."""
    found: dict[str, list[str]] = {}
    for network in networks:
        for remark in network.remarks:
            found.setdefault(remark.split(":")[0], []).append(f"{network.name}: {remark}")
    return tuple(
        f"{len(remarks)} of {len(networks)} networks are doubtful, such as {remarks[0]}"
        for remarks in found.values()
    )


def _calibrate(
    target: Target,
    probes: Sequence[Probe],
    networks: Sequence[NetworkRow],
    directory: Path,
    *,
    locked_sm_mhz: int | None,
) -> Calibration:
    from dsonas_hw.estimate.calibrate import MeasuredNetwork, calibrate
    from dsonas_hw.estimate.calibrated import calibration_path, save_calibration
    from dsonas_hw.estimate.estimate import load_estimate

    estimate = load_estimate(target)
    measured = [
        MeasuredNetwork(
            name=network.name,
            kernels=[step.kernel for step in probe.schedule.kernels],
            batch_size=target.batch_size,
            latency_ms=network.latency_ms,
        )
        for probe, network in zip(probes, networks, strict=True)
    ]
    calibration = replace(calibrate(estimate, measured), locked_sm_mhz=locked_sm_mhz)
    save_calibration(calibration, calibration_path(directory, target))
    return calibration


def _calibrated_model(target: Target, calibration: Calibration) -> LatencyModel:
    from dsonas_hw.estimate.calibrated import CalibratedLatency

    return CalibratedLatency(
        load_device(target.device), batch_size=target.batch_size, calibration=calibration
    )


def _check_row(calibration: Calibration, probes: Sequence[Probe], networks: Sequence[NetworkRow]) -> CheckRow:
    """The calibration's cross-validated error, beside the line in flops."""
    from dsonas_hw.table.rows import ErrorSummary

    line = fit_flops_line(networks)
    measured = [network.latency_ms for network in networks]
    baselines = {}
    if line is not None:
        baselines["a line in flops"] = summarise_errors([line(probe.flops) for probe in probes], measured)
    spread = calibration.relative_sd
    return CheckRow(
        space="cross-validated",
        num_networks=len(networks),
        error=ErrorSummary(
            mape=calibration.mape, share_within_10=_share_within(0.1, spread), kendall_tau=None
        ),
        baselines=baselines,
        created=now_utc(),
    )


def _share_within(limit: float, spread: float) -> float:
    """Share of a normal distribution of this spread that lies within ± limit."""
    from math import erf, sqrt

    return erf(limit / (spread * sqrt(2))) if spread > 0 else 1.0


def _kernel_rows(model: LatencyModel, probes: Iterable[Probe], source: Source) -> list[Row]:
    kernels: dict[Kernel, None] = {}
    for probe in probes:
        kernels.update(dict.fromkeys(step.kernel for step in probe.schedule.kernels))
    return [
        KernelRow(
            kernel=kernel,
            latency_ms=max(model.kernel_cost(kernel), 1e-9),
            source=source,
            statistic=ESTIMATE,
        )
        for kernel in kernels
    ]


def _counts(probe: Probe) -> dict[str, int]:
    counts: dict[str, int] = {}
    for step in probe.schedule.kernels:
        counts[step.kernel.key] = counts.get(step.kernel.key, 0) + 1
    return counts


def _header(target: Target, fingerprint: str, source: Source, settings: Mapping[str, Scalar]) -> TableHeader:
    from dsonas_hw import __version__

    return TableHeader(
        target=target,
        fingerprint=fingerprint,
        source=source,
        created=now_utc(),
        versions={"dsonas-hw": __version__},
        settings=dict(settings),
    )
