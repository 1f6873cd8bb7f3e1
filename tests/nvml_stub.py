"""Compiles the stub of NVIDIA's driver library, which nvidia-ml-py finds through LD_LIBRARY_PATH."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


def build_stub(folder: Path, *flags: str) -> Path:
    """Write libnvidia-ml.so.1 into a folder and return the folder; skips the test where that cannot be."""
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None or sys.platform != "linux":
        pytest.skip("needs Linux and a C compiler for the stub of libnvidia-ml")
    source = Path(__file__).parent / "device" / "nvml_stub.c"
    library = folder / "libnvidia-ml.so.1"
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-o", str(library), *flags, str(source)],
        check=True,
        capture_output=True,
    )
    return folder
