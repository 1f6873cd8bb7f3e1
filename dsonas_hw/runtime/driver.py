"""NVIDIA's driver and libraries, asked themselves, without any framework."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

CUDNN = ("libcudnn.so.9", "libcudnn.so.8", "cudnn64_9.dll", "cudnn64_8.dll")
TENSORRT = ("libnvinfer.so.11", "libnvinfer.so.10", "libnvinfer.so.8", "nvinfer_10.dll")


def cudnn_version(load: Callable[[str], Any] = ctypes.CDLL) -> str | None:
    """Of the cuDNN that this process finds; None where there is none."""
    return _version(CUDNN, "cudnnGetVersion", load)


def tensorrt_library_version(load: Callable[[str], Any] = ctypes.CDLL) -> str | None:
    """Of the TensorRT that this process finds; None where there is none."""
    return _version(TENSORRT, "getInferLibVersion", load)


def _version(names: tuple[str, ...], function: str, load: Callable[[str], Any]) -> str | None:
    for name in names:
        try:
            return version_text(int(getattr(load(name), function)()))
        except (OSError, AttributeError):
            continue
    return None


def version_text(number: int) -> str:
    """91002 → 9.10.2; up to version 8 a digit less for the major part: 8601 → 8.6.1."""
    if number >= 10_000:
        return f"{number // 10_000}.{number % 10_000 // 100}.{number % 100}"
    return f"{number // 1000}.{number % 1000 // 100}.{number % 100}"


def why_no_driver() -> str | None:
    """Why the driver (libcuda) serves no GPU; None: it does."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if hasattr(ctypes, "windll") else "libcuda.so.1")
    except OSError as error:
        return f"no NVIDIA driver ({error})"
    code = driver.cuInit(0)
    if code:
        return f"the NVIDIA driver does not start (cuInit gave error {code})"
    count = ctypes.c_int(0)
    code = driver.cuDeviceGetCount(ctypes.byref(count))
    if code or count.value < 1:
        return "the NVIDIA driver sees no GPU"
    return None
