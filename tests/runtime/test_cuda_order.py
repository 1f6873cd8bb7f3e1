"""Several GPUs: what is measured under a GPU's name has run on such a one."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

import pytest

from dsonas_hw.errors import DeviceError
from dsonas_hw.runtime import cuda_order
from dsonas_hw.runtime.cuda_order import as_cuda_gives_it, first_gpu_uuid
from dsonas_hw.runtime.detect import LOCAL, DetectedDevice, Detection

DRIVER = """
int cuInit(unsigned flags) { return FAILURE; }
int cuDeviceGet(int *device, int ordinal) { *device = 7; return ordinal != 0; }
int cuDeviceGetUuid(unsigned char *uuid, int device) {
    for (int i = 0; i < 16; i++) uuid[i] = 16 * i + device;
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
        as_cuda_gives_it(HERE, OLD, first_uuid=lambda: "GPU-b")


def test_a_sister_is_watched_if_she_is_the_one_that_runs() -> None:
    assert as_cuda_gives_it(HERE, NEW, first_uuid=lambda: "GPU-c") is TWIN
    assert as_cuda_gives_it(HERE, NEW, first_uuid=lambda: "GPU-b") is NEW


def test_where_cuda_does_not_tell_the_device_stays() -> None:
    assert as_cuda_gives_it(HERE, OLD, first_uuid=lambda: None) is OLD
    assert as_cuda_gives_it(HERE, OLD, first_uuid=lambda: "MIG-x") is OLD
    assert as_cuda_gives_it(HERE, CPU, first_uuid=lambda: "GPU-b") is CPU


@pytest.mark.parametrize(("failure", "found"), [(0, UUID), (100, None)])
def test_the_driver_is_asked(
    failure: int, found: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small driver, compiled here."""
    source, library = tmp_path / "cuda.c", tmp_path / "libcuda.so.1"
    source.write_text(DRIVER)
    subprocess.run(
        ["cc", "-shared", "-fPIC", f"-DFAILURE={failure}", "-o", str(library), str(source)], check=True
    )
    real = ctypes.CDLL
    monkeypatch.setattr(cuda_order.ctypes, "CDLL", lambda name: real(str(library)))
    assert first_gpu_uuid() == found


def test_without_a_driver_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(cuda_order.ctypes, "CDLL", missing)
    assert first_gpu_uuid() is None
