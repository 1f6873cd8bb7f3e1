"""Fit the constants of the estimate to observations: regularised, robust least squares on log latency.

Notation: x is the vector of log factors on the starting values below, one entry per constant; its prior is
normal around 0 with the spread given. A generation has factors of its own on a few constants, a host a factor
on its launch costs, and a source of single kernels one on its times (how it chose algorithms, how it timed).
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.optimize import least_squares
from scipy.sparse import csr_matrix

from benchmarks.estimator_priors import (
    FIXED,
    HOST_SORTS,
    HOST_US,
    PER_ERA,
    PER_GENERATION,
    PER_RUNTIME,
    SHARED,
    SHARPNESS,
    SOURCE_WEIGHT,
    generation_factors,
)
from benchmarks.measurements import Observation
from dsonas_hw.device.datasheet import Device
from dsonas_hw.device.spec import load_device
from dsonas_hw.estimate.constants import NEAREST_GENERATION, EstimateConstants
from dsonas_hw.estimate.estimate import host_sort
from dsonas_hw.estimate.kernel_correction import Trees, correction_factors
from dsonas_hw.estimate.kernel_features import kernel_rows
from dsonas_hw.estimate.kernel_time import Machine, kernel_times_ms
from dsonas_hw.estimate.machine import machine_of

Corrections = Mapping[str, Trees]


@functools.cache
def device_of(name: str) -> Device:
    """A device file, read once."""
    return load_device(name)


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
        self.host_counts = np.zeros((len(observations), len(HOST_SORTS)))
        for key, members in groups.items():
            place: dict[Any, int] = {}
            entries = []
            for row, index in enumerate(members):
                for kernel, count in observations[index].kernels.items():
                    entries.append((row, place.setdefault(kernel, len(place)), count))
                    self.host_counts[index, HOST_SORTS.index(host_sort(kernel))] += count
            i, j, n = zip(*entries, strict=True)
            counts = csr_matrix((n, (i, j)), shape=(len(members), len(place)))
            self.groups.append((key, np.array(members), kernel_rows(list(place)), counts))

    def gpu_ms(
        self, constants_of: Any, corrections: Mapping[str, Corrections], only: str | None = None
    ) -> Any:
        """GPU time of every observation; `only`: recompute devices of one generation, NaN elsewhere."""
        times = np.full(len(self.observations), np.nan)
        for (name, runtime, precision), members, rows, counts in self.groups:
            device = device_of(name)
            if only is not None and device.architecture != only:
                continue
            constants = constants_of(device.architecture, runtime, precision)
            machine = machine_of(device, runtime=runtime, precision=precision, constants=constants)
            factors = self._factors(rows, machine, corrections.get(f"{runtime}/{precision}", {}))
            ms = kernel_times_ms(rows, machine, constants) * factors
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


class Fit:
    """The constants that were fitted; `runtime_base` fits only a runtime's factors on top of another fit."""

    def __init__(
        self,
        observations: Sequence[Observation],
        corrections: Mapping[str, Corrections] | None = None,
        runtime_base: Fit | None = None,
    ) -> None:
        self.data = Data(observations)
        self.corrections = corrections or {}
        self.base = runtime_base
        self.hosts = sorted({o.host for o in observations if o.host})
        self.sources = (
            sorted({o.source for o in observations if not o.is_network}) if not runtime_base else []
        )
        self.host_index = np.array([self.hosts.index(o.host) if o.host else -1 for o in observations])
        self.source_index = np.array(
            [self.sources.index(o.source) if o.source in self.sources else -1 for o in observations]
        )
        names: list[tuple[str, str]] = []
        spreads: list[float] = []
        if runtime_base is None:
            generations = sorted({device_of(o.device).architecture for o in observations})
            names += [("", name) for name in SHARED]
            spreads += [spread for _, spread in SHARED.values()]
            names += [("era", name) for name in PER_ERA]
            spreads += list(PER_ERA.values())
            for generation in generations:
                names += [(generation, name) for name in PER_GENERATION]
                spreads += list(PER_GENERATION.values())
        else:
            for key in sorted({f"{o.runtime}/{o.precision}" for o in observations}):
                names += [(key, name) for name in PER_RUNTIME]
                spreads += list(PER_RUNTIME.values())
        self.names = names
        self.num_gpu = len(names)
        extra = [(HOST_SORTS, 0.2), (self.hosts, 0.4), (self.sources, 0.1)]
        self.spreads = np.array(spreads + [spread for group, spread in extra for _ in group])
        tables = Counter(o.table for o in observations)
        self.weights = np.array(
            [SOURCE_WEIGHT.get(o.source, 1.5) * np.sqrt(40 / tables[o.table]) for o in observations]
        )
        self.x = np.zeros(len(self.spreads))

    def groups(self, x: Any) -> dict[str, dict[str, float]]:
        """Factors by "" (shared), generation, or "<runtime>/<precision>"."""
        found: dict[str, dict[str, float]] = {}
        for (group, name), value in zip(self.names, x[: self.num_gpu], strict=True):
            found.setdefault(group, {})[name] = float(np.exp(value))
        return found

    def constants_of(self, x: Any) -> Any:
        """(generation, runtime, precision) → constants."""
        groups = self.groups(x)
        if self.base is not None:
            below = self.base.constants_of(self.base.x)

            def layered(generation: str, runtime: str, precision: str) -> dict[str, float]:
                return _scaled(
                    below(generation, runtime, precision), groups.get(f"{runtime}/{precision}", {})
                )

            return layered
        factors = generation_factors(groups)
        shared = _scaled({name: start for name, (start, _) in SHARED.items()}, groups[""]) | FIXED

        def resolved(generation: str, runtime: str, precision: str) -> dict[str, float]:
            while generation not in factors and generation in NEAREST_GENERATION:
                generation = NEAREST_GENERATION[generation]
            return _scaled(shared, factors.get(generation, {}))

        return resolved

    def latency_ms(self, x: Any, gpu: Any, data: Data | None = None) -> Any:
        """Combine GPU time with the host's, with the factors of the hosts and sources that were fitted."""
        host_x, factor_x, source_x = np.split(
            x[self.num_gpu :], np.cumsum([len(HOST_SORTS), len(self.hosts)])
        )
        per_kernel = np.array([HOST_US[name] for name in HOST_SORTS]) * np.exp(host_x) * 1e-3
        factors = np.append(np.exp(factor_x), 0.0)[self.host_index]
        host = self.data.host_counts @ per_kernel * factors
        gpu = gpu * np.append(np.exp(source_x), 1.0)[self.source_index]
        return (gpu**SHARPNESS + host**SHARPNESS) ** (1 / SHARPNESS)

    def run(self, max_steps: int = 25, start: Any = None) -> Fit:
        """Fit; `start`: another fit of the same shape to begin from."""
        cache: dict[bytes, Any] = {}

        def gpu_of(x: Any) -> Any:
            key = x[: self.num_gpu].tobytes()
            if key not in cache:
                cache.clear()
                cache[key] = self.data.gpu_ms(self.constants_of(x), self.corrections)
            return cache[key]

        def residuals(x: Any, gpu: Any = None) -> Any:
            ms = self.latency_ms(x, gpu_of(x) if gpu is None else gpu)
            return np.append(np.log(ms / self.data.latency_ms) * self.weights, x / self.spreads)

        def jacobian(x: Any) -> Any:
            gpu, here = gpu_of(x), residuals(x)
            columns = []
            for j in range(len(x)):
                step = x.copy()
                step[j] += 1e-4
                moved = gpu
                if j < self.num_gpu:
                    group = self.names[j][0]
                    only = group if group not in ("", "era") and self.base is None else None
                    moved = self.data.gpu_ms(self.constants_of(step), self.corrections, only)
                    moved = np.where(np.isnan(moved), gpu, moved)
                columns.append((residuals(step, moved) - here) / 1e-4)
            return np.stack(columns, axis=1)

        begin = np.zeros(len(self.spreads)) if start is None else start
        solution = least_squares(residuals, begin, jac=jacobian, loss="soft_l1", max_nfev=max_steps)
        self.x = solution.x
        return self

    def start_near(self, constants: EstimateConstants) -> Any:
        """Where to begin when a fit of similar observations is at hand: it only saves steps."""
        x = np.zeros(len(self.spreads))
        for j, (group, name) in enumerate(self.names):
            if group == "":
                x[j] = np.log(constants.shared[name] / SHARED[name][0]) if name in constants.shared else 0.0
            elif name in constants.by_generation.get(group, {}) and name not in PER_ERA:
                x[j] = np.log(constants.by_generation[group][name])
        return x

    def host_us(self) -> dict[str, float]:
        """Launch costs of a typical host: the geometric mean over those that were measured."""
        host_x = self.x[self.num_gpu :][: len(HOST_SORTS)]
        factors = self.x[self.num_gpu + len(HOST_SORTS) :][: len(self.hosts)]
        bound = [f for name, f in zip(self.hosts, factors, strict=True) if not name.startswith("timm")]
        typical = float(np.exp(np.mean(bound))) if bound else 1.0
        return {n: HOST_US[n] * float(np.exp(v)) * typical for n, v in zip(HOST_SORTS, host_x, strict=True)}


def _scaled(constants: Mapping[str, float], factors: Mapping[str, float]) -> dict[str, float]:
    return {name: value * factors.get(name, 1.0) for name, value in constants.items()}
