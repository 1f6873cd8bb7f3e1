"""A device is measured by one at a time, across processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dsonas_hw.device.lock import exclusive_device, lock_path
from dsonas_hw.errors import DeviceError

OTHER = """
from dsonas_hw.device.lock import exclusive_device
print("waits", flush=True)
with exclusive_device("some GPU/1"):
    print("has it", flush=True)
"""


@pytest.fixture(autouse=True)
def _own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)


def test_another_process_waits() -> None:
    with exclusive_device("some GPU/1"):
        other = subprocess.Popen([sys.executable, "-c", OTHER], stdout=subprocess.PIPE, text=True)
        assert other.stdout is not None
        assert other.stdout.readline() == "waits\n"
        with pytest.raises(subprocess.TimeoutExpired):
            other.wait(timeout=0.3)
        with exclusive_device("another"):  # other devices are free
            pass
    assert other.stdout.read() == "has it\n"
    assert other.wait() == 0


def test_names_make_files(tmp_path: Path) -> None:
    path = lock_path("NVIDIA GeForce/RTX 3090")
    assert path.parent == tmp_path
    assert path.name.endswith("NVIDIA-GeForce-RTX-3090.lock")


def test_a_file_that_cannot_be_locked(tmp_path: Path) -> None:
    lock_path("gpu").mkdir()
    with pytest.raises(DeviceError, match="remove that file"), exclusive_device("gpu"):
        pass
