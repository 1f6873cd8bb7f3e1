"""Read `devices/<name>.toml`: a file anybody may have written, so every value is checked."""

from __future__ import annotations

import math
import re
import sys
from pathlib import Path
from typing import Any

from dsonas_hw.device.datasheet import PEAKS, Device, RuntimeSupport
from dsonas_hw.errors import DeviceError, closest
from dsonas_hw.files import read_regular

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MAX_FILE_BYTES = 64 * 1024

#: Key → (lowest, highest) value that a GPU of the years 2014 to 2035 can have.
RANGES: dict[str, tuple[float, float]] = {
    "num_sms": (1, 2000),
    "cuda_cores_per_sm": (32, 512),
    "boost_clock_mhz": (100, 6000),
    "memory_bandwidth_gb_s": (5, 100_000),
    "l2_bytes": (64 * 2**10, 16 * 2**30),
    "memory_bytes": (2**30, 4 * 2**40),
    "power_w": (3, 5000),
}
INTEGERS = ("num_sms", "cuda_cores_per_sm", "l2_bytes", "memory_bytes")
PEAK_RANGE_TFLOPS = (0.01, 1_000_000)
TEXTS = ("title", "architecture")
KEYS = {
    *RANGES,
    *TEXTS,
    "tensor_clock_mhz",
    "aliases",
    "nvml_names",
    "compute_capability",
    "peak_tflops",
    "has_energy_counter",
    "runtimes",
    "sources",
    "unconfirmed",
}
#: Stated peaks and those that follow from SMs and clock may differ by this factor: makers round.
PEAK_TOLERANCE = 0.02
_BOUNDS = re.compile(r"(>=|<=|<|>|==)\d+(\.\d+)*(,(>=|<=|<|>|==)\d+(\.\d+)*)*")


def read_device(path: Path) -> Device:
    """Read and check one device file; the device's name is the file's.

    Raises:
        DeviceError: the file is unreadable, or a value is missing, of the wrong type, or impossible.
    """
    try:
        data = read_regular(path, max_bytes=MAX_FILE_BYTES)
    except OSError as error:
        raise DeviceError(f"cannot read the device file {path}: {error.strerror or error}") from error
    try:
        values = tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise DeviceError(f"{path} is not valid TOML: {error}") from error
    return _Checker(path).device(values)


#: First compute capability of every generation; what comes after the last is not known.
_GENERATIONS = (
    ((5, 0), "Maxwell"),
    ((6, 0), "Pascal"),
    ((7, 0), "Volta"),
    ((7, 5), "Turing"),
    ((8, 0), "Ampere"),
    ((8, 9), "Ada"),
    ((9, 0), "Hopper"),
    ((10, 0), "Blackwell"),
    ((13, 0), None),
)


def generation_of(compute_capability: tuple[int, int]) -> str | None:
    """Name of the generation with this compute capability; None: older or newer than those known here."""
    names = [name for first, name in _GENERATIONS if first <= compute_capability]
    return names[-1] if names else None


class _Checker:
    """Turns the values of one file into a `Device`; every complaint names the file and the key."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def fail(self, message: str) -> DeviceError:
        return DeviceError(f"device file {self.path}: {message}")

    def device(self, values: dict[str, Any]) -> Device:
        for key in values:
            if key not in KEYS:
                raise self.fail(f"unknown key {key!r}. {closest(key, sorted(KEYS))}")
        numbers = {key: self.number(values, key, *bounds) for key, bounds in RANGES.items()}
        device = Device(
            name=self.path.stem,
            title=self.text(values, "title"),
            aliases=self.texts(values, "aliases"),
            nvml_names=self.texts(values, "nvml_names"),
            architecture=self.text(values, "architecture"),
            compute_capability=self.compute_capability(values),
            num_sms=int(numbers["num_sms"]),
            cuda_cores_per_sm=int(numbers["cuda_cores_per_sm"]),
            boost_clock_mhz=numbers["boost_clock_mhz"],
            tensor_clock_mhz=self.number(values, "tensor_clock_mhz", *RANGES["boost_clock_mhz"])
            if "tensor_clock_mhz" in values
            else None,
            peak_tflops=self.peaks(values),
            memory_bandwidth_gb_s=numbers["memory_bandwidth_gb_s"],
            l2_bytes=int(numbers["l2_bytes"]),
            memory_bytes=int(numbers["memory_bytes"]),
            power_w=numbers["power_w"],
            has_energy_counter=self.flag(values, "has_energy_counter"),
            runtimes=self.runtimes(values),
            sources=self.texts(values, "sources"),
            unconfirmed=self.text(values, "unconfirmed") if "unconfirmed" in values else "",
        )
        self.check_consistency(device)
        return device

    def value(self, values: dict[str, Any], key: str) -> Any:
        if key not in values:
            raise self.fail(f"{key!r} is missing")
        return values[key]

    def number(self, values: dict[str, Any], key: str, low: float, high: float) -> float:
        value = self.value(values, key)
        whole = key in INTEGERS
        if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
            raise self.fail(f"{key} must be a {'whole ' if whole else ''}number, not {value!r}")
        if not low <= value <= high:
            raise self.fail(f"{key} = {value} is impossible: expected {low:g} to {high:g}")
        return value

    def text(self, values: dict[str, Any], key: str) -> str:
        value = self.value(values, key)
        if not isinstance(value, str) or not value.strip():
            raise self.fail(f"{key} must be a non-empty text, not {value!r}")
        return value

    def texts(self, values: dict[str, Any], key: str) -> tuple[str, ...]:
        value = self.value(values, key)
        if not isinstance(value, list) or not all(isinstance(item, str) and item.strip() for item in value):
            raise self.fail(f"{key} must be a list of texts, not {value!r}")
        return tuple(value)

    def flag(self, values: dict[str, Any], key: str) -> bool:
        value = self.value(values, key)
        if not isinstance(value, bool):
            raise self.fail(f"{key} must be true or false, not {value!r}")
        return value

    def table(self, values: dict[str, Any], key: str) -> dict[str, Any]:
        value = self.value(values, key)
        if not isinstance(value, dict):
            raise self.fail(f"{key} must be a table, not {value!r}")
        return value

    def compute_capability(self, values: dict[str, Any]) -> tuple[int, int]:
        value = self.text(values, "compute_capability")
        if not re.fullmatch(r"[0-9]{1,2}\.[0-9]", value):
            raise self.fail(f'compute_capability must be written like "6.1", not {value!r}')
        major, minor = value.split(".")
        return int(major), int(minor)

    def peaks(self, values: dict[str, Any]) -> dict[str, float]:
        peaks = self.table(values, "peak_tflops")
        for precision in peaks:
            if precision not in PEAKS:
                raise self.fail(f"peak_tflops of {precision!r}? {closest(precision, sorted(PEAKS))}")
        if "fp32" not in peaks:
            raise self.fail("peak_tflops.fp32 is missing")
        return {precision: self.number(peaks, precision, *PEAK_RANGE_TFLOPS) for precision in peaks}

    def runtimes(self, values: dict[str, Any]) -> dict[str, RuntimeSupport]:
        runtimes = {}
        for name in self.table(values, "runtimes") if "runtimes" in values else {}:
            support = self.table(values["runtimes"], name)
            if (
                not {"versions", "install", "source"}
                <= set(support)
                <= {"versions", "install", "source", "cuda"}
            ):
                raise self.fail(
                    f"runtimes.{name} needs the keys versions, install, source, and may have cuda"
                )
            runtimes[name] = RuntimeSupport(
                versions=self.bounds(support, name, "versions"),
                install=self.text(support, "install"),
                source=self.text(support, "source"),
                cuda=self.bounds(support, name, "cuda") if "cuda" in support else "",
            )
        return runtimes

    def bounds(self, support: dict[str, Any], runtime: str, key: str) -> str:
        value = support[key]
        if not (isinstance(value, str) and (value == "none" or _BOUNDS.fullmatch(value))):
            raise self.fail(f'runtimes.{runtime}.{key} must be like ">=8.0,<10.1", or "none", not {value!r}')
        return value

    def check_consistency(self, device: Device) -> None:
        """Numbers that are possible one by one, but not together."""
        for precision in device.peak_tflops:
            self.check_peak(device, precision)
        tensor = [precision for precision in device.peak_tflops if "tensor" in precision]
        if tensor and device.compute_capability < (7, 0):
            raise self.fail(f"peak_tflops.{tensor[0]}: tensor cores came with compute capability 7.0")
        if device.l2_bytes >= device.memory_bytes:
            raise self.fail(f"l2_bytes = {device.l2_bytes} is not smaller than memory_bytes")
        name = generation_of(device.compute_capability)
        if name is not None and device.architecture != name:
            raise self.fail(
                f"architecture = {device.architecture!r} contradicts compute_capability "
                f"{'.'.join(map(str, device.compute_capability))}, which is {name}"
            )

    def check_peak(self, device: Device, precision: str) -> None:
        """A peak is SMs × clock × operations of an SM per clock: two a core, or else a power of two."""
        stated, is_fp32 = device.peak_tflops[precision], precision == "fp32"
        clocks = {device.boost_clock_mhz}
        if not precision.startswith("fp") or "tensor" in precision:
            clocks.add(device.tensor_clock_mhz or device.boost_clock_mhz)
        for clock in clocks:
            an_sm = stated * 1e6 / (device.num_sms * clock)
            nearest = 2 * device.cuda_cores_per_sm if is_fp32 else 2 ** round(math.log2(an_sm))
            if math.isclose(an_sm, nearest, rel_tol=PEAK_TOLERANCE):
                return
        per_clock = f"{device.cuda_cores_per_sm} cores × 2" if is_fp32 else "any power of two"
        raise self.fail(
            f"peak_tflops.{precision} = {stated:g} contradicts {device.num_sms} SMs × {per_clock} × "
            f"{' or '.join(f'{clock:g}' for clock in sorted(clocks))} MHz"
        )
