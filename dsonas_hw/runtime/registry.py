"""The runtimes there are, by name."""

from __future__ import annotations

from pathlib import Path

from dsonas_hw.device.datasheet import Device
from dsonas_hw.device.spec import LOCAL
from dsonas_hw.errors import DeviceError, closest
from dsonas_hw.runtime.base import Runtime, Session
from dsonas_hw.runtime.model import read_model
from dsonas_hw.target import Target

_RUNTIMES: dict[str, Runtime] = {}


def register(runtime: Runtime) -> None:
    """Make a runtime known; one of the same name is replaced."""
    _RUNTIMES[runtime.name] = runtime


def unregister(name: str) -> None:
    """Forget a runtime, as tests do with theirs."""
    del _RUNTIMES[name]


def all_runtimes() -> tuple[Runtime, ...]:
    """Every runtime, in the order in which they are tried."""
    return tuple(_RUNTIMES.values())


def runtime_names() -> list[str]:
    """Their names, in that order."""
    return list(_RUNTIMES)


def get_runtime(name: str, precision: str | None = None) -> Runtime:
    """The runtime of this name, which runs this precision if one is named.

    Raises:
        DeviceError: there is none, or it does not run that; with what there is.
    """
    found = _RUNTIMES.get(name)
    if found is None:
        raise DeviceError(f"unknown runtime {name!r}. {closest(name, runtime_names())}")
    if precision is not None and precision not in found.precisions:
        raise DeviceError(
            f"runtime {name} does not run precision {precision!r}; it has: {', '.join(found.precisions)}"
        )
    return found


def runtimes_of(device: Device | None) -> list[Runtime]:
    """The runtimes that serve a GPU by its datasheet, or (None) this machine's CPU, best first.

    Raises:
        DeviceError: the datasheet names a runtime that there is not.
    """
    if device is None:
        return [runtime for runtime in all_runtimes() if runtime.on_cpu]
    for name in device.runtimes:
        if name not in _RUNTIMES:
            raise DeviceError(
                f"the device file of {device.name} names an unknown runtime {name!r}. "
                f"{closest(name, runtime_names())}"
            )
    return [runtime for runtime in all_runtimes() if runtime.on_gpu and device.serves(runtime.name)]


def open_session(model: bytes | Path, target: Target) -> Session:
    """Load an ONNX model into the target's runtime.

    The batch size counts for a model whose batch is symbolic; a fixed one must agree.

    Raises:
        DeviceError: unknown runtime or precision, or the runtime cannot run here (one line with the reason).
        ModelFileError: not a model, or one that the runtime does not take.
    """
    return get_runtime(target.runtime, target.precision).open_session(read_model(model), target)


def is_local(target: Target) -> bool:
    """Whether the target is this machine's CPU."""
    return target.device == LOCAL
