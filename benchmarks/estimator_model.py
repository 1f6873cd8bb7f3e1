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

from benchmarks.measurements import Observation
from dsonas_hw.device.datasheet import Device
from dsonas_hw.device.spec import load_device
from dsonas_hw.profile.estimate import host_sort
from dsonas_hw.profile.estimate_constants import NEAREST_GENERATION, EstimateConstants
from dsonas_hw.profile.kernel_correction import Trees, corrected_times_ms
from dsonas_hw.profile.kernel_features import kernel_rows
from dsonas_hw.profile.machine import machine_of

#: constant → (starting value, spread of its logarithm).
SHARED: dict[str, tuple[float, float]] = {
    "launch_us": (3.0, 0.2),
    "overlap": (3.0, 0.3),
    "tensor_overlap": (4.0, 0.5),
    "choice": (6.0, 0.3),
    "l2_share": (0.5, 0.3),
    "l2_cost": (0.5, 0.3),
    "split_depth": (200.0, 0.4),
    "idle": (5.0, 0.4),
    "implicit_gemm": (0.7, 0.2),
    "gemm": (0.7, 0.2),
    "tensor": (0.6, 0.2),
    "few_channels": (0.8, 0.2),
    "thin": (0.05, 0.4),
    "pointwise": (1.0, 0.3),
    "strided": (0.9, 0.2),
    "unaligned": (0.8, 0.2),
    "tensor_unaligned": (0.5, 0.3),
    "startup_depth": (40.0, 0.4),
    "tensor_startup_depth": (100.0, 0.4),
    "tile_gain": (0.2, 0.25),
    "tensor_tile_gain": (0.3, 0.4),
    "winograd": (0.6, 0.15),
    "winograd_startup_channels": (16.0, 0.4),
    "winograd_gemm": (0.7, 0.2),
    "winograd_launch_us": (10.0, 0.4),
    "bandwidth_winograd": (0.7, 0.2),
    "bandwidth_matrix": (0.7, 0.2),
    "bandwidth_layout": (1.5, 0.4),
    "bandwidth_elementwise": (0.85, 0.1),
    "bandwidth_norm": (0.85, 0.1),
    "bandwidth_move": (0.7, 0.2),
    "bandwidth_reduce": (0.6, 0.2),
    "bandwidth_softmax": (0.6, 0.2),
    "bandwidth_depthwise": (0.7, 0.2),
    "bandwidth_pool": (0.7, 0.2),
    "bandwidth_grouped": (0.6, 0.2),
    "grouped": (0.6, 0.4),
    "depthwise_base": (80.0, 0.4),
    "depthwise_per_tap": (10.0, 0.4),
    "pool_base": (80.0, 0.3),
    "pool_per_tap": (20.0, 0.3),
    "power_exponent": (0.33, 0.15),
}
#: Not fitted: no measurement tells them apart from others, or none exists.
FIXED = {"bandwidth": 1.0, "integer": 1.0, "network_us": 1.0}
#: Integer arithmetic of Maxwell and Pascal: an address computation takes about twice the instructions.
FIXED_BY_GENERATION = {"Maxwell": {"integer": 0.5}, "Pascal": {"integer": 0.5}}

#: constant → spread of the logarithm of a generation's factor.
PER_GENERATION: dict[str, float] = {
    "implicit_gemm": 0.12,
    "gemm": 0.15,
    "tensor": 0.15,
    "winograd": 0.12,
    "winograd_gemm": 0.12,
    "idle": 0.2,
    "thin": 1.0,
    "tile_gain": 0.12,
    "bandwidth": 0.08,
    "bandwidth_matrix": 0.1,
    "bandwidth_layout": 0.2,
    "depthwise_base": 0.25,
    "bandwidth_depthwise": 0.12,
}
#: constant → spread of the logarithm of TensorRT's factor, per precision.
PER_RUNTIME: dict[str, float] = {
    name: 0.4
    for name in (
        "implicit_gemm", "tensor", "winograd", "winograd_gemm", "idle", "bandwidth_matrix",
        "depthwise_base", "depthwise_per_tap", "bandwidth_depthwise", "tile_gain", "tensor_tile_gain",
        "split_depth", "few_channels", "strided", "startup_depth", "tensor_startup_depth", "thin",
    )
} | {"network_us": 3.0}  # fmt: skip
#: Host time to launch one kernel from eager PyTorch, in µs; hosts differ by a factor, spread 0.4.
HOST_US = {
    "conv": 50.0, "norm": 35.0, "elementwise": 18.0, "pool": 20.0, "reduce": 25.0, "gemm": 40.0, "move": 26.0,
    "softmax": 20.0,
}  # fmt: skip
HOST_SORTS = tuple(HOST_US)
SHARPNESS = 6.0
SOURCE_WEIGHT = {
    "nasbench201": 8.0,
    "fbnet": 2.0,
    "ofa": 2.5,
    "torchvision": 2.5,
    "timm": 2.5,
    "neusight": 2.0,
}

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
            trees = corrections.get(f"{runtime}/{precision}", {})
            ms = corrected_times_ms(rows, machine, constants, trees)
            times[members] = counts @ ms + constants["network_us"] * 1e-3
        return times


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
        shared = _scaled({name: start for name, (start, _) in SHARED.items()}, groups[""]) | FIXED

        def resolved(generation: str, runtime: str, precision: str) -> dict[str, float]:
            constants = _scaled(shared, FIXED_BY_GENERATION.get(generation, {}))
            while generation not in groups and generation in NEAREST_GENERATION:
                generation = NEAREST_GENERATION[generation]
            return _scaled(constants, groups.get(generation, {}))

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
                    only = group if group and self.base is None else None
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
            known = constants.by_generation.get(group, {}) if group else constants.shared
            if name in known:
                x[j] = np.log(known[name] / (1.0 if group else SHARED[name][0]))
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
