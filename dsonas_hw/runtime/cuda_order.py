"""Which GPU a program gets from CUDA. The driver numbers GPUs by slot, CUDA begins with the fastest, and
CUDA_VISIBLE_DEVICES hides some: number 0 of one need not be number 0 of the other."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

from dsonas_hw.errors import DeviceError
from dsonas_hw.runtime.detect import DetectedDevice, Detection


def as_cuda_gives_it(
    detection: Detection, device: DetectedDevice, *, first_uuid: Callable[[], str | None] | None = None
) -> DetectedDevice:
    """The GPU of this model on which networks will run; the device itself where CUDA does not tell.

    first_uuid: stands in for `first_gpu_uuid` in tests.

    Raises:
        DeviceError: they would run on a GPU of another model.
    """
    if device.index is None:
        return device
    uuid = (first_uuid or first_gpu_uuid)()
    first = next((gpu for gpu in detection.devices if uuid is not None and gpu.uuid == uuid), device)
    if first.name != device.name:
        raise DeviceError(
            f"{device.title} is here, but what runs on the GPU would run on {first.title}, which CUDA counts "
            f"first; set CUDA_VISIBLE_DEVICES={device.uuid}"
        )
    return first


def first_gpu_uuid() -> str | None:
    """UUID of CUDA's GPU number 0, written as NVML does; None where there is none."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if hasattr(ctypes, "windll") else "libcuda.so.1")
        number, uuid = ctypes.c_int(0), (ctypes.c_ubyte * 16)()
        if driver.cuInit(0) or driver.cuDeviceGet(ctypes.byref(number), 0):
            return None
        if driver.cuDeviceGetUuid(uuid, number):
            return None
    except (OSError, AttributeError):
        return None
    text = bytes(uuid).hex()
    return f"GPU-{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
