"""Where the jobs of a study run: processes of this machine, or (see `ray_engine`) of a Ray cluster.

An engine starts `command FOLDER`, its output appended to FOLDER/log.txt. Whatever starts it keeps a pipe to
the job's stdin open; when that closes, the job writes a checkpoint and ends, so none outlives its study.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from dsonas_hw.device.paths import data_directory
from dsonas_hw.errors import DeviceError, MissingDependencyError
from dsonas_hw.study.job_files import LOG

if TYPE_CHECKING:
    from dsonas_hw.study.spec import Job

WORKER = (sys.executable, "-m", "dsonas_hw.study.job")
TRAINING = ("pretrain", "search", "train", "searched", "random", "transferred", "teacher", "choose", "fitted")
"""Kinds of jobs that use a GPU if there is one."""
GONE = -9
"""Exit code of a job whose worker is gone, as if it had been killed."""


class Worker(Protocol):
    """One job that runs."""

    def poll(self) -> int | None:
        """Its exit code, -N when signal N killed it; None while it runs."""
        ...

    def terminate(self) -> None:
        """Ask it to write a checkpoint and end."""
        ...

    def wait(self) -> int: ...


class Engine(Protocol):
    """Starts jobs."""

    def start(self, job: Job, folder: Path, command: Sequence[str]) -> Worker:
        """Run `command folder`."""
        ...

    def close(self) -> None:
        """Give back what the engine holds; its workers have ended."""
        ...


def start_process(
    folder: Path,
    command: Sequence[str],
    *,
    cwd: str | None = None,
    variables: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a job in a process and a session of its own.

    The terminal's Ctrl-C does not reach it; the scheduler passes it on as one SIGTERM.

    cwd, variables: where it runs, and what is added to its environment; see `surroundings`.
    """
    with open(folder / LOG, "ab") as log:
        return subprocess.Popen(
            [*command, str(folder)],
            stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, cwd=cwd,
            env={**os.environ, **(surroundings() if variables is None else variables)},
            start_new_session=True,
        )  # fmt: skip


def surroundings() -> dict[str, str]:
    """Return what of the environment decides a job's result or speed, wherever it runs."""
    return {
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
        "DSONAS_HW_HOME": str(data_directory().absolute()),
    }


class LocalEngine:
    """Processes of this machine; each that trains is given the GPU that fewest others use."""

    def __init__(self, gpus: Sequence[str] | None = None) -> None:
        """gpus: as in CUDA_VISIBLE_DEVICES; None = those of this machine."""
        self.gpus = visible_gpus() if gpus is None else list(gpus)
        self.users: list[tuple[str, Worker]] = []

    def start(self, job: Job, folder: Path, command: Sequence[str]) -> Worker:
        if not num_gpus(job, available=len(self.gpus)):
            return start_process(folder, command)
        self.users = [(gpu, worker) for gpu, worker in self.users if worker.poll() is None]
        busy = [gpu for gpu, _ in self.users]
        gpu = min(self.gpus, key=busy.count)
        worker = start_process(folder, command, variables={**surroundings(), "CUDA_VISIBLE_DEVICES": gpu})
        self.users.append((gpu, worker))
        return worker

    def close(self) -> None:
        """Nothing is held."""


def num_gpus(job: Job, *, available: int) -> int:
    """Return how many GPUs a job takes: one if it trains, may train on any GPU, and there are some."""
    trains_on = job.config.get("train_on")
    return int(available > 0 and job.kind in TRAINING and trains_on in (None, "cuda"))


def visible_gpus() -> list[str]:
    """Return the GPUs that may be used: CUDA_VISIBLE_DEVICES if it is set, else all; none without a driver.

    They are named by UUID, since the driver and CUDA number them differently where they are not all alike.
    """
    from dsonas_hw.device.nvml import open_nvml

    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [part.strip() for part in chosen.split(",") if part.strip()]
    try:
        with open_nvml() as nvml:
            return [gpu.uuid or str(gpu.index) for gpu in nvml.gpus()]
    except (DeviceError, MissingDependencyError):
        return []
