"""Which GPU a program gets from CUDA. The driver numbers GPUs by slot, CUDA begins with the fastest, and
CUDA_VISIBLE_DEVICES hides some: number 0 of one need not be number 0 of the other. Where MIG divides a GPU,
CUDA's number 0 is a slice of it, with a UUID of its own and fewer SMs."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass

from dsonas_hw.device.spec import LOCAL
from dsonas_hw.errors import DeviceError
from dsonas_hw.runtime.detect import DetectedDevice, Detection

_MULTIPROCESSOR_COUNT = 16
"""CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT."""


@dataclass(frozen=True, kw_only=True)
class CudaGpu:
    """CUDA's GPU number 0."""

    uuid: str
    """Written as NVML does."""
    num_sms: int | None = None


def as_cuda_gives_it(
    detection: Detection,
    device: DetectedDevice,
    *,
    first_gpu: Callable[[], CudaGpu | None] | None = None,
) -> DetectedDevice:
    """The GPU of this model on which networks will run; the device itself where CUDA does not tell.

    first_gpu: stands in for `first_cuda_gpu` in tests.

    Raises:
        DeviceError: they would run on a GPU of another model, on a slice of one, or on one that the driver
            does not list.
    """
    if device.name == LOCAL:
        return device
    cuda = (first_gpu or first_cuda_gpu)()
    by_uuid = {gpu.uuid: gpu for gpu in detection.devices if gpu.uuid is not None}
    if cuda is None or not by_uuid:
        return device
    first = by_uuid.get(cuda.uuid)
    if first is None:
        raise DeviceError(
            f"{device.title} is here, but what runs on the GPU would run on {cuda.uuid}, which is none of "
            f"the GPUs that the driver lists (a slice of one that MIG divides?); "
            f"set CUDA_VISIBLE_DEVICES={device.uuid}"
        )
    if first.name != device.name:
        raise DeviceError(
            f"{device.title} is here, but what runs on the GPU would run on {first.title}, which CUDA counts "
            f"first; set CUDA_VISIBLE_DEVICES={device.uuid}"
        )
    datasheet = first.device
    if datasheet is not None and cuda.num_sms is not None and cuda.num_sms < datasheet.num_sms:
        raise DeviceError(
            f"CUDA gives {cuda.num_sms} of the {datasheet.num_sms} SMs of {first.title}: "
            "a slice, whose timings are not the card's; use it undivided "
            "(without MIG, vGPU and CUDA_MPS_ACTIVE_THREAD_PERCENTAGE)"
        )
    return first


def first_cuda_gpu() -> CudaGpu | None:
    """CUDA's GPU number 0, asked of the driver itself; None where there is none."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if hasattr(ctypes, "windll") else "libcuda.so.1")
        number, uuid = ctypes.c_int(0), (ctypes.c_ubyte * 16)()
        if driver.cuInit(0) or driver.cuDeviceGet(ctypes.byref(number), 0):
            return None
        # The first version of this function gives a slice the UUID of the whole GPU.
        get_uuid = getattr(driver, "cuDeviceGetUuid_v2", None) or driver.cuDeviceGetUuid
        if get_uuid(uuid, number):
            return None
        num_sms = ctypes.c_int(0)
        failed = driver.cuDeviceGetAttribute(ctypes.byref(num_sms), _MULTIPROCESSOR_COUNT, number)
    except (OSError, AttributeError):
        return None
    text = bytes(uuid).hex()
    return CudaGpu(
        uuid=f"GPU-{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}",
        num_sms=None if failed else num_sms.value,
    )
