"""Runs that reports are written of; made once, since nothing changes them but `report.html`."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from synthetic_run import make_run

from dsonas_hw.run_directory import RunDirectory


@pytest.fixture(scope="session")
def share_run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """A finished run in the share space, measured, every budget held."""
    return make_run(tmp_path_factory.mktemp("runs") / "share", stages=(1, 1))


@pytest.fixture(scope="session")
def full_run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """A finished run with a block of its own in every place, estimated."""
    path = tmp_path_factory.mktemp("runs") / "full"
    return make_run(path, share=False, stages=(1, 2), source="estimated")


@pytest.fixture(scope="session")
def smallest_run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """A finished run of one block."""
    return make_run(tmp_path_factory.mktemp("runs") / "small", stages=(1,))


@pytest.fixture
def small_run(smallest_run: RunDirectory, tmp_path: Path) -> RunDirectory:
    """A copy of it that a test may damage."""
    return RunDirectory(Path(shutil.copytree(smallest_run.path, tmp_path / "run")))
