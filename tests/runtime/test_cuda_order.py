"""Several GPUs: what is measured under a GPU's name has run on such a one."""

from __future__ import annotations

import ctypes
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from dsonas_hw.device.spec import LOCAL, load_device
from dsonas_hw.errors import DeviceError
from dsonas_hw.runtime import cuda_order
from dsonas_hw.runtime.cuda_order import CudaGpu, as_cuda_gives_it, first_cuda_gpu
from dsonas_hw.runtime.detect import DetectedDevice, Detection

DRIVER = """
int cuInit(unsigned flags) { return FAILURE; }
int cuDeviceGet(int *device, int ordinal) { *device = 7; return ordinal != 0; }
int cuDeviceGetUuid(unsigned char *uuid, int device) { return -1; }
int cuDeviceGetUuid_v2(unsigned char *uuid, int device) {
    for (int i = 0; i < 16; i++) uuid[i] = 16 * i + device;
    return 0;
}
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    *value = attribute == 16 ? 132 : 0;
    return 0;
}
"""
UUID = "GPU-07172737-4757-6777-8797-a7b7c7d7e7f7"


def device(name: str, index: int | None, uuid: str | None) -> DetectedDevice:
    return DetectedDevice(
        name=name, title=name.upper(), fingerprint="", device=None, index=index, uuid=uuid,
        driver_version=None, compute_capability=None, runtimes=(),
    )  # fmt: skip


CPU = device(LOCAL, None, None)
OLD, NEW, TWIN = device("1080ti", 0, "GPU-a"), device("a100", 1, "GPU-b"), device("a100", 2, "GPU-c")
HERE = Detection(devices=(CPU, OLD, NEW, TWIN), no_gpu_reason="")


def test_a_gpu_of_another_model_is_not_measured_under_this_one_s_name() -> None:
    with pytest.raises(DeviceError, match=r"1080TI is here, .* on A100, .* set CUDA_VISIBLE_DEVICES=GPU-a"):
        as_cuda_gives_it(HERE, OLD, first_gpu=lambda: CudaGpu(uuid="GPU-b"))


def test_a_sister_is_watched_if_she_is_the_one_that_runs() -> None:
    assert as_cuda_gives_it(HERE, NEW, first_gpu=lambda: CudaGpu(uuid="GPU-c")) is TWIN
    assert as_cuda_gives_it(HERE, NEW, first_gpu=lambda: CudaGpu(uuid="GPU-b")) is NEW


def test_where_cuda_does_not_tell_the_device_stays() -> None:
    assert as_cuda_gives_it(HERE, OLD, first_gpu=lambda: None) is OLD
    assert as_cuda_gives_it(HERE, CPU, first_gpu=lambda: CudaGpu(uuid="GPU-b")) is CPU


def test_a_slice_of_a_gpu_is_not_measured_as_the_whole_card() -> None:
    """Its UUID is none that the driver lists; or it is, and the slice has fewer SMs."""
    with pytest.raises(DeviceError, match=r"MIG-x, which is none of .* set CUDA_VISIBLE_DEVICES=GPU-a"):
        as_cuda_gives_it(HERE, OLD, first_gpu=lambda: CudaGpu(uuid="MIG-x"))
    card = replace(device("h100", 0, "GPU-h"), device=load_device("h100"))
    here = Detection(devices=(CPU, card), no_gpu_reason="")
    assert as_cuda_gives_it(here, card, first_gpu=lambda: CudaGpu(uuid="GPU-h", num_sms=132)) is card
    with pytest.raises(DeviceError, match="gives 60 of the 132 SMs"):
        as_cuda_gives_it(here, card, first_gpu=lambda: CudaGpu(uuid="GPU-h", num_sms=60))


@pytest.mark.parametrize(("failure", "found"), [(0, CudaGpu(uuid=UUID, num_sms=132)), (100, None)])
def test_the_driver_is_asked(
    failure: int, found: CudaGpu | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small driver, compiled here."""
    source, library = tmp_path / "cuda.c", tmp_path / "libcuda.so.1"
    source.write_text(DRIVER)
    subprocess.run(
        ["cc", "-shared", "-fPIC", f"-DFAILURE={failure}", "-o", str(library), str(source)], check=True
    )
    real = ctypes.CDLL
    monkeypatch.setattr(cuda_order.ctypes, "CDLL", lambda name: real(str(library)))
    assert first_cuda_gpu() == found


def test_without_a_driver_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(cuda_order.ctypes, "CDLL", missing)
    assert first_cuda_gpu() is None
