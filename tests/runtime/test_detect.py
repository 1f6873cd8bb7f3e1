"""What is here, with drivers and libraries that the tests make up."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dsonas_hw.device.spec import load_device
from dsonas_hw.errors import DeviceError
from dsonas_hw.runtime.detect import Detection, detect_devices
from dsonas_hw.runtime.libraries import Library
from dsonas_hw.runtime.ort import family


class FakeGpu:
    index, uuid = 0, "GPU-1"

    def __init__(self, name: str, capability: tuple[int, int]) -> None:
        self.name, self.compute_capability = name, capability


class FakeNvml:
    driver_version = "550.54.14"

    def __init__(self, gpus: list[FakeGpu], cuda_version: tuple[int, int]) -> None:
        self._gpus, self.cuda_version = gpus, cuda_version

    def gpus(self) -> list[FakeGpu]:
        return self._gpus


def look(
    *gpus: FakeGpu, cuda: tuple[int, int] = (13, 0), libraries: dict[str, Library] | None = None
) -> Detection:
    @contextmanager
    def open_driver() -> Iterator[Any]:
        yield FakeNvml(list(gpus), cuda)

    return detect_devices(open_driver=open_driver, find=(libraries or {}).get)


def library(
    distribution: str, version: str, cuda: str | None = None, folder: Path | None = Path()
) -> Library:
    return Library(distribution=distribution, version=version, cuda=cuda, folder=folder)


PASCAL = FakeGpu("NVIDIA GeForce GTX 1080 Ti", (6, 1))
TURING = FakeGpu("Tesla T4", (7, 5))


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSONAS_HW_HOME", str(tmp_path))
    monkeypatch.setattr(family, "missing_shared_libraries", lambda provider, library: [])
    monkeypatch.setattr(family, "has_both_onnxruntimes", lambda: False)


def why(gpu: FakeGpu, runtime: str, found: Library | None, cuda: tuple[int, int] = (13, 0)) -> str:
    detection = look(gpu, cuda=cuda, libraries={} if found is None else {runtime: found})
    status = detection.devices[1].status(runtime)
    assert status.usable == (not status.reason)
    return status.reason


def test_a_gpu_is_found_by_its_name() -> None:
    detection = look(PASCAL, libraries={"eager": library("torch", "2.14.1+cu126", "12.6")})
    assert [device.name for device in detection.devices] == ["local", "1080ti"]
    card = detection.find("GTX 1080 Ti")
    assert card is not None
    assert card is detection.find("1080ti")
    assert card.fingerprint == load_device("1080ti").fingerprint
    assert card.status("eager").usable
    assert detection.find("titan-xp") is None
    assert detection.no_gpu_reason == ""


def test_the_cpu_is_always_here() -> None:
    detection = look(libraries={"ort-cpu": library("onnxruntime-gpu", "1.31.1")})
    local = detection.find("local")
    assert local is not None
    assert local.status("ort-cpu").usable
    assert "pip install torch" in local.status("eager").reason
    assert "runs on an NVIDIA GPU" in local.status("tensorrt").reason
    assert detection.no_gpu_reason == "the NVIDIA driver sees no GPU"


def test_no_driver_is_a_reason_not_an_error() -> None:
    @contextmanager
    def open_driver() -> Iterator[Any]:
        raise DeviceError("no NVIDIA driver: ...")
        yield

    assert detect_devices(open_driver=open_driver, find={}.get).no_gpu_reason == "no NVIDIA driver: ..."


@pytest.mark.parametrize(
    ("runtime", "found", "message"),
    [
        (
            "tensorrt",
            library("tensorrt", "10.13.3.9"),
            r"needs tensorrt >=8.6,<10.0, installed is 10.13.3.9;.*8.6.1",
        ),
        ("tensorrt", library("tensorrt", "8.6.1"), ""),
        (
            "ort-cuda",
            library("onnxruntime-gpu", "1.31.1", "13.0"),
            r"needs onnxruntime-gpu >=1.18,<1.27.*1.26.0",
        ),
        ("ort-cuda", library("onnxruntime-gpu", "1.26.0", "12.8"), ""),
        ("ort-cuda", library("onnxruntime", "1.26.0"), "no GPU providers; pip uninstall onnxruntime, then"),
        (
            "ort-tensorrt",
            library("onnxruntime-gpu", "1.26.0", "12.8"),
            "no version.*use tensorrt 8.6 or ort-cuda",
        ),
        ("eager", library("torch", "2.14.1", "13.0"), r"built for CUDA 13.0, which has no code.*whl/cu126"),
        ("eager", library("torch", "2.14.1+cpu", None), "built without CUDA.*whl/cu126"),
        ("eager", library("torch", "2.14.1", "12.6", None), "its module is not there"),
        ("eager", None, "not installed; pip install 'torch<2.15'"),
    ],
)
def test_a_pascal_owner_is_told_what_to_install(runtime: str, found: Library | None, message: str) -> None:
    reason = why(PASCAL, runtime, found)
    if message:
        assert pytest.raises(AssertionError, match=message).matches(AssertionError(reason)), reason
    else:
        assert reason == ""


def test_a_driver_that_is_too_old() -> None:
    torch = library("torch", "2.14.1", "13.0")
    assert why(TURING, "eager", torch, cuda=(13, 1)) == ""
    assert "the driver serves CUDA up to 12.4, but torch 2.14.1 is built for CUDA 13.0" in why(
        TURING, "eager", torch, cuda=(12, 4)
    )


def test_a_missing_shared_library_and_two_wheels(monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = library("onnxruntime-gpu", "1.31.1", "13.0")
    monkeypatch.setattr(family, "missing_shared_libraries", lambda provider, library: ["libnvinfer.so.10"])
    assert "needs libnvinfer.so.10, not found" in why(TURING, "ort-tensorrt", wheel)
    monkeypatch.setattr(family, "has_both_onnxruntimes", lambda: True)
    assert "overwrite each other" in why(TURING, "ort-cuda", wheel)
    detection = look(libraries={"ort-cpu": wheel})
    assert "overwrite each other" in detection.devices[0].status("ort-cpu").reason


def test_a_gpu_without_a_file_borrows_the_limits_of_its_generation() -> None:
    detection = look(FakeGpu("NVIDIA GeForce GTX 1050 Ti", (6, 1)))
    card = detection.devices[1]
    assert (card.name, card.device) == ("NVIDIA GeForce GTX 1050 Ti", None)
    assert "cu126" in card.status("eager").reason
    strange = look(FakeGpu("Some Future GPU", (19, 0))).devices[1]
    assert "not installed" in strange.status("eager").reason


def test_looking_imports_no_framework() -> None:
    code = (
        "import sys; from dsonas_hw.runtime.detect import detect_devices; detect_devices();"
        "print(sorted({'torch', 'onnxruntime', 'tensorrt', 'numpy', 'onnx'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
