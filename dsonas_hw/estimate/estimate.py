"""Milliseconds for a GPU that is not here, from its datasheet, with an interval.

    network = soft-max(sum of kernel times on the GPU, sum of launch times on the host)

Kernel times come from `kernel_time`; constants from `constants.json`. docs/estimator.md says how
they were fitted and how far they can be trusted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from dsonas_hw.budget import Metric
from dsonas_hw.cost.model import Z90, Prediction
from dsonas_hw.device.datasheet import Device
from dsonas_hw.device.fingerprint import short_hash
from dsonas_hw.device.spec import load_device
from dsonas_hw.errors import ProfileError
from dsonas_hw.estimate.constants import EstimateConstants, load_constants
from dsonas_hw.estimate.kernel_correction import corrected_times_ms
from dsonas_hw.estimate.kernel_features import category_of, kernel_rows
from dsonas_hw.estimate.machine import machine_of
from dsonas_hw.kernel.spec import Kernel
from dsonas_hw.runtime.registry import all_runtimes, get_runtime
from dsonas_hw.table.commands import profile_command
from dsonas_hw.table.rows import Source
from dsonas_hw.target import Target

#: Copies that some runtimes do not make (`Runtime.views_are_free`).
_VIEWS = ("slice", "split", "expand")


class EstimatedLatency:
    """The analytic estimate of one device, runtime and precision; a `cost.model.CostModel`."""

    source: Source = "estimated"

    def __init__(self, device: Device, target: Target, *, constants: EstimateConstants | None = None) -> None:
        """target: how networks run there; the device counts, whatever its name there.

        Raises:
            ProfileError: no estimate exists for this runtime.
            DeviceError: the datasheet lacks the peak of this precision.
        """
        constants = constants or load_constants()
        runtime, precision = target.runtime, target.precision
        if runtime not in estimated_runtimes():
            raise ProfileError(
                f"cannot estimate runtime {runtime!r} for {device.name}; "
                f"estimates exist for {', '.join(estimated_runtimes())}"
            )
        self._how = get_runtime(runtime)
        self.target = replace(target, device=device.name)
        self._provenance = device.provenance
        self.fuse = self._how.fuses
        self._constants = constants.resolve(device.architecture, target)
        self._machine = machine_of(device, target, self._constants)
        tf32 = self._machine.on_tensor_cores and self._machine.element_bytes == 4
        # The corrections of fp32 were measured without tensor cores.
        self._corrections = {} if tf32 else constants.corrections_of(target)
        self.network_ms = self._constants["network_us"] * 1e-3
        """What a network costs besides its kernels."""
        slow = constants.host_factor(device, runtime)
        self._host_us = {category: us * slow for category, us in constants.host_us[runtime].items()}
        self.sharpness = constants.sharpness[runtime]
        self._sd = constants.relative_sd
        self._launch_ms = self._constants["launch_us"] * 1e-3
        self._far_variance = sum(
            self._sd[name] ** 2
            for name, applies in (
                ("fused", self.fuse),
                ("jetson", device.is_jetson),
                ("int8", precision == "int8"),
            )
            if applies
        )
        """Of what is guessed (which kernels a runtime makes) or was hardly measured."""
        self.fingerprint = short_hash(
            device.fingerprint, runtime, precision, self._constants, self._host_us, self.sharpness
        )
        """Of everything that the estimate depends on, learned corrections aside."""
        self._cache: dict[Kernel, tuple[float, float]] = {}

    @property
    def expected_error(self) -> float:
        """Half of the 90 % interval of a network whose time is spread over many kernels; 0.3 is 30 %."""
        return math.expm1(Z90 * math.sqrt(self._variance(1.0, 0.0)))

    @property
    def disclaimer(self) -> str:
        """Says that nothing was measured, and how far off a network may be."""
        return (
            f"ESTIMATED, NOT MEASURED: latencies of {self.target.device} come from {self._provenance}; a "
            f"network's may be off by about ±{self.expected_error:.0%} (90 % interval)"
        )

    def why_not(self, metric: Metric) -> str:
        """Energy is measured, never estimated."""
        if metric == "latency":
            return ""
        command = profile_command(self.target)
        return (
            f"{metric} of {self.target.device} is not known: it is measured, never estimated; "
            f"where the card is, measure it with: {command}"
        )

    def predict(self, kernels: Sequence[Kernel], metric: Metric = "latency") -> Prediction:
        """Latency of the network that these kernels make up.

        A single kernel is predicted as benchmarks of kernels time it: on the GPU, without the host.

        Raises:
            ProfileError: there is no kernel, or another metric is asked for.
        """
        self._check(metric)
        gpu, host, squares = self.totals(kernels)
        if len(kernels) == 1:
            host = 0.0
        latency = self.combine(gpu, host)
        gpu_share = (gpu / latency) ** self.sharpness
        factor = math.exp(Z90 * math.sqrt(self._variance(gpu_share, squares / gpu**2)))
        return Prediction(value=latency, low=latency / factor, high=latency * factor, source=self.source)

    def _check(self, metric: Metric) -> None:
        if reason := self.why_not(metric):
            raise ProfileError(reason)

    def _variance(self, gpu_share: float, concentration: float) -> float:
        """Of the logarithm of measured over estimated; concentration: 1 if one kernel takes all the time."""
        on_gpu = self._sd["device"] ** 2 + self._sd["kernel"] ** 2 * concentration
        on_host = self._sd["host"] ** 2
        return gpu_share**2 * on_gpu + (1 - gpu_share) ** 2 * on_host + self._far_variance

    def kernel_cost(self, kernel: Kernel, metric: Metric = "latency") -> float:
        """What the kernel adds to a network: its time on the GPU or on the host, whichever is longer.

        Raises:
            ProfileError: another metric than latency is asked for.
        """
        self._check(metric)
        gpu, host = self.times([kernel])[0]
        return self.combine(gpu, host)

    def totals(self, kernels: Sequence[Kernel]) -> tuple[float, float, float]:
        """Sums over the kernels in ms: GPU time, host time, and the sum of squared GPU times (ms²).

        Raises:
            ProfileError: there is no kernel.
        """
        if not kernels:
            raise ProfileError("a network without kernels has no latency to predict")
        gpu, host, squares = self.network_ms, 0.0, 0.0
        for kernel_gpu, kernel_host in self.times(kernels):
            gpu += kernel_gpu
            host += kernel_host
            squares += kernel_gpu * kernel_gpu
        return gpu, host, squares

    def combine(self, gpu_ms: float, host_ms: float) -> float:
        """Latency of a network from its two streams, which overlap."""
        high, low = max(gpu_ms, host_ms), min(gpu_ms, host_ms)
        return float(high * (1 + (low / high) ** self.sharpness) ** (1 / self.sharpness))

    def times(self, kernels: Sequence[Kernel]) -> list[tuple[float, float]]:
        """(GPU ms, host ms) of every kernel; each distinct kernel is computed once."""
        cache = self._cache
        try:
            return [cache[kernel] for kernel in kernels]
        except KeyError:
            new = list(dict.fromkeys(kernel for kernel in kernels if kernel not in cache))
        cache.update(zip(new, self._compute(new), strict=True))
        return [cache[kernel] for kernel in kernels]

    def _compute(self, kernels: Sequence[Kernel]) -> list[tuple[float, float]]:
        gpu_ms = corrected_times_ms(kernel_rows(kernels), self._machine, self._constants, self._corrections)
        return [self._adapt(kernel, float(gpu)) for kernel, gpu in zip(kernels, gpu_ms, strict=True)]

    def _adapt(self, kernel: Kernel, gpu_ms: float) -> tuple[float, float]:
        """(GPU ms, host ms) of a kernel, given its time on the GPU, as this runtime runs it."""
        if self._how.views_are_free and kernel.function in _VIEWS:
            return 0.0, 0.0
        num_inputs = len(kernel.inputs)
        if self._how.adds_while_making and kernel.op == "sum" and num_inputs > 1:
            # Only the other summands are read.
            return (gpu_ms - self._launch_ms) * (num_inputs - 1) / (num_inputs + 1), 0.0
        if self._how.adds_while_making and kernel.op == "concat":
            # Those that make the parts write to where they belong, as far as the runtime manages.
            gpu_ms *= self._constants["concat"]
        return gpu_ms, self._host_us[host_category(kernel)] * 1e-3


def estimated_runtimes() -> list[str]:
    """Names of the runtimes that there are constants for."""
    return [runtime.name for runtime in all_runtimes() if runtime.estimated_as]


def host_category(kernel: Kernel) -> str:
    """Which launch cost a kernel has: convolutions cost the host most."""
    category = category_of(kernel)
    if kernel.kind == "conv":
        return "depthwise" if kernel.is_depthwise else "conv"
    return "gemm" if category == "matrix" else category


def load_estimate(target: Target, *, constants: EstimateConstants | None = None) -> EstimatedLatency:
    """The estimate of a target from its device's datasheet.

    Raises:
        ProfileError: no estimate exists for this runtime.
        DeviceError: no such device, or its datasheet lacks the peak of this precision.
    """
    return EstimatedLatency(load_device(target.device), target, constants=constants)
