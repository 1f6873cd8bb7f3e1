"""Measuring a device: networks are timed in batches, every batch is appended to the table as it ends.

    batch of networks ─▶ plain sessions and profiled sessions, timed in turns ─▶ rows ─▶ table
    all batches done  ─▶ fit ─▶ correction row ─▶ one line per kernel

A profile that is killed continues with the first network that the table does not hold.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from dsonas_hw.kernel.spec import Kernel
from dsonas_hw.profile.fit import TimedNetwork, fit_correction
from dsonas_hw.profile.in_situ import NetworkTiming, ProfiledSession, native_block_size
from dsonas_hw.profile.measurement import LatencyMeasurement, measure_together
from dsonas_hw.profile.probe import Probe
from dsonas_hw.profile.rows import KernelRow, NetworkRow, Row, TableHeader
from dsonas_hw.profile.runtimes import open_session
from dsonas_hw.profile.table import LatencyTable, TableWriter, load_table, now_utc

NETWORKS_PER_BATCH = 8
NUM_ROUNDS = 6

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, kw_only=True)
class MeasuringConditions:
    """What is measured where; becomes the header of the table."""

    device: str = "local"
    runtime: str = "ort-cpu"
    precision: str = "fp32"
    batch_size: int = 1
    threads: int = 1


def local_header(conditions: MeasuringConditions) -> TableHeader:
    """The header of a table that is measured on this machine's CPU."""
    from dsonas_hw.device.cpu import local_cpu
    from dsonas_hw.profile.ort import import_onnxruntime

    cpu = local_cpu()
    return TableHeader(
        device=conditions.device,
        fingerprint=cpu.fingerprint,
        runtime=conditions.runtime,
        precision=conditions.precision,
        batch_size=conditions.batch_size,
        threads=conditions.threads,
        source="measured",
        created=now_utc(),
        versions={"onnxruntime": str(import_onnxruntime().__version__)},
        clocks={"maximum_mhz": _maximum_mhz()},
        settings={
            "device_title": cpu.title,
            "block_size": native_block_size(),
            "method": "in situ",
            "num_rounds": NUM_ROUNDS,
        },
    )


def profile_networks(
    path: Path,
    header: TableHeader,
    probes: Sequence[Probe],
    *,
    progress: Progress = lambda done, total, text: None,
) -> LatencyTable:
    """Time networks and their kernels, and fit the table on them; continues a table that was interrupted.

    Raises:
        ProfileError: the table cannot be written, is another device's, or another profile writes it.
    """
    with TableWriter(path, header) as writer:
        done = {network.name for network in writer.existing.networks}
        todo = [probe for probe in probes if probe.name not in done]
        total = len(probes)
        progress(total - len(todo), total, "")
        for batch in _batches(todo, NETWORKS_PER_BATCH):
            for row in _measure_batch(batch, writer.header):
                writer.append(row)
            todo = todo[len(batch) :]
            progress(total - len(todo), total, f"{len(probes) - len(todo)} networks")
        return finish_table(writer)


def finish_table(writer: TableWriter) -> LatencyTable:
    """Fit, and leave one line per kernel.

    Raises:
        ProfileError: too few networks were timed.
    """
    table = load_table(writer.path)
    timed = [
        TimedNetwork(
            kernels=[
                table.kernels[key].kernel for key, count in network.kernels.items() for _ in range(count)
            ],
            latency_ms=network.latency_ms,
        )
        for network in table.networks
        if all(key in table.kernels for key in network.kernels)
    ]
    correction = fit_correction(list(table.kernels.values()), timed)
    rows: list[Row] = [*table.kernels.values(), *table.networks, correction, *table.checks.values()]
    writer.rewrite(rows)
    return load_table(writer.path)


def _measure_batch(batch: Sequence[Probe], header: TableHeader) -> Iterator[Row]:
    """Rows of the networks of a batch, each network's kernels before the network itself."""
    models = [probe.build() for probe in batch]
    with contextlib.ExitStack() as stack:
        plain = [
            stack.enter_context(
                open_session(
                    model,
                    runtime=header.runtime,
                    precision=header.precision,
                    batch_size=header.batch_size,
                    threads=header.threads,
                )
            )
            for model in models
        ]
        profiled = [
            ProfiledSession(model, threads=header.threads, batch_size=header.batch_size) for model in models
        ]
        runs = [*(session.run for session in plain), *(session.run for session in profiled)]
        timings = measure_together(runs, plain[0].synchronize, num_rounds=NUM_ROUNDS)
        for probe, session, latency in zip(batch, profiled, timings, strict=False):
            yield from _rows(probe, session.finish(), latency)


def _rows(probe: Probe, timing: NetworkTiming, latency: LatencyMeasurement) -> Iterator[Row]:
    found: dict[Kernel, list[float]] = {}
    for node in timing.nodes:
        found.setdefault(node.kernel, []).append(node.latency_ms)
    for kernel, values in found.items():
        mean = max(sum(values) / len(values), 1e-6)
        spread = (sum((value - mean) ** 2 for value in values) / len(values)) ** 0.5
        yield KernelRow(
            kernel=kernel,
            latency_ms=mean,
            source="measured",
            num_samples=len(values),
            statistic="mean of quiet runs, in situ",
            latency_ms_std=spread,
        )
    yield NetworkRow(
        name=probe.name,
        latency_ms=latency.latency_ms,
        flops=probe.flops,
        relative_noise=latency.coefficient_of_variation,
        kernels=dict(Counter(node.kernel.key for node in timing.nodes)),
    )


def _batches(probes: Sequence[Probe], size: int) -> Iterator[list[Probe]]:
    iterator = iter(probes)
    while batch := list(islice(iterator, size)):
        yield batch


def _maximum_mhz() -> float | None:
    """The CPU's highest clock, where the system tells."""
    try:
        text = Path("/sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq").read_text()
        return int(text) / 1e3
    except (OSError, ValueError):
        return None
