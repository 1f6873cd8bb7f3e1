"""Fit the constants of the estimate to observations: regularised, robust least squares on log latency.

Notation: x is the vector of log factors on the starting values of `estimator_priors`, one entry per constant;
its prior is normal around 0 with the standard deviation given there. Pooling is partial: a generation and a
runtime have factors of their own on some constants, shrunk to 1; a host has a factor on its launch costs; and
a table of one source, card and precision has one on its GPU times (which version of a library ran, how it was
timed), so that no single table bends what all share. What a source timed besides the network (the copy of its
input, the events around a single kernel) is added. All of that is left out of what is written: an unseen host
or table is predicted at their mean, and nothing is timed besides.
"""

from __future__ import annotations

import copy
import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from scipy.optimize import least_squares
from scipy.sparse import csr_matrix

from benchmarks.estimator_priors import (
    BESIDES_SPREAD,
    COPY_MS_PER_MB,
    FIXED,
    FRAMEWORK_SPREAD,
    GENERATION_HOST_SPREAD,
    GENERATIONS,
    HOST_COLUMNS,
    HOST_SPREAD,
    HOST_US,
    JETSON_HOST,
    KERNEL_VOTE,
    MOST_WEIGHT,
    OLD_LIBRARIES,
    OTHER_HOSTS,
    PER_ERA,
    PER_GENERATION,
    PER_RUNTIME,
    SHARED,
    SHARPNESS,
    SINGLE_KERNEL_MS,
    TABLE_SPREAD,
    VOTE,
    WITH_INPUT_COPY,
    generation_factors,
)
from benchmarks.measurements import Observation
from dsonas_hw.device.datasheet import Device
from dsonas_hw.device.spec import load_device
from dsonas_hw.estimate.constants import NEAREST_GENERATION, EstimateConstants
from dsonas_hw.estimate.estimate import host_category
from dsonas_hw.estimate.kernel_correction import Trees, correction_factors
from dsonas_hw.estimate.kernel_features import kernel_rows
from dsonas_hw.estimate.kernel_time import Machine, kernel_times_ms
from dsonas_hw.estimate.machine import ELEMENT_BYTES, machine_of
from dsonas_hw.kernel.spec import Kernel
from dsonas_hw.target import Target

Corrections = Mapping[str, Trees]

NUM_CHORD_STEPS = 8
"""Of a fit without some observations; they converge, as the fit with them is near."""


@functools.cache
def device_of(name: str) -> Device:
    """A device file, read once."""
    return load_device(name)


@dataclass(frozen=True)
class Adapted:
    """What TensorRT does otherwise than one kernel after the other, as `EstimatedLatency._adapt` has it."""

    in_sum: Any
    """Number of summands of every kernel, 0 where it adds nothing up."""
    joins: Any
    """Whether it is a concatenation."""

    def apply(self, ms: Any, constants: Mapping[str, float]) -> Any:
        added = (ms - constants["launch_us"] * 1e-3) * (self.in_sum - 1) / (self.in_sum + 1)
        return np.where(self.in_sum > 1, added, np.where(self.joins, ms * constants["concat"], ms))


class Data:
    """Observations with the kernels of each (device, runtime, precision) as rows and counts."""

    def __init__(self, observations: Sequence[Observation]) -> None:
        self.observations = list(observations)
        self.latency_ms = np.array([o.latency_ms for o in observations])
        groups: dict[tuple[str, str, str], list[int]] = {}
        for index, o in enumerate(observations):
            groups.setdefault((o.device, o.runtime, o.precision), []).append(index)
        self.groups = []
        self._kept: dict[Any, Any] = {}
        self.host_counts = np.zeros((len(observations), len(HOST_COLUMNS)))
        for key, members in groups.items():
            place: dict[Any, int] = {}
            entries = []
            for row, index in enumerate(members):
                for kernel, count in observations[index].kernels.items():
                    entries.append((row, place.setdefault(kernel, len(place)), count))
                    column = "tensorrt" if key[1] == "tensorrt" else host_category(kernel)
                    self.host_counts[index, HOST_COLUMNS.index(column)] += count
            i, j, n = zip(*entries, strict=True)
            counts = csr_matrix((n, (i, j)), shape=(len(members), len(place)))
            in_sum = np.array([num_summands(kernel) if key[1] == "tensorrt" else 0 for kernel in place])
            joins = np.array([key[1] == "tensorrt" and kernel.op == "concat" for kernel in place])
            adapted = Adapted(in_sum, joins)
            self.groups.append((key, np.array(members), kernel_rows(list(place)), counts, adapted))

    def gpu_ms(
        self, constants_of: Any, corrections: Mapping[str, Corrections], only: str | None = None
    ) -> Any:
        """GPU time of every observation; `only`: those of one generation or runtime, NaN elsewhere."""
        times = np.full(len(self.observations), np.nan)
        for (name, runtime, precision), members, rows, counts, adapted in self.groups:
            device = device_of(name)
            if only is not None and only not in (device.architecture, f"{runtime}/{precision}"):
                continue
            constants = constants_of(device.architecture, runtime, precision)
            machine = machine_of(device, Target(runtime=runtime, precision=precision), constants)
            factors = self._factors(rows, machine, corrections.get(f"{runtime}/{precision}", {}))
            ms = kernel_times_ms(rows, machine, constants) * factors
            ms = adapted.apply(ms, constants)
            times[members] = counts @ ms + constants["network_us"] * 1e-3
        return times

    def _factors(self, rows: Any, machine: Machine, trees: Corrections) -> Any:
        """The learned correction of every row: of all constants only the clock moves it, so it is kept."""
        if not trees:
            return 1.0
        key = (id(rows), id(trees), machine)
        if key not in self._kept:
            if len(self._kept) > 200:
                self._kept.clear()
            self._kept[key] = correction_factors(rows, machine, trees)
        return self._kept[key]


def num_summands(kernel: Kernel) -> int:
    """Inputs of an addition, 0 for other kernels."""
    return len(kernel.inputs) if kernel.op == "sum" else 0


class Fit:
    """The constants that were fitted."""

    def __init__(
        self, observations: Sequence[Observation], corrections: Mapping[str, Corrections] | None = None
    ) -> None:
        self.data = Data(observations)
        self.corrections = corrections or {}
        self.hosts = sorted({o.host for o in observations if o.host})
        self.tables = sorted({_table_of(o) for o in observations})
        self.host_index = np.array([self.hosts.index(o.host) if o.host else -1 for o in observations])
        self.table_index = np.array([self.tables.index(_table_of(o)) for o in observations])
        # What was timed besides: a copy of the input, or the events around a single kernel.
        self.besides = sorted({_besides_of(o) for o in observations} - {""})
        index = {name: i for i, name in enumerate(self.besides)}
        self.besides_index = np.array([index.get(_besides_of(o), -1) for o in observations])
        self.besides_ms = np.array([_besides_ms(o) for o in observations])
        self.jetson_host = np.array(
            [
                JETSON_HOST[device_of(o.device).architecture] if device_of(o.device).is_jetson else 1.0
                for o in observations
            ]
        )
        # TensorRT's launches are C++, and a Jetson's host has a factor of its own.
        self.generation_index = np.array(
            [
                GENERATIONS.index(device_of(o.device).architecture)
                if o.runtime == "eager" and not device_of(o.device).is_jetson
                else len(GENERATIONS)
                for o in observations
            ]
        )
        groups: dict[str, Mapping[str, float]] = {
            "": {name: spread for name, (_, spread) in SHARED.items()},
            "era": PER_ERA,
        }
        for generation in sorted({device_of(o.device).architecture for o in observations}):
            groups[generation] = PER_GENERATION
        for key in sorted({f"{o.runtime}/{o.precision}" for o in observations if o.runtime != "eager"}):
            groups[key] = PER_RUNTIME
        self.names = [(group, name) for group, spreads in groups.items() for name in spreads]
        self.num_gpu = len(self.names)
        spreads = [spread for group in groups.values() for spread in group.values()]
        spreads += [0.3] * len(HOST_COLUMNS) + [GENERATION_HOST_SPREAD] * len(GENERATIONS)
        spreads += [_host_spread(name) for name in self.hosts]
        spreads += [_spread_of(name, OLD_LIBRARIES, TABLE_SPREAD) for name in self.tables]
        spreads += [BESIDES_SPREAD for _ in self.besides]
        self.spreads = np.array(spreads)
        self.weights = row_weights(observations)
        # A host that hides behind the GPU has no slope: those that may be slow start slow.
        self.start = np.zeros(len(self.spreads))
        first = self.num_gpu + len(HOST_COLUMNS) + len(GENERATIONS)
        for index, name in enumerate(self.hosts):
            self.start[first + index] = _spread_of(name, OTHER_HOSTS, 0.0)
        self.x = self.start
        self.generations = {device_of(o.device).architecture for o in observations}
        self.hosted = np.array([o.host is not None for o in observations])
        self._last: Any = None

    def groups(self, x: Any) -> dict[str, dict[str, float]]:
        """Factors by "" (shared), generation (of which something was measured), "<runtime>/<precision>"."""
        found: dict[str, dict[str, float]] = {}
        for (group, name), value in zip(self.names, x[: self.num_gpu], strict=True):
            if group in GENERATIONS and group not in self.generations:
                continue
            found.setdefault(group, {})[name] = float(np.exp(value))
        return found

    def constants_of(self, x: Any) -> Any:
        """(generation, runtime, precision) → constants."""
        groups = self.groups(x)
        factors = generation_factors(groups)
        shared = _scaled({name: start for name, (start, _) in SHARED.items()}, groups[""]) | FIXED

        def resolved(generation: str, runtime: str, precision: str) -> dict[str, float]:
            while generation not in factors and generation in NEAREST_GENERATION:
                generation = NEAREST_GENERATION[generation]
            values = _scaled(shared, factors.get(generation, {}))
            return _scaled(values, groups.get(f"{runtime}/{precision}", {}))

        return resolved

    def _split(self, x: Any) -> list[Any]:
        """Logarithms of the factors of columns of host time, of generations' hosts, of hosts, of tables, and
        of what was timed besides."""
        parts = [len(HOST_COLUMNS), len(GENERATIONS), len(self.hosts), len(self.tables)]
        return np.split(x[self.num_gpu :], np.cumsum(parts))

    def latency_ms(self, x: Any, gpu: Any) -> Any:
        """Combine GPU time with the host's, with the factors of the hosts and tables that were fitted."""
        host_x, generation_x, factor_x, table_x, besides_x = self._split(x)
        per_kernel = np.array([HOST_US[name] for name in HOST_COLUMNS]) * np.exp(host_x) * 1e-3
        factors = np.append(np.exp(factor_x), 0.0)[self.host_index]
        factors = factors * np.append(np.exp(generation_x), 1.0)[self.generation_index]
        host = self.data.host_counts @ per_kernel * factors * self.jetson_host
        gpu = gpu * np.exp(table_x)[self.table_index]
        besides = self.besides_ms * np.append(np.exp(besides_x), 0.0)[self.besides_index]
        return (gpu**SHARPNESS + host**SHARPNESS) ** (1 / SHARPNESS) + besides

    def errors(self, x: Any, gpu: Any = None) -> Any:
        """log(estimated / measured) of every observation."""
        if gpu is None:
            gpu = self._gpu_of(x)
        return np.log(self.latency_ms(x, gpu) / self.data.latency_ms)

    def jacobian(self, x: Any) -> Any:
        """Derivatives of `errors` by x, shape (observations, constants)."""
        gpu, here = self._gpu_of(x), self.errors(x)
        columns = []
        for j in range(len(x)):
            step = x.copy()
            step[j] += 1e-4
            moved = gpu
            if j < self.num_gpu:
                group = self.names[j][0]
                only = group if group not in ("", "era") else None
                moved = self.data.gpu_ms(self.constants_of(step), self.corrections, only)
                moved = np.where(np.isnan(moved), gpu, moved)
            columns.append((self.errors(step, moved) - here) / 1e-4)
        return np.stack(columns, axis=1)

    def run(self, max_steps: int = 25, start: Any = None) -> Fit:
        """Fit; `start`: another fit of the same shape to begin from."""

        def residuals(x: Any) -> Any:
            return np.append(self.errors(x) * self.weights, x / self.spreads)

        def slopes(x: Any) -> Any:
            return np.vstack([self.jacobian(x) * self.weights[:, None], np.diag(1 / self.spreads)])

        begin = self.start if start is None else start
        self.x = least_squares(residuals, begin, jac=slopes, loss="soft_l1", max_nfev=max_steps).x
        return self

    def without(
        self, left_out: Sequence[bool], slopes: Any, corrections: Mapping[str, Corrections] | None = None
    ) -> Fit:
        """The fit to the other observations, from this one on.

        slopes: `jacobian` at this fit. It is kept from step to step (a chord method), so that a step costs
        one prediction; the residuals are exact. What nothing is left of returns to its prior.
        """
        other = copy.copy(self)
        other.corrections = self.corrections if corrections is None else corrections
        kept = ~np.asarray(left_out)
        observations = [o for o, keep in zip(self.data.observations, kept, strict=True) if keep]
        other.weights = np.zeros(len(kept))
        other.weights[kept] = row_weights(observations)
        other.generations = {device_of(o.device).architecture for o in observations}
        other.hosted = other.hosted & kept
        slopes = np.vstack([slopes * other.weights[:, None], np.diag(1 / self.spreads)])
        for _ in range(NUM_CHORD_STEPS):
            residuals = np.append(other.errors(other.x) * other.weights, other.x / other.spreads)
            weighted = slopes / np.sqrt(1 + residuals**2)[:, None]  # the soft-L1 loss
            step = np.linalg.solve(weighted.T @ slopes, weighted.T @ residuals)
            other.x = other.x - step * min(1.0, 0.5 / float(np.abs(step).max()))
        return other

    def _gpu_of(self, x: Any) -> Any:
        """GPU times, kept for the last `x`."""
        key = (x[: self.num_gpu].tobytes(), self.generations)
        if self._last is None or self._last[0] != key or self._last[1] is not self.corrections:
            self._last = (key, self.corrections, self.data.gpu_ms(self.constants_of(x), self.corrections))
        return self._last[2]

    def start_near(self, constants: EstimateConstants) -> Any:
        """Where to begin when a fit of similar observations is at hand: it only saves steps."""
        x = self.start.copy()
        for j, (group, name) in enumerate(self.names):
            if group == "":
                x[j] = np.log(constants.shared[name] / SHARED[name][0]) if name in constants.shared else 0.0
            elif name in constants.by_generation.get(group, {}) and name not in PER_ERA:
                x[j] = np.log(constants.by_generation[group][name])
            elif name in constants.by_runtime.get(group, {}):
                x[j] = np.log(constants.by_runtime[group][name])
        return x

    def host_us(self) -> dict[str, float]:
        """Launch costs of a typical host."""
        host_x = self._split(self.x)[0]
        return {n: HOST_US[n] * float(np.exp(v)) for n, v in zip(HOST_COLUMNS, host_x, strict=True)}

    def generation_host(self) -> dict[str, float]:
        """Factors of the hosts of a generation's cards; those without measurements are left out."""
        hosted = set(self.generation_index[self.hosted])
        values = self._split(self.x)[1]
        return {name: float(np.exp(values[i])) for i, name in enumerate(GENERATIONS) if i in hosted}


def _besides_of(o: Observation) -> str:
    """What observations have the same cost besides their kernels; empty: they have none."""
    if o.host is None:
        return o.source
    return o.host if o.host.startswith(WITH_INPUT_COPY) else ""


def _besides_ms(o: Observation) -> float:
    """Its expected value: the copy of the images that a network takes, or the events around a kernel."""
    if o.host is None:
        return SINGLE_KERNEL_MS
    images = max(prod(k.inputs[0]) for k in o.kernels if k.op == "conv" and k.inputs[0][1] == 3)
    return images * ELEMENT_BYTES[o.precision] / 1e6 * COPY_MS_PER_MB


def row_weights(observations: Sequence[Observation]) -> Any:
    """Every source has one vote, shared alike by its tables and by the rows of a table; a row's is capped."""
    rows = Counter(o.table for o in observations)
    tables = Counter(table[0] for table in rows)
    votes = np.array([VOTE if o.is_network else KERNEL_VOTE for o in observations])
    shares = votes / [tables[o.source] * rows[o.table] for o in observations]
    return np.minimum(np.sqrt(shares), MOST_WEIGHT)


def _host_spread(name: str) -> float:
    """The standard deviation of a host's factor."""
    other_framework = " mxnet:" in name or " tensorflow:" in name
    return _spread_of(name, OTHER_HOSTS, FRAMEWORK_SPREAD if other_framework else HOST_SPREAD)


def _spread_of(name: str, special: Mapping[str, float], ordinary: float) -> float:
    """The standard deviation of a host or table: of those whose names start so, or the ordinary one."""
    return next((spread for start, spread in special.items() if name.startswith(start)), ordinary)


def _table_of(o: Observation) -> str:
    """Which factor on GPU times an observation shares: of one card, in one runtime, by one source."""
    return f"{o.host or o.source} {o.device} {o.runtime} {o.precision}"


def _scaled(constants: Mapping[str, float], factors: Mapping[str, float]) -> dict[str, float]:
    return {name: value * factors.get(name, 1.0) for name, value in constants.items()}
