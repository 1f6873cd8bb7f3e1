"""Jobs of a study as tasks of a Ray cluster: each takes one CPU, and one GPU if it trains and there are any.

    scheduler ──▶ Ray task on some node ──▶ the same process as a local worker, in the same directory

The study's directory, where it is started and the user's profiles must lie where every node sees them under
the same paths. Ray decides only where a job runs; retries, order and results are the scheduler's, so they are
the same without Ray. What measures this machine stays on this machine.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsonas_hw.errors import UserError, one_line, require
from dsonas_hw.study.engine import GONE, LocalEngine, Worker, num_gpus, start_process, surroundings

if TYPE_CHECKING:
    from dsonas_hw.study.spec import Job

LOCAL = "local"
"""`--ray-address local`: a cluster on this machine, for this study alone."""
CONNECT_S = 5.0
POLL_S = 0.1
_NO_FOLDER = 97
"""Exit code of a task whose node does not see the study's files."""


class RayEngine:
    """A connection to a cluster, or a cluster of its own on this machine."""

    def __init__(self, address: str, *, num_workers: int) -> None:
        """
        address: `local`, or HOST:PORT of a head node (`ray start --head`), or ray://HOST:PORT.

        Raises:
            UserError: nothing answers at the address; Ray itself fails.
            MissingDependencyError: Ray is not installed.
        """
        self.ray: Any = check_address(address)
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray would tell its makers about this cluster
        options: dict[str, Any] = {"address": LOCAL, "num_cpus": num_workers, "include_dashboard": False}
        try:
            self.ray.init(
                logging_level="ERROR",
                log_to_driver=False,
                **(options if address == LOCAL else {"address": address}),
            )
        except Exception as error:  # Ray raises whatever its transport raises
            words = one_line(error)[:200]
            raise UserError(
                f"cannot use Ray at {address}: {type(error).__name__}: {words} (this is Ray "
                f"{self.ray.__version__}; the cluster must be of the same version; if it wants a token, set "
                "RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN unless the token is in ~/.ray/auth_token)"
            ) from None
        self.num_gpus = int(self.ray.cluster_resources().get("GPU", 0))
        self.here = LocalEngine()
        self.run = self.ray.remote(max_retries=0)(_run_process)

    def start(self, job: Job, folder: Path, command: Sequence[str]) -> Worker:
        if job.exclusive:
            return self.here.start(job, folder, command)
        task = self.run.options(num_cpus=1, num_gpus=num_gpus(job, available=self.num_gpus))
        reference = task.remote(str(folder.absolute()), list(command), os.getcwd(), surroundings())
        return _RayWorker(self.ray, reference)

    def close(self) -> None:
        self.ray.shutdown()


class _RayWorker:
    """A task as the scheduler sees it."""

    def __init__(self, ray: Any, reference: Any) -> None:
        self.ray, self.reference = ray, reference

    def poll(self) -> int | None:
        done, _ = self.ray.wait([self.reference], timeout=0)
        return self._exit_code() if done else None

    def terminate(self) -> None:
        self.ray.cancel(self.reference)

    def wait(self) -> int:
        self.ray.wait([self.reference])
        return self._exit_code()

    def _exit_code(self) -> int:
        try:
            code = int(self.ray.get(self.reference))
        except self.ray.exceptions.RayError:
            return GONE  # the worker, or its node, died
        if code == _NO_FOLDER:
            raise UserError(
                "a Ray node does not see the study's directory, or the profiles in DSONAS_HW_HOME; put both, "
                "and start the study, where all nodes share it"
            )
        return code


def _run_process(folder: str, command: list[str], cwd: str, variables: dict[str, str]) -> int:
    """In the Ray worker: the job as a process of its own. Dies the worker, the job's stdin closes."""
    if not Path(folder).is_dir() or not Path(cwd).is_dir():
        return _NO_FOLDER
    if not Path(command[0]).exists():
        command = [sys.executable, *command[1:]]
    process = start_process(Path(folder), command, cwd=cwd, variables=variables)
    try:
        while (code := process.poll()) is None:
            time.sleep(POLL_S)  # a cancelled task is interrupted between two steps, never inside a wait
        return code
    except BaseException:  # cancelled: a KeyboardInterrupt
        process.terminate()
        process.wait()
        raise


def check_address(address: str) -> Any:
    """Fail at once if nothing listens there; Ray itself would try for a minute. Returns the Ray module.

    Raises:
        UserError: not an address, or nothing answers.
        MissingDependencyError: Ray is not installed.
    """
    ray = require("ray", extra="ray", purpose="--ray-address")
    if address == LOCAL:
        return ray
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise UserError(f"--ray-address {address!r} is neither 'local' nor HOST:PORT, e.g. 10.0.0.1:6379")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S).close()
    except OSError as error:
        raise UserError(
            f"no Ray cluster answers at {address} ({error.strerror or error}); start one with "
            f"`ray start --head --port={port}` there, or use --ray-address local"
        ) from None
    return ray
