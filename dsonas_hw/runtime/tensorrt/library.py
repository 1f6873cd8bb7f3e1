"""The `tensorrt` module: whether it can serve the GPU that is here, and what it logs.

Every name of TensorRT that is used exists in the published type stubs, and in 8.6, 10 and 11 (tests hold the
recorded interfaces of all three). What differs between them:

| | 8.6 | 10 | 11 |
|---|---|---|---|
| explicit batch | a flag of the network | always | always |
| contexts of an engine whose batch is symbolic | one, or a preview feature | many | many |
| fp16, int8 | flags of the builder | flags of the builder | in the model: half-precision types, Q/DQ nodes |
| oldest GPU | Pascal | Turing (Volta up to 10.4) | Turing |
"""

# mypy: allow-subclassing-any
# (a base class of TensorRT is `Any` where its type stubs are not installed)

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from dsonas_hw.device.spec import LOCAL
from dsonas_hw.errors import DeviceError, MissingDependencyError
from dsonas_hw.runtime.cuda import Cuda, TorchCuda
from dsonas_hw.runtime.detect import detect_devices

if TYPE_CHECKING:
    import tensorrt as trt

T = TypeVar("T")

logger = logging.getLogger(__name__)


def require_tensorrt() -> Cuda:
    """The GPU, once it is certain that the installed TensorRT can serve it.

    Raises:
        DeviceError: no driver, no GPU, or a TensorRT that does not support it; says which version does.
        MissingDependencyError: TensorRT is not installed, or does not load.
    """
    detection = detect_devices()
    gpus = [device for device in detection.devices if device.name != LOCAL]
    if not gpus:
        raise DeviceError(f"runtime tensorrt cannot run here: {detection.no_gpu_reason}")
    if len(gpus) == 1:
        _check(gpus[0].status("tensorrt").reason)
    cuda = TorchCuda()
    gpu = detection.find(cuda.name) or next((gpu for gpu in gpus if gpu.title == cuda.name), gpus[0])
    _check(gpu.status("tensorrt").reason)
    tensorrt_version()
    return cuda


def _check(reason: str) -> None:
    if reason:
        raise DeviceError(f"runtime tensorrt cannot run here: {reason}")


def tensorrt_version() -> str:
    """The version of the module that is imported.

    Raises:
        MissingDependencyError: it does not import; with its own reason.
    """
    try:
        import tensorrt as trt

        version = str(trt.__version__)
        trt.Builder  # noqa: B018 - absent where only the type stubs are installed
    except (ImportError, AttributeError, OSError) as error:
        hint = "pip install 'dsonas-hw[tensorrt]'"
        if "libcudnn.so.8" in str(error):
            hint = "TensorRT 8.6 needs cuDNN 8 beside it: see requirements/pascal-tensorrt.txt"
        raise MissingDependencyError(f"the module tensorrt cannot be imported: {error}; {hint}") from error
    return version


def major_version() -> int:
    """8, 10 or 11."""
    return int(tensorrt_version().split(".")[0])


def new_log() -> tuple[trt.ILogger, list[str]]:
    """A logger for TensorRT, and the list in which its errors gather; the rest goes to Python's logging."""
    import tensorrt as trt

    errors: list[str] = []
    severity = trt.ILogger.Severity

    class Log(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity_: trt.ILogger.Severity, message: str) -> None:
            if severity_ in (severity.INTERNAL_ERROR, severity.ERROR):
                errors.append(" ".join(message.split()))
            else:
                level = logging.WARNING if severity_ == severity.WARNING else logging.DEBUG
                logger.log(level, "TensorRT: %s", message)

    return Log(), errors


def started(make: Callable[[trt.ILogger], T], log: trt.ILogger, errors: list[str]) -> T:
    """A builder or runtime of TensorRT, which start CUDA.

    Raises:
        DeviceError: it does not start; with TensorRT's own reason.
    """
    try:
        return make(log)
    except TypeError as error:  # how pybind11 says that the native constructor returned null
        raise DeviceError(f"TensorRT does not start: {first_of(errors, str(error))}") from error


def sizes(dims: trt.Dims) -> tuple[int, ...]:
    """A shape as Python has it."""
    return tuple(dims[index] for index in range(len(dims)))


def or_none(value: T) -> T | None:
    """A result that is null when TensorRT fails, which its type stubs do not say."""
    return value


def first_of(errors: list[str], otherwise: str) -> str:
    """What TensorRT complained about first, of bearable length."""
    text = errors[0] if errors else otherwise
    return text if len(text) <= 400 else text[:400] + "…"
