"""The fitted constants of the estimate: `constants.json`, written by `benchmarks/fit_estimator.py`.

A constant for one device and runtime is the shared value times the factors of the device's generation and of
the runtime; both files and code say `factor` where a number multiplies another.
"""

from __future__ import annotations

import functools
import importlib.resources
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dsonas_hw.device.datasheet import Device
from dsonas_hw.device.fingerprint import short_hash
from dsonas_hw.errors import ProfileError
from dsonas_hw.estimate.kernel_correction import Trees, parse_trees
from dsonas_hw.runtime.registry import get_runtime
from dsonas_hw.target import Target

SCHEMA_VERSION = 2
FILES = ("constants.json", "corrections.json")

#: Generations without measurements of their own take the factors of the nearest one that has them.
NEAREST_GENERATION = {"Maxwell": "Pascal", "Hopper": "Ampere", "Blackwell": "Ada", "Ada": "Ampere"}

Numbers = Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class EstimateConstants:
    """Everything that was fitted, and where it comes from."""

    shared: Numbers
    by_generation: Mapping[str, Numbers]
    by_runtime: Mapping[str, Numbers]
    """Factors by "<runtime>/<precision>"."""
    host_us: Mapping[str, Numbers]
    """Runtime → what the host spends to launch one kernel, by kind of kernel."""
    generation_host: Numbers
    """Generation → what host times of an eager framework are multiplied with: machines are of their time."""
    jetson_host: Numbers
    """Generation → what host times are multiplied with on a Jetson, whose CPU is small."""
    sharpness: Numbers
    """How abruptly a network goes over from host-bound to GPU-bound, by runtime."""
    relative_sd: Numbers
    """Standard deviations of the logarithm of measured over estimated: "kernel", "device" and "host" of those
    parts of a network's time; "fused" (runtimes that make kernels of their own), "jetson" and "int8" besides,
    where they apply."""
    corrections: Mapping[str, Mapping[str, Trees]] = field(default_factory=dict)
    """"<runtime>/<precision>" → category of kernel → what multiplies its analytic time."""
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def resolve(self, generation: str, target: Target) -> dict[str, float]:
        """The constants of one generation, and of the target's runtime and precision."""
        values = dict(self.shared)
        factors = [
            self._generation(generation),
            self._generation(f"{generation}/{target.precision}"),
            self.by_runtime.get(_shared(target), {}),
        ]
        for group in factors:
            for name, factor in group.items():
                values[name] = values[name] * factor
        return values

    def host_factor(self, device: Device, runtime: str) -> float:
        """What the host times of a device are multiplied with."""
        if device.is_jetson:
            return self.jetson_host.get(device.architecture, 1.0)
        return self.generation_host.get(device.architecture, 1.0) if not get_runtime(runtime).fuses else 1.0

    def corrections_of(self, target: Target) -> Mapping[str, Trees]:
        """Corrections by category of kernel: of this runtime, or of the one it shares its kernels with."""
        return self.corrections.get(_shared(target), {})

    def _generation(self, key: str) -> Numbers:
        if key in self.by_generation:
            return self.by_generation[key]
        generation, _, precision = key.partition("/")
        nearest = NEAREST_GENERATION.get(generation)
        if nearest is None:
            return {}
        return self._generation(f"{nearest}/{precision}" if precision else nearest)


def _shared(target: Target) -> str:
    """`<runtime>/<precision>` of what the target shares its kernels with."""
    return f"{get_runtime(target.runtime).estimated_as}/{target.precision}"


def parse_constants(data: Mapping[str, Any]) -> EstimateConstants:
    """Check and type the parsed file.

    Raises:
        ProfileError: another schema version, or a number that is missing or not positive.
    """
    if data.get("schema_version") != SCHEMA_VERSION:
        raise ProfileError(
            f"estimate constants have schema version {data.get('schema_version')!r}, this program reads "
            f"{SCHEMA_VERSION}; fit them again with benchmarks/fit_estimator.py"
        )
    groups = (
        "shared",
        "by_generation",
        "by_runtime",
        "host_us",
        "generation_host",
        "jetson_host",
        "sharpness",
        "relative_sd",
        "provenance",
    )
    missing = [name for name in groups if name not in data]
    if missing:
        raise ProfileError(f"estimate constants lack {', '.join(missing)}")
    for path, value in _leaves({name: data[name] for name in groups[:-1]}):
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise ProfileError(f"estimate constant {path} must be a positive number, not {value!r}")
    try:
        corrections = {
            key: {category: parse_trees(trees) for category, trees in by_category.items()}
            for key, by_category in data.get("corrections", {}).items()
        }
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise ProfileError(f"estimate corrections are damaged: {error}") from error
    return EstimateConstants(**{name: data[name] for name in groups}, corrections=corrections)


def constants_hash() -> str:
    """Identifies the constants and corrections that are shipped: what rests on them states it."""
    folder = importlib.resources.files("dsonas_hw.estimate")
    return short_hash(*(folder.joinpath(name).read_text() for name in FILES))


@functools.cache
def load_constants() -> EstimateConstants:
    """The constants shipped with this package."""
    folder = importlib.resources.files("dsonas_hw.estimate")
    data, corrections = (json.loads(folder.joinpath(name).read_text()) for name in FILES)
    return parse_constants(data | {"corrections": corrections})


def _leaves(value: Any, path: str = "") -> list[tuple[str, Any]]:
    if isinstance(value, Mapping):
        return [leaf for key, inner in value.items() for leaf in _leaves(inner, f"{path}.{key}".lstrip("."))]
    return [(path, value)]
