"""The NVIDIA driver itself, without any framework."""

from __future__ import annotations

import ctypes


def why_no_driver() -> str | None:
    """Ask the driver itself (libcuda), without any framework."""
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
