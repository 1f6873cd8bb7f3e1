"""Is the table right? Networks that were not used for fitting are timed and compared with predictions.

Two baselines come from the same run: the sum of kernels timed alone (what public lookup tables hold), and a
straight line in flops, fitted on the networks of the table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import median

import numpy as np

from dsonas_hw.cost.measured import MeasuredCosts
from dsonas_hw.cost.model import Prediction
from dsonas_hw.device.spec import LOCAL
from dsonas_hw.errors import ProfileError
from dsonas_hw.kernel.spec import Kernel
from dsonas_hw.measure.probe import Probe
from dsonas_hw.measure.single_kernel import build_kernel_model
from dsonas_hw.measure.timing import measure_latency
from dsonas_hw.profile.bench import Bench
from dsonas_hw.profile.open import check_is_this_machine
from dsonas_hw.runtime.registry import open_session
from dsonas_hw.table.rows import CheckRow, ErrorSummary, NetworkRow
from dsonas_hw.table.table import LookupTable, now_utc
from dsonas_hw.table.writer import TableWriter
from dsonas_hw.target import Target

BASELINE_ISOLATED = "isolated timings, summed"
BASELINE_FLOPS = "a line in flops"

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, kw_only=True)
class CheckedNetwork:
    """One held-out network."""

    name: str
    flops: int
    measured_ms: float
    """At the speed that the machine had while it was profiled."""
    raw_ms: float
    """As it was measured."""
    relative_speed: float | None
    """Of the machine at that moment; 1 = as in the profile, None: no reference workload ran beside it."""
    converged: bool
    prediction: Prediction
    """Of the latency."""
    baselines_ms: dict[str, float]
    measured_mj: float | None = None
    """Energy; None: not measured."""
    energy: Prediction | None = None
    """None: the table tells no energy."""

    @property
    def relative_error(self) -> float:
        return self.prediction.value / self.measured_ms - 1


def check_networks(
    model: MeasuredCosts,
    bench: Bench,
    probes: Sequence[Probe],
    *,
    with_isolated: bool = True,
    progress: Progress = lambda done, total, text: None,
) -> list[CheckedNetwork]:
    """Time held-out networks on the bench and predict them.

    with_isolated: also time every kernel alone, for the baseline.
    """
    target = model.table.header.target
    usual = model.usual_speed
    progress(0, len(probes), "checking")
    found = bench.measure([probe.build() for probe in probes])
    tells_energy = not model.why_not("energy")
    line = fit_flops_line(model.table.networks)
    alone: dict[Kernel, float | None] = {}
    checked = []
    for index, (probe, measured) in enumerate(zip(probes, found, strict=True)):
        timing = measured.latency
        baselines = {BASELINE_FLOPS: line(probe.flops)} if line else {}
        if with_isolated:
            progress(index, len(probes), "timing the baseline")
            total = _sum_isolated_ms((step.kernel for step in probe.schedule.kernels), alone, target)
            if total is not None:
                baselines[BASELINE_ISOLATED] = total
        checked.append(
            CheckedNetwork(
                name=probe.name,
                flops=probe.flops,
                measured_ms=timing.latency_at(usual),
                raw_ms=timing.latency_ms,
                relative_speed=timing.relative_speed(usual),
                converged=timing.converged,
                prediction=model.predict_schedule(probe.schedule),
                baselines_ms=baselines,
                measured_mj=measured.energy.energy_mj if measured.energy else None,
                energy=model.predict_schedule(probe.schedule, "energy") if tells_energy else None,
            )
        )
    progress(len(probes), len(probes), "checked")
    return checked


def check_table(
    table: LookupTable,
    bench: Bench,
    probes: Sequence[Probe],
    *,
    name: str,
    with_isolated: bool = True,
    progress: Progress = lambda done, total, text: None,
) -> tuple[CheckRow, list[CheckedNetwork]]:
    """Compare a table of this bench with measurements of networks it has not seen; append the result to it.

    name: of the networks' kind, in the table: its last check counts.

    Raises:
        ProfileError: the table is not finished, another machine's, or being written.
    """
    if table.header.target.device == LOCAL:
        check_is_this_machine(table.header, table.path)
    model = MeasuredCosts(table)
    networks = check_networks(model, bench, probes, with_isolated=with_isolated, progress=progress)
    row = summarise_check(name, networks)
    with TableWriter(table.path, table.header) as writer:
        writer.append(row)
    return row, networks


def summarise_check(space: str, networks: Sequence[CheckedNetwork]) -> CheckRow:
    """What a check says about a table.

    Raises:
        ProfileError: no network was checked.
    """
    if not networks:
        raise ProfileError("a check needs at least one network")
    measured = [network.measured_ms for network in networks]
    predicted = [network.prediction.value for network in networks]
    inside = [
        network.prediction.low <= network.measured_ms <= network.prediction.high for network in networks
    ]
    speeds = [network.relative_speed for network in networks if network.relative_speed is not None]
    names = [name for name in networks[0].baselines_ms if all(name in n.baselines_ms for n in networks)]
    energies = [(n.energy.value, n.measured_mj) for n in networks if n.energy and n.measured_mj]
    return CheckRow(
        space=space,
        num_networks=len(networks),
        error=summarise_errors(predicted, measured),
        interval_coverage=sum(inside) / len(inside),
        baselines={
            name: summarise_errors([network.baselines_ms[name] for network in networks], measured)
            for name in names
        },
        relative_speed=median(speeds) if speeds else None,
        raw_error=summarise_errors(predicted, [network.raw_ms for network in networks]) if speeds else None,
        energy_error=summarise_errors(*zip(*energies, strict=True)) if energies else None,
        created=now_utc(),
    )


def summarise_errors(predicted: Sequence[float], measured: Sequence[float]) -> ErrorSummary:
    """MAPE, share within ±10 % and Kendall's τ of predictions."""
    errors = [abs(p / m - 1) for p, m in zip(predicted, measured, strict=True)]
    return ErrorSummary(
        mape=sum(errors) / len(errors),
        share_within_10=sum(error <= 0.1 for error in errors) / len(errors),
        kendall_tau=kendall_tau(predicted, measured),
    )


def kendall_tau(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Kendall's τ-b; None where it is not defined (fewer than two values, or all equal)."""
    a, b = np.asarray(first, float), np.asarray(second, float)
    upper = np.triu_indices(len(a), k=1)
    signs_a = np.sign(a[:, None] - a[None, :])[upper]
    signs_b = np.sign(b[:, None] - b[None, :])[upper]
    norm = np.sqrt(np.sum(signs_a != 0) * np.sum(signs_b != 0))
    return float(np.sum(signs_a * signs_b) / norm) if norm else None


def fit_flops_line(networks: Sequence[NetworkRow]) -> Callable[[int], float] | None:
    """latency = a + b·flops, least squares of relative errors; None if there are too few networks."""
    known = [network for network in networks if network.flops > 0]
    if len(known) < 2:
        return None
    latency = np.array([network.latency_ms for network in known])
    matrix = np.array([[1.0, float(network.flops)] for network in known]) / latency[:, None]
    a, b = np.linalg.lstsq(matrix, np.ones(len(known)), rcond=None)[0]
    return lambda flops: max(float(a + b * flops), 1e-6)


def _sum_isolated_ms(
    kernels: Iterable[Kernel], known: dict[Kernel, float | None], target: Target
) -> float | None:
    """Sum of the kernels, each timed alone in a session; None if one cannot be built alone."""
    total = 0.0
    for kernel in kernels:
        if kernel not in known:
            model = build_kernel_model(kernel)
            if model is None:
                known[kernel] = None
            else:
                alone = replace(target, batch_size=kernel.batch_size)
                with open_session(model, alone) as session:
                    timing = measure_latency(
                        session.run,
                        session.synchronize,
                        num_warmup=3,
                        window=10,
                        max_windows=5,
                        max_seconds=0.1,
                    )
                known[kernel] = timing.latency_ms
        value = known[kernel]
        if value is None:
            return None
        total += value
    return total
