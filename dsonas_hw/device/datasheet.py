"""A device as its datasheet describes it: `devices/<name>.toml`.

Peaks are dense (no structured sparsity) and at the boost clock, unless the datasheet states them at another
(`tensor_clock_mhz`). They feed the estimate of a device that is
absent; a device that is here is measured.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

#: Precisions whose peak a device file may state, in TFLOPS (int8: TOPS).
PEAKS: dict[str, str] = {
    "fp32": "on the CUDA cores",
    "fp16": "on the CUDA cores",
    "fp16_tensor": "on the tensor cores, accumulating in fp32",
    "fp16_tensor_fp16_accumulate": "on the tensor cores, accumulating in fp16",
    "tf32_tensor": "on the tensor cores",
    "int8": "dp4a or tensor cores, whichever is faster",
}


@dataclass(frozen=True, kw_only=True)
class RuntimeSupport:
    """Which versions of a runtime's library can serve a device."""

    versions: str
    """Bounds, all of which must hold: ``>=8.0,<10.1``; ``none``: no version that is driven here."""
    install: str
    """How to get a version that works, or what to use instead."""
    source: str
    """Who says so."""
    cuda: str = ""
    """Bounds on the CUDA version that the library is built for, where that decides; empty: any."""


def admits(bounds: str, version: str) -> bool:
    """Whether a version lies within bounds like ``>=8.0,<10.1``; ``none`` admits nothing, "" everything."""
    if bounds == "none":
        return False
    have = _numbers(version)
    for bound in filter(None, bounds.split(",")):
        operator = bound.rstrip("0123456789.")
        limit = _numbers(bound[len(operator) :])
        padded = have + (0,) * (len(limit) - len(have))
        same = padded[: len(limit)] == limit
        holds = {
            ">=": padded >= limit,
            "<": padded < limit,
            "==": same,
            "<=": same or padded < limit,
            ">": not same and padded > limit,
        }[operator]
        if not holds:
            return False
    return True


def _numbers(version: str) -> tuple[int, ...]:
    """The release numbers of a version: ``8.6.1.post1`` → (8, 6, 1); ``2.14.1+cu126`` → (2, 14, 1)."""
    match = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in match[0].split(".")) if match else ()


@dataclass(frozen=True, kw_only=True)
class Device:
    """One GPU, as its maker describes it."""

    name: str
    """The name of its file, what `--device` takes."""
    title: str
    aliases: tuple[str, ...]
    nvml_names: tuple[str, ...]
    """What the driver calls it."""
    architecture: str
    """Maxwell, Pascal, Volta, Turing, Ampere, Ada, Hopper, Blackwell."""
    compute_capability: tuple[int, int]
    num_sms: int
    cuda_cores_per_sm: int
    boost_clock_mhz: float
    tensor_clock_mhz: float | None = None
    """The clock that the tensor cores' peaks are stated at; None: the boost clock."""
    peak_tflops: Mapping[str, float]
    """See `PEAKS`; a precision the device does not have is absent."""
    memory_bandwidth_gb_s: float
    l2_bytes: int
    memory_bytes: int
    power_w: float
    """Board power limit."""
    has_energy_counter: bool
    """NVML counts energy on Volta and newer data-centre, desktop and workstation cards."""
    runtimes: Mapping[str, RuntimeSupport] = field(default_factory=dict)
    """Runtime → the versions that serve it; a runtime that never can is absent. Empty: nothing is stated."""
    sources: tuple[str, ...]
    unconfirmed: str = ""
    """Which of its numbers no published source confirms; empty: all are confirmed."""

    @property
    def provenance(self) -> str:
        """What an estimate of it goes by, for messages: `its datasheet`, and what is not certain there."""
        doubt = f" ({self.unconfirmed} not confirmed by any published source)" if self.unconfirmed else ""
        return f"its datasheet{doubt}"

    def serves(self, runtime: str) -> bool:
        """Whether some version of a runtime can run here; any can where nothing is stated."""
        if not self.runtimes:
            return True
        return runtime in self.runtimes and self.runtimes[runtime].versions != "none"

    @property
    def fingerprint(self) -> str:
        """Identifies this description in a table's header: the numbers an estimate depends on."""
        from dsonas_hw.device.fingerprint import short_hash

        return short_hash(
            self.architecture,
            self.compute_capability,
            self.num_sms,
            self.cuda_cores_per_sm,
            self.boost_clock_mhz,
            sorted(self.peak_tflops.items()),
            self.memory_bandwidth_gb_s,
            self.l2_bytes,
            self.memory_bytes,
            *([self.tensor_clock_mhz] if self.tensor_clock_mhz else []),
        )

    @property
    def is_jetson(self) -> bool:
        """Whether the host that launches kernels is the small CPU of the same module."""
        return "jetson" in self.title.lower()

    def peak(self, *precisions: str) -> float | None:
        """The first of these peaks that the device has, in TFLOPS at the boost clock."""
        for precision in precisions:
            if precision in self.peak_tflops:
                return self.peak_tflops[precision] * self._boost_over_stated(precision)
        return None

    def _boost_over_stated(self, precision: str) -> float:
        on_tensor_cores = "tensor" in precision or (precision == "int8" and self.compute_capability >= (7, 2))
        if self.tensor_clock_mhz is None or not on_tensor_cores:
            return 1.0
        return self.boost_clock_mhz / self.tensor_clock_mhz
