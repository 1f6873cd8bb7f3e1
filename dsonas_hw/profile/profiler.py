"""Measuring a device: networks are timed in batches, every batch is appended to the table as it ends.

    batch of networks ─▶ plain sessions and profiled sessions, timed in turns ─▶ rows ─▶ table
    all batches done  ─▶ fit ─▶ correction row ─▶ one line per kernel

A profile that is killed continues with the first network that the table does not hold.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

from dsonas_hw.cost.fit import TimedNetwork, fit_correction
from dsonas_hw.device.lock import exclusive_device
from dsonas_hw.errors import ProfileError
from dsonas_hw.kernel.spec import Kernel
from dsonas_hw.measure.measurement import LatencyMeasurement, measure_together, quantile
from dsonas_hw.measure.probe import Probe
from dsonas_hw.measure.reference import build_yardstick
from dsonas_hw.runtime.base import NetworkTiming, Session
from dsonas_hw.runtime.registry import get_runtime, open_session
from dsonas_hw.table.rows import KernelRow, NetworkRow, Row, TableHeader
from dsonas_hw.table.table import LatencyTable, TableWriter, load_table, now_utc
from dsonas_hw.target import Target

NETWORKS_PER_BATCH = 8
NUM_ROUNDS = 7
ROUND_SECONDS = 0.03
NUM_WARMUP = 1
FEWEST_RUNS, MOST_RUNS = 4, 21
"""Of one network in one round, those to warm up included."""
SETUP_SECONDS, SECONDS_PER_NETWORK = 1.0, 0.2
FLOPS_PER_SECOND = 3e10
"""What a core of a usual server does in a second; like the two before only to say how long it will take."""
SECONDS_PER_KERNEL = 1e-5
REFERENCE_SPEED = 0.25
"""Quantile of the yardstick's timings that predictions are stated at: the machine when it is quick."""

MAX_PROFILER_OVERHEAD_MS = 0.006
"""What ONNX Runtime's profiler adds to a kernel: 3 to 5 µs on a virtual server core."""
MIN_KERNEL_SHARE = 0.2
"""Share of a kernel's timing that is never taken for the profiler's work."""

Progress = Callable[[int, int, str], None]


def local_header(target: Target) -> TableHeader:
    """The header of a table that is measured on this machine's CPU."""
    from dsonas_hw.device.cpu import local_cpu

    cpu = local_cpu()
    if target.threads > cpu.num_cores:
        raise ProfileError(f"{target.threads} threads were asked for; this machine has {cpu.num_cores} cores")
    runtime = get_runtime(target.runtime)
    return TableHeader(
        target=target,
        fingerprint=cpu.fingerprint,
        source="measured",
        created=now_utc(),
        versions=runtime.versions(),
        clocks={"maximum_mhz": _maximum_mhz(), "yardstick_ms": round(_measure_yardstick(target), 6)},
        settings={
            "device_title": cpu.title,
            **runtime.settings_here(),
            "method": "in situ",
            "num_rounds": NUM_ROUNDS,
        },
    )


def open_yardstick(target: Target) -> Session:
    """The yardstick, ready to run as what it is compared with, but for one image."""
    return open_session(build_yardstick(), replace(target, batch_size=1))


def cpu_clock(target: Target) -> Callable[[], float] | None:
    """The CPU clock of the thread that does the work, where that is the calling one."""
    return time.thread_time if get_runtime(target.runtime).runs_in_caller and target.threads == 1 else None


def _measure_yardstick(target: Target) -> float:
    with open_yardstick(target) as session:
        (timing,) = measure_together([session.run], session.synchronize, cpu_clock_s=cpu_clock(target))
    return timing.latency_ms


def profile_networks(
    path: Path,
    header: TableHeader,
    probes: Sequence[Probe],
    *,
    wait_s: float = 0.0,
    progress: Progress = lambda done, total, text: None,
) -> LatencyTable:
    """Time networks and their kernels, and fit the table on them; continues a table that was interrupted.

    wait_s: how long to wait for another process that writes the table.

    Raises:
        ProfileError: the table cannot be written, is another device's, or another profile writes it.
    """
    with TableWriter(path, header, wait_s=wait_s) as writer:
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


def estimate_seconds(probes: Sequence[Probe]) -> float:
    """About how long `profile_networks` takes: every network is timed plain and under the profiler."""
    runs_s = (rough_seconds(probe.flops, len(probe.schedule.kernels)) for probe in probes)
    turns_s = (max(FEWEST_RUNS * run_s, min(ROUND_SECONDS, MOST_RUNS * run_s)) for run_s in runs_s)
    return SETUP_SECONDS + sum(SECONDS_PER_NETWORK + 2 * NUM_ROUNDS * turn_s for turn_s in turns_s)


def rough_seconds(flops: float, num_kernels: int) -> float:
    """What a run takes on one core of a usual server: for choosing sizes before anything is measured."""
    return flops / FLOPS_PER_SECOND + num_kernels * SECONDS_PER_KERNEL


def is_finished(table: LatencyTable) -> bool:
    """Whether the table's fit is of all the networks that it holds: no profile was interrupted."""
    correction = table.correction
    return correction is not None and correction.values.get("num_networks", 0.0) >= len(table.networks)


def finish_table(writer: TableWriter) -> LatencyTable:
    """Fit, and leave one line per kernel.

    Raises:
        ProfileError: too few networks were timed.
    """
    table = load_table(writer.path)
    timed = [
        TimedNetwork(kernels=kernels_of(network, table), latency_ms=network.latency_ms)
        for network in table.networks
        if all(key in table.kernels for key in network.kernels)
    ]
    unit_ms = float(table.header.clocks.get("yardstick_ms") or 0)
    yardsticks_ms = [network.yardstick_ms for network in table.networks if network.yardstick_ms]
    usual_ms = quantile(yardsticks_ms, REFERENCE_SPEED) if yardsticks_ms and unit_ms else 0.0
    speed = usual_ms / unit_ms if usual_ms else 1.0
    correction = fit_correction(list(table.kernels.values()), timed, speed=speed)
    correction = replace(correction, values={**correction.values, "yardstick_ms": usual_ms or unit_ms})
    rows: list[Row] = [*table.kernels.values(), *table.networks, correction, *table.checks.values()]
    writer.rewrite(rows)
    return load_table(writer.path)


def kernels_of(network: NetworkRow, table: LatencyTable) -> list[Kernel]:
    """The kernels that ran in a network of a table."""
    return [table.kernels[key].kernel for key, count in network.kernels.items() for _ in range(count)]


def _measure_batch(batch: Sequence[Probe], header: TableHeader) -> Iterator[Row]:
    """Rows of the networks of a batch, each network's kernels before the network itself.

    Waits until no one else measures on this machine.
    """
    models = [probe.build() for probe in batch]
    with contextlib.ExitStack() as stack:
        stack.enter_context(exclusive_device(header.target.device))
        plain = [stack.enter_context(open_session(model, header.target)) for model in models]
        yardstick = stack.enter_context(open_yardstick(header.target))
        runtime = get_runtime(header.target.runtime)
        profiled = [runtime.open_profiled(model, header.target) for model in models]
        timings = measure_together(
            [*(session.run for session in plain), *(session.run for session in profiled)],
            yardstick.synchronize,
            num_rounds=NUM_ROUNDS,
            max_samples=MOST_RUNS - NUM_WARMUP,
            min_samples=FEWEST_RUNS - NUM_WARMUP,
            num_warmup=NUM_WARMUP,
            round_seconds=ROUND_SECONDS,
            yardstick=yardstick.run,
            cpu_clock_s=cpu_clock(header.target),
        )
        unit_ms = float(header.clocks.get("yardstick_ms") or 0) or None
        for probe, session, latency, turns in zip(
            batch, profiled, timings, timings[len(batch) :], strict=False
        ):
            yield from _rows(probe, session.finish(turns.turns, unit_ms), latency, unit_ms)


def _rows(
    probe: Probe, timing: NetworkTiming, latency: LatencyMeasurement, unit_ms: float | None
) -> Iterator[Row]:
    """Kernels and network at the unit of speed, without the profiler's own work in each kernel."""
    latency_ms = latency.latency_at(unit_ms) if unit_ms else latency.latency_ms
    in_situ_ms = sum(node.latency_ms for node in timing.nodes)
    overhead_ms = min(max(0.0, in_situ_ms - latency_ms) / len(timing.nodes), MAX_PROFILER_OVERHEAD_MS)
    found: dict[Kernel, list[float]] = {}
    for node in timing.nodes:
        cost_ms = max(node.latency_ms - overhead_ms, MIN_KERNEL_SHARE * node.latency_ms)
        found.setdefault(node.kernel, []).append(cost_ms)
    for kernel, values in found.items():
        mean = max(sum(values) / len(values), 1e-6)
        spread = (sum((value - mean) ** 2 for value in values) / len(values)) ** 0.5
        yield KernelRow(
            kernel=kernel,
            latency_ms=mean,
            source="measured",
            num_samples=len(values),
            statistic="middle of the rounds, in situ",
            latency_ms_std=spread,
        )
    yield NetworkRow(
        name=probe.name,
        latency_ms=latency_ms,
        flops=probe.flops,
        relative_noise=latency.coefficient_of_variation,
        in_situ_ms=in_situ_ms,
        yardstick_ms=min((turn.yardstick_ms for turn in latency.turns if turn.yardstick_ms), default=None),
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
