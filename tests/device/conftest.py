"""A machine with an NVIDIA driver, as far as nvidia-ml-py can tell: a stub library that is compiled here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from nvml_stub import build_stub

Scenario = Callable[..., Any]


@pytest.fixture(scope="session")
def stub_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_stub(tmp_path_factory.mktemp("nvml"))


@pytest.fixture(scope="session")
def old_stub_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A driver from before 535, which has no nvmlDeviceGetCurrentClocksEventReasons."""
    return build_stub(tmp_path_factory.mktemp("nvml-old"), "-DOLD_DRIVER")


@pytest.fixture
def stub_environment(tmp_path: Path) -> Callable[..., dict[str, str]]:
    """The environment of a process whose driver is the stub in a folder, and whose data directory is empty.

    Keywords are the stub's environment variables, without their prefix STUB_.
    """

    def make(folder: Path, **stub: object) -> dict[str, str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("STUB_")}
        environment["LD_LIBRARY_PATH"] = str(folder)
        environment["DSONAS_HW_HOME"] = str(tmp_path / "home")
        environment.update({f"STUB_{name}": str(value) for name, value in stub.items()})
        return environment

    return make


@pytest.fixture
def scenario(stub_folder: Path, stub_environment: Callable[..., dict[str, str]]) -> Scenario:
    """Run Python code in a process of its own whose driver is the stub; returns what it prints as JSON."""

    def run(code: str, *, folder: Path = stub_folder, **stub: object) -> Any:
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=stub_environment(folder, **stub),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run
