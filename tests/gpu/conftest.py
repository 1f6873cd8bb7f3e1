"""What only a GPU can show. Without one every test here is skipped, with the driver's reason."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dsonas_hw.device.spec import LOCAL
from dsonas_hw.runtime.cuda_order import as_cuda_gives_it
from dsonas_hw.runtime.detect import DetectedDevice, detect_devices


def gpu_or_reason() -> tuple[DetectedDevice | None, str]:
    """The GPU that CUDA gives, or why there is none."""
    detection = detect_devices()
    gpus = [device for device in detection.devices if device.name != LOCAL]
    return (as_cuda_gives_it(detection, gpus[0]), "") if gpus else (None, detection.no_gpu_reason)


@pytest.fixture(scope="session")
def gpu() -> DetectedDevice:
    """The GPU of this machine."""
    device, reason = gpu_or_reason()
    if device is None:
        pytest.skip(f"no GPU: {reason}")
    return device


@pytest.fixture
def usable(gpu: DetectedDevice) -> Callable[[str], None]:
    """Skips a test whose runtime is not usable here, with the reason."""

    def require(runtime: str) -> None:
        status = gpu.status(runtime)
        if not status.usable:
            pytest.skip(f"{runtime}: {status.reason}")

    return require
