"""Measuring a device: networks are timed in batches, every batch is appended to the table as it ends.

    batch of networks ─▶ whole networks and their kernels, timed on the bench ─▶ rows ─▶ table
    all batches done  ─▶ fit ─▶ correction row ─▶ one line per kernel

A profile that is killed continues with the first network that the table does not hold.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

from dsonas_hw.cost.fit import TimedNetwork, fit_corrections
from dsonas_hw.cost.network_costs import NetworkCosts, kernel_costs
from dsonas_hw.kernel.spec import Kernel
from dsonas_hw.measure.probe import Probe
from dsonas_hw.measure.reference import Speed
from dsonas_hw.measure.timing import TURN_SECONDS
from dsonas_hw.profile.bench import Bench
from dsonas_hw.profile.cpu_bench import NUM_ROUNDS
from dsonas_hw.profile.network_measurement import NetworkMeasurement
from dsonas_hw.runtime.base import NetworkTiming
from dsonas_hw.runtime.registry import get_runtime
from dsonas_hw.table.rows import KernelRow, NetworkRow, Row, TableHeader
from dsonas_hw.table.table import LookupTable, load_table
from dsonas_hw.table.writer import TableWriter

SETUP_SECONDS, SECONDS_PER_NETWORK = 1.0, 0.2
FLOPS_PER_SECOND = 3e10
"""What a core of a usual server does in a second; like the two before only to say how long it will take."""
SECONDS_PER_KERNEL = 1e-5
MIN_KERNEL_SHARE = 0.2
"""Share of a kernel's timing that is never taken for the profiler's work."""
MOST_SLOWED = 1.25
"""The sum of a network's kernels over its latency; more was never seen of networks that ran undisturbed."""

Progress = Callable[[int, int, str], None]


def profile_networks(
    path: Path,
    bench: Bench,
    probes: Sequence[Probe],
    *,
    fit: bool = True,
    wait_s: float = 0.0,
    progress: Progress = lambda done, total, text: None,
) -> LookupTable:
    """Measure networks and their kernels, and fit the table on them; continues one that was interrupted.

    fit: False leaves that to a call that follows: the table is not finished before.
    wait_s: how long to wait for another process that writes the table.

    Raises:
        DeviceError: the device failed, or was taken away; what was measured is in the table.
        ProfileError: the table cannot be written, is another device's, or another profile writes it.
    """
    if path.exists() and load_table(path).header.source == "estimated":
        path.unlink()  # the device was not here then
    with TableWriter(path, bench.header, wait_s=wait_s) as writer:
        done = {network.name for network in writer.existing.networks}
        todo = [probe for probe in probes if probe.name not in done]
        total = len(probes)
        progress(total - len(todo), total, "")
        unit = Speed.from_values(writer.header.clocks)
        for batch in _batches(todo, bench.networks_at_once):
            for probe, (latency, timing) in zip(batch, bench.time_kernels(batch, unit), strict=True):
                for row in _rows(probe, timing, latency, writer.header, unit):
                    writer.append(row)
            todo = todo[len(batch) :]
            progress(total - len(todo), total, f"{len(probes) - len(todo)} networks")
        writer.header = replace(writer.header, clocks=bench.clocks or writer.header.clocks)
        return finish_table(writer) if fit else load_table(path)


def estimate_seconds(probes: Sequence[Probe]) -> float:
    """About how long `profile_networks` takes: every network is timed plain and under the profiler."""
    runs_s = (rough_seconds(probe.flops, len(probe.schedule.kernels)) for probe in probes)
    turns_s = (max(5 * run_s, TURN_SECONDS) for run_s in runs_s)
    return SETUP_SECONDS + sum(SECONDS_PER_NETWORK + 2 * NUM_ROUNDS * turn_s for turn_s in turns_s)


def rough_seconds(flops: float, num_kernels: int) -> float:
    """What a run takes on one core of a usual server: for choosing sizes before anything is measured."""
    return flops / FLOPS_PER_SECOND + num_kernels * SECONDS_PER_KERNEL


def is_finished(table: LookupTable) -> bool:
    """Whether the table's fit is of all the networks that it holds: no profile was interrupted."""
    correction = table.corrections.get("latency")
    return correction is not None and correction.values.get("num_networks", 0.0) >= len(table.networks)


def finish_table(writer: TableWriter) -> LookupTable:
    """Fit, and leave one line per kernel.

    Raises:
        ProfileError: too few networks were timed.
    """
    table = load_table(writer.path)
    timed = [
        TimedNetwork(
            kernels=ran,
            latency_ms=table.usual_latency_ms(network),
            relative_standard_error=network.relative_standard_error or 0.0,
            energy_mj=network.energy_mj,
        )
        for network in table.networks
        if (ran := table.kernels_of(network))
    ]
    kernels = list(table.kernels.values())
    latency, *others = fit_corrections(kernels, timed)
    for energy in others:
        costs = NetworkCosts(energy, kernel_costs(latency, kernels))
        kernels = [replace(row, energy_mj=costs.share(costs.part([row.kernel]))) for row in kernels]
    rows: list[Row] = [*kernels, *table.networks, latency, *others, *table.checks.values()]
    writer.rewrite(rows)
    return load_table(writer.path)


def _rows(
    probe: Probe,
    timing: NetworkTiming,
    measured: NetworkMeasurement,
    header: TableHeader,
    unit: Speed | None,
) -> Iterator[Row]:
    """Kernels and network at the unit of speed, without the profiler's own work in each kernel."""
    latency = measured.latency
    latency_ms = latency.latency_at(unit)
    in_situ_ms = [node.latency_ms for node in timing.nodes]
    most_ms = get_runtime(header.target.runtime).profiler_overhead_ms
    found: dict[Kernel, list[float]] = {}
    for node, cost_ms in zip(timing.nodes, kernel_costs_ms(in_situ_ms, latency_ms, most_ms), strict=True):
        found.setdefault(node.kernel, []).append(cost_ms)
    for kernel, values in found.items():
        mean = max(sum(values) / len(values), 1e-6)
        spread = (sum((value - mean) ** 2 for value in values) / len(values)) ** 0.5
        yield KernelRow(
            kernel=kernel,
            latency_ms=mean,
            source="measured" if header.source == "measured" else "estimated",
            num_samples=len(values),
            statistic="middle of the rounds, in situ",
            latency_ms_std=spread,
        )
    yield NetworkRow(
        name=probe.name,
        latency_ms=latency_ms,
        energy_mj=measured.energy.energy_mj if measured.energy else None,
        flops=probe.flops,
        relative_standard_error=latency.relative_standard_error(unit),
        in_situ_ms=sum(in_situ_ms) if header.source == "measured" else None,
        speed=latency.speed,
        remarks=(*latency.remarks, *timing.remarks),
        kernels=dict(Counter(node.kernel.key for node in timing.nodes)),
    )


def kernel_costs_ms(in_situ_ms: Sequence[float], latency_ms: float, most_overhead_ms: float) -> list[float]:
    """What each kernel takes in a network, in ms, without the profiler's own work.

    A profiler counts by the wall clock. Where another process ran meanwhile, kernels seem to take longer than
    the whole network; they are brought to what it took.

    in_situ_ms: of every kernel under the profiler; latency_ms: of the network without one; most_overhead_ms:
    the most that the profiler takes for a kernel.
    """
    overhead_ms = min(max(0.0, sum(in_situ_ms) - latency_ms) / len(in_situ_ms), most_overhead_ms)
    costs_ms = [max(ms - overhead_ms, MIN_KERNEL_SHARE * ms) for ms in in_situ_ms]
    slowed = sum(costs_ms) / latency_ms
    return [ms / slowed for ms in costs_ms] if slowed > MOST_SLOWED else costs_ms


def _batches(probes: Sequence[Probe], size: int) -> Iterator[list[Probe]]:
    iterator = iter(probes)
    while batch := list(islice(iterator, size)):
        yield batch
