"""Runs the jobs of a study in worker processes; what is finished is never run again.

A job that dies (killed, out of memory) is tried again and goes on from its checkpoint; a job that fails by a
user's mistake is not. The study goes on with whatever does not need it. Stopped (Ctrl-C, SIGTERM), the
scheduler lets every worker write a checkpoint; killed, its workers notice and do the same.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from dsonas_hw.errors import RunError
from dsonas_hw.files import read_json, refuse_links, remove_leftovers, write_json
from dsonas_hw.study.engine import WORKER, Engine, LocalEngine, Worker
from dsonas_hw.study.job_files import DESCRIPTION, LOG, is_done, job_directory, last_line
from dsonas_hw.study.spec import Job

MAX_TRIES = 3
POLL_S = 0.2

Report = Callable[[int, int, str], None]
"""Called as (jobs done, jobs in all, names of those that run)."""


@dataclass(frozen=True, kw_only=True)
class JobFailure:
    """A job that could not be done, and the last line it said."""

    name: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class _Running:
    job: Job
    worker: Worker


def run_jobs(
    study: Path,
    jobs: Sequence[Job],
    *,
    num_workers: int,
    report: Report | None = None,
    engine: Engine | None = None,
    command: Sequence[str] = WORKER,
) -> list[JobFailure]:
    """Run every job that is not done, at most `num_workers` at a time. Returns what failed.

    engine: where they run; None = in processes of this machine. command: does the job whose directory is its
    last argument.

    Raises:
        RunError: a job of that name exists with another configuration; another process runs this study.
        KeyboardInterrupt: stopped by a signal; called again, it goes on.
    """
    describe_jobs(study, jobs)
    with _only_process(study), _interrupted_by_sigterm():
        for folder in (study, *(job_directory(study, job.name) for job in jobs)):
            remove_leftovers(folder)
        return _Scheduler(
            study, jobs, num_workers, report or (lambda *_: None), engine or LocalEngine(), command
        ).run()


class _Scheduler:
    def __init__(
        self,
        study: Path,
        jobs: Sequence[Job],
        num_workers: int,
        report: Report,
        engine: Engine,
        command: Sequence[str],
    ) -> None:
        self.study, self.jobs, self.num_workers = study, jobs, num_workers
        self.report, self.engine, self.command = report, engine, command
        self.waiting = [job for job in jobs if not is_done(study, job.name)]
        self.running: list[_Running] = []
        self.tries = dict.fromkeys((job.name for job in self.waiting), 0)
        self.failed: dict[str, JobFailure] = {}
        self.num_done = len(jobs) - len(self.waiting)

    def run(self) -> list[JobFailure]:
        try:
            while self.waiting or self.running:
                for running in list(self.running):
                    if (code := running.worker.poll()) is not None:
                        self._end(running, code)
                # What runs alone comes last: it waits until the others have ended.
                for job in sorted(self.waiting, key=lambda job: job.exclusive):
                    self._start_or_skip(job)
                names = ", ".join(running.job.name for running in self.running)
                self.report(self.num_done, len(self.jobs), names)
                if self.running:
                    time.sleep(POLL_S)
        finally:
            for running in self.running:
                running.worker.terminate()
            for running in self.running:
                running.worker.wait()
        return list(self.failed.values())

    def _start_or_skip(self, job: Job) -> None:
        if failed := [name for name in job.all_needs if name in self.failed]:
            self.waiting.remove(job)
            self.failed[job.name] = JobFailure(name=job.name, reason=f"needs {failed[0]}, which failed")
        elif self._has_room(job) and all(is_done(self.study, name) for name in job.all_needs):
            self.waiting.remove(job)
            self.tries[job.name] += 1
            folder = job_directory(self.study, job.name)
            self.running.append(_Running(job=job, worker=self.engine.start(job, folder, self.command)))

    def _has_room(self, job: Job) -> bool:
        if any(running.job.exclusive for running in self.running):
            return False
        return len(self.running) < (1 if job.exclusive else self.num_workers)

    def _end(self, running: _Running, code: int) -> None:
        job = running.job
        self.running.remove(running)
        if is_done(self.study, job.name):
            self.num_done += 1
        elif code not in (0, 1, 2) and self.tries[job.name] < MAX_TRIES:
            self.waiting.append(job)
        else:
            words = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
            if code in (0, 1, 2):
                words = last_line(job_directory(self.study, job.name) / LOG) or words
            self.failed[job.name] = JobFailure(name=job.name, reason=words)


def describe_jobs(study: Path, jobs: Sequence[Job]) -> None:
    """Write what each job is to do, or check that it is the same as before; all or nothing.

    Raises:
        RunError: a job of that name exists with another configuration; the directory cannot be written, or
            holds something else.
    """
    refuse_links(study, study / "jobs", *(study / "jobs").glob("*"))
    there = {path.name for path in study.iterdir()} if study.is_dir() else set()
    if there - {".lock"} and not there & {"jobs", "study.json", "codesign.json"}:
        raise RunError(f"{study} is not empty and is not a study; choose another --out")
    new = []
    for job in jobs:
        path = job_directory(study, job.name) / DESCRIPTION
        if not path.exists():
            new.append((path, job))
        elif read_json(path) != job.model_dump(mode="json"):
            raise RunError(
                f"{study} holds a study whose job {job.name} has another configuration; choose another --out"
            )
    for path, job in new:
        write_json(path, job.model_dump(mode="json"))


@contextmanager
def _only_process(study: Path) -> Iterator[None]:
    try:
        with FileLock(str(study / ".lock"), timeout=0):
            yield
    except Timeout:
        raise RunError(f"another process runs the study in {study}; wait for it, or choose --out") from None


@contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    """SIGTERM and a closed terminal stop the study as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    signals = [signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
    previous = [(number, signal.signal(number, interrupt)) for number in signals]
    try:
        yield
    finally:
        for number, handler in previous:
            signal.signal(number, handler)
