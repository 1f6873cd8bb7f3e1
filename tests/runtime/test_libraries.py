"""Libraries are recognised by their files, without importing them."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dsonas_hw.runtime.libraries import (
    has_both_onnxruntimes,
    needed_libraries,
)
from dsonas_hw.runtime.registry import get_runtime


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Put a made-up distribution on the path; nothing else is installed."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.setattr(sys, "path", [str(site)])
    for name in ("torch", "onnxruntime", "tensorrt"):  # find_spec looks at loaded modules first
        for loaded in [m for m in sys.modules if m == name or m.startswith(name + ".")]:
            monkeypatch.delitem(sys.modules, loaded)

    def make(distribution: str, version: str, module: str, **files: str) -> Path:
        info = site / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        folder = site / module
        folder.mkdir(exist_ok=True)
        (folder / "__init__.py").write_text("raise RuntimeError('imported')")
        for name, text in files.items():
            file = folder / name.replace("__", "/").replace("_py", ".py")
            file.parent.mkdir(exist_ok=True)
            file.write_text(text)
        importlib.invalidate_caches()
        return folder

    return make


def test_versions_and_cuda_are_read_from_files(install: Callable[..., Path]) -> None:
    install(
        "torch",
        "2.14.1",
        "torch",
        version_py="__version__ = '2.14.1+cu130'\ncuda: Optional[str] = '13.0'\n",
    )
    install(
        "onnxruntime-gpu", "1.31.1", "onnxruntime", capi__build_and_package_info_py="cuda_version = '13.0'\n"
    )
    torch, ort = get_runtime("eager").library(), get_runtime("ort-cuda").library()
    assert torch is not None
    assert ort is not None
    assert (torch.version, torch.cuda) == ("2.14.1", "13.0")
    assert (ort.distribution, ort.version, ort.cuda) == ("onnxruntime-gpu", "1.31.1", "13.0")
    assert get_runtime("tensorrt").library() is None
    assert not has_both_onnxruntimes()
    install("onnxruntime", "1.30.0", "onnxruntime")
    assert has_both_onnxruntimes()


def test_a_build_without_cuda(install: Callable[..., Path]) -> None:
    install("torch", "2.14.1", "torch", version_py="cuda: Optional[str] = None\nhip: Optional[str] = None\n")
    torch = get_runtime("eager").library()
    assert torch is not None
    assert torch.cuda is None


def test_type_stubs_are_not_a_library(install: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "site" / "tensorrt").mkdir()  # what tensorrt-stubs leaves: a folder without __init__.py
    assert get_runtime("tensorrt").library() is None


def test_shared_libraries_that_a_provider_needs(
    install: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("needs Linux and a C compiler")
    folder = install("onnxruntime-gpu", "1.31.1", "onnxruntime", capi__x_py="")
    source = tmp_path / "empty.c"
    source.write_text("int nothing(void) { return 0; }\n")

    def build(path: Path, *flags: str) -> None:
        subprocess.run([compiler, "-shared", "-fPIC", "-o", str(path), str(source), *flags], check=True)

    build(tmp_path / "libnvinfer.so.99", "-Wl,-soname,libnvinfer.so.99")
    provider = folder / "capi" / "libonnxruntime_providers_tensorrt.so"
    build(provider, "-Wl,--no-as-needed", str(tmp_path / "libnvinfer.so.99"), "-lm")
    assert {"libnvinfer.so.99", "libm.so.6"} <= set(needed_libraries(provider))

    ort = get_runtime("ort-tensorrt").library()
    assert ort is not None
    assert get_runtime("ort-tensorrt").missing_libraries(ort) == ["libnvinfer.so.99"]
    assert get_runtime("ort-cuda").missing_libraries(ort) == ["libonnxruntime_providers_cuda.so"]
    assert get_runtime("eager").missing_libraries(ort) == []
    monkeypatch.setenv("LD_LIBRARY_PATH", f"/nowhere:{tmp_path}")
    assert get_runtime("ort-tensorrt").missing_libraries(ort) == []


def test_a_file_that_is_no_library(tmp_path: Path) -> None:
    file = tmp_path / "libcudart.so.13"
    file.write_bytes(b"#!/bin/sh\n")
    assert needed_libraries(file) == []
