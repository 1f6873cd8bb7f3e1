"""`kill -9` at random moments of a command, again and again: is the end what it would have been?

    python -m benchmarks.kill_test search --kills 50
    python -m benchmarks.kill_test retrain|study|profile --kills 50 --seed 1 --out kill-test

The command runs once without a kill, on a small configuration of scikit-learn's digits. Then it is started,
killed with SIGKILL at a moment drawn over the time that the uninterrupted run took, started again with the
same options (and `--resume`), killed again, …; a run that ends before its kill is compared, and the next one
starts from nothing. In the end the last one may finish and is compared too:

    search    path, λ, architecture and log, bit by bit
    retrain   weights and log, bit by bit
    study     its table and every result
    profile   the networks timed, each once, and the kernels of each (times differ, of course)

and nothing half-written may be left. `study` kills in turn the scheduler alone, all of its processes, and one
worker. Each start is a fork of a process that has imported everything, so that the kills fall on the work and
not on importing torch. Exit code 1 if anything differs.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from dsonas_hw.files import read_json, read_json_lines, write_text

SPACE = {"levels": 2, "stages": [1], "channels": 8, "width_step": 1}
DATA = {"subset": 512, "test_subset": 100}
SEARCH = {"pretrain_epochs": 1, "epochs": 5, "batch_size": 32, "gamma": 0.1, "path_images": 16}
RETRAIN = {"epochs": 8, "batch_size": 32, "drop_path": 0.2}
BUDGET = "mac=30k"
NUM_PROFILED = 16
LOGS = ("path.jsonl", "lambda.jsonl")
HARMLESS = (".lock", ".jsonl.lock")
"""Ends of names of files that stay: locks are files, and are let go when their process ends."""


# -- one start of a command ------------------------------------------------------------------------------


def fork_command(arguments: Sequence[str], log: Path) -> int:
    """Start `dsonas-hw ARGUMENTS` in a fork of this process, its output appended to a log; its process id."""
    process = os.fork()
    if process:
        return process
    with _ended():
        os.setsid()
        _redirect(log, stdin=os.open(os.devnull, os.O_RDONLY))
        from dsonas_hw.cli.main import main
        from dsonas_hw.study import engine

        engine.start_process = ForkedJob  # type: ignore[assignment]
        main(list(arguments))


@contextmanager
def _ended() -> Iterator[None]:
    """What a forked process does, to its end: it never returns, and its exit code is the command's."""
    code = 70
    try:
        yield
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _redirect(log: Path, *, stdin: int) -> None:
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for target, source in ((0, stdin), (1, out), (2, out)):
        os.dup2(source, target)


class ForkedJob:
    """Stands for `study.engine.start_process`: the same worker, forked instead of started anew."""

    def __init__(self, folder: Path, command: Sequence[str], **_: Any) -> None:
        ours, theirs = os.pipe()
        self.returncode: int | None = None
        self.process = os.fork()
        if self.process:
            os.close(ours)
            self.stdin = theirs
            return
        with _ended():
            os.setsid()
            for number in (signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)
            os.closerange(3, ours)
            os.closerange(ours + 1, 256)  # also the pipes of other jobs, which would never close
            _redirect(folder / "log.txt", stdin=ours)
            from dsonas_hw.study.job import main

            sys.argv = ["job", str(folder)]
            main()

    def poll(self) -> int | None:
        if self.returncode is None:
            process, status = os.waitpid(self.process, os.WNOHANG)
            if process:
                self._end(status)
        return self.returncode

    def wait(self) -> int:
        if self.returncode is None:
            self._end(os.waitpid(self.process, 0)[1])
        assert self.returncode is not None
        return self.returncode

    def terminate(self) -> None:
        if self.returncode is None:
            os.kill(self.process, signal.SIGTERM)

    def _end(self, status: int) -> None:
        self.returncode = os.waitstatus_to_exitcode(status)
        os.close(self.stdin)


def children_of(process: int) -> list[int]:
    """Processes that a process has started."""
    found = subprocess.run(["pgrep", "-P", str(process)], capture_output=True, text=True, check=False).stdout
    return [int(word) for word in found.split()]


def kill(process: int, number: int) -> str:
    """SIGKILL; returns whom it met. A study is met in three ways, in turn."""
    workers = children_of(process)
    if number % 3 == 2 and workers:
        _kill_one(workers[0])
        return "a worker"
    _kill_one(process)
    if number % 3 == 1 and workers:
        for worker in workers:
            _kill_one(worker)
        return "all"
    return "the scheduler" if workers else "all"


def _kill_one(process: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)


# -- what is killed, and what must come out --------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Target:
    """A command on a folder."""

    prepare: Callable[[Path], None]
    arguments: Callable[[Path], list[str]]
    outcome: Callable[[Path], dict[str, Any]]
    """What must be the same, by name."""


def configuration_arguments() -> list[str]:
    changes = {"data": DATA, "space": SPACE, "search": SEARCH, "retrain": RETRAIN}
    words = [f"{a}.{b}={json.dumps(v)}" for a, values in changes.items() for b, v in values.items()]
    return [part for word in words for part in ("--set", word)]


def prepare_nothing(folder: Path) -> None:
    folder.mkdir(parents=True)


def search_arguments(folder: Path) -> list[str]:
    run = folder / "run"
    if (run / "config.yaml").exists():
        return ["search", "--resume", str(run)]
    options = ["--preset", "digits", "--train-on", "cpu", "--budget", BUDGET, *configuration_arguments()]
    return ["search", *options, "--out", str(run)]


def search_outcome(folder: Path) -> dict[str, Any]:
    run = folder / "run"
    found: dict[str, Any] = {name: (run / name).read_bytes() for name in (*LOGS, "architecture.json")}
    return {**found, "metrics.jsonl": without_seconds(read_json_lines(run / "metrics.jsonl"))}


def prepare_retrain(folder: Path) -> None:
    from dsonas_hw.architecture.architecture import complete_architecture
    from dsonas_hw.config import build_config, load_preset, overlay
    from dsonas_hw.files import write_json
    from dsonas_hw.run_directory import RunDirectory
    from dsonas_hw.train.images import space_of_config

    changes = {"data": DATA, "space": SPACE, "search": SEARCH, "retrain": RETRAIN, "train_on": "cpu"}
    config = build_config(overlay(load_preset("digits"), changes))
    run = RunDirectory(folder / "run")
    run.create(config)
    write_json(run.architecture_path, complete_architecture(space_of_config(config)).to_json())


def retrain_arguments(folder: Path) -> list[str]:
    return ["retrain", str(folder / "run"), "--resume"]


def retrain_outcome(folder: Path) -> dict[str, Any]:
    import numpy as np

    run = folder / "run"
    with np.load(run / "weights.npz", allow_pickle=False) as file:
        weights = {name: file[name].tobytes() for name in file.files}
    result = without_seconds([read_json(run / "retrain.json")])
    return {
        "weights": weights, "retrain.json": result,
        "metrics.jsonl": without_seconds(read_json_lines(run / "metrics.jsonl")),
    }  # fmt: skip


def prepare_study(folder: Path) -> None:
    base = {"preset": "digits", "train_on": "cpu", "data": DATA, "space": SPACE, "search": SEARCH,
            "retrain": RETRAIN}  # fmt: skip
    study = {"name": "killed", "base": base, "budgets": ["mac=60k", "mac=30k"], "random": 1}
    write_text(folder / "killed.yaml", yaml.safe_dump(study))


def study_arguments(folder: Path) -> list[str]:
    return ["study", str(folder / "killed.yaml"), "--workers", "2", "--out", str(folder / "study")]


def study_outcome(folder: Path) -> dict[str, Any]:
    study = folder / "study"
    return {"results.json": without_seconds(read_json(study / "results.json")),
            "table.md": (study / "table.md").read_text()}  # fmt: skip


def profile_arguments(folder: Path) -> list[str]:
    options = ["--preset", "digits", "--networks", str(NUM_PROFILED), "--no-check"]
    return ["profile", "--device", "local", *options, "--profiles", str(folder)]


def profile_outcome(folder: Path) -> dict[str, Any]:
    from dsonas_hw.table.table import load_table

    (path,) = folder.rglob("*.jsonl")
    table = load_table(path)
    assert table.corrections, "the table has no correction"
    names = [row["name"] for row in read_json_lines(path)[1:] if "kernels" in row and "name" in row]
    networks = {network.name: network.kernels for network in table.networks}
    return {
        "networks, as lines": sorted(names),
        "kernels of each": networks,
        "kernels": sorted(table.kernels),
    }


def without_seconds(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


TARGETS = {
    "search": Target(prepare=prepare_nothing, arguments=search_arguments, outcome=search_outcome),
    "retrain": Target(prepare=prepare_retrain, arguments=retrain_arguments, outcome=retrain_outcome),
    "study": Target(prepare=prepare_study, arguments=study_arguments, outcome=study_outcome),
    "profile": Target(prepare=prepare_nothing, arguments=profile_arguments, outcome=profile_outcome),
}


def half_written(folder: Path) -> list[str]:
    """Files that have no business in a finished folder."""
    return sorted(
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if (path.name.startswith(".") or path.suffix in (".part", ".tmp"))
        and not path.name.endswith(HARMLESS)
    )


# -- the test --------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class Verdict:
    """What the kills did."""

    num_kills: int = 0
    num_compared: int = 0
    """Runs that came to their end."""
    num_leftovers: int = 0
    """Half-written files that kills left, all removed by the next start if `problems` names none."""
    problems: list[str] = field(default_factory=list)


def import_everything() -> None:
    """What the commands import, once, so that a fork has it."""
    import torch

    from dsonas_hw.cli import profile, retrain, search, study  # noqa: F401
    from dsonas_hw.profile import profiler  # noqa: F401
    from dsonas_hw.report import write  # noqa: F401
    from dsonas_hw.search import loop  # noqa: F401
    from dsonas_hw.study import codesign_work, job, scheduler, table  # noqa: F401
    from dsonas_hw.train import retrain as training  # noqa: F401

    torch.set_num_threads(1)


def kill_test(name: str, folder: Path, *, num_kills: int, seed: int, say: Callable[[str], None]) -> Verdict:
    """Kill one command `num_kills` times; see the top of the file."""
    target, rng, verdict = TARGETS[name], random.Random(seed), Verdict()
    whole = folder / "whole"
    target.prepare(whole)
    started = time.monotonic()
    code = os.waitstatus_to_exitcode(os.waitpid(fork_command(target.arguments(whole), folder / "log"), 0)[1])
    whole_s = time.monotonic() - started
    if code != 0:
        verdict.problems.append(f"the uninterrupted run ended with exit code {code}; see {folder / 'log'}")
        return verdict
    expected = target.outcome(whole)
    say(f"{name}: the uninterrupted run takes {whole_s:.1f} s")
    number, present = 0, folder / "killed-0"
    target.prepare(present)
    while True:
        last = verdict.num_kills == num_kills
        process = fork_command(target.arguments(present), folder / "log")
        after_s = None if last else rng.uniform(0.0, whole_s)
        deadline = time.monotonic() + (after_s or 0.0)
        while (ended := os.waitpid(process, os.WNOHANG if not last else 0))[0] == 0:
            if time.monotonic() >= deadline:
                whom = kill(process, verdict.num_kills if name == "study" else 0)
                verdict.num_kills += 1
                left = half_written(present)
                verdict.num_leftovers += len(left)
                say(f"kill {verdict.num_kills} after {after_s:.2f} s: {whom}"
                    + (f", leaving {', '.join(left)}" if left else ""))  # fmt: skip
                if whom == "a worker":  # the scheduler goes on
                    deadline = float("inf")
                    continue
                os.waitpid(process, 0)
                break
            time.sleep(0.002)
        if ended[0] == 0:
            continue
        code = os.waitstatus_to_exitcode(ended[1])
        problems = [f"exit code {code}"] if code else differences(expected, target.outcome(present))
        problems += [f"half-written: {path}" for path in half_written(present)]
        verdict.num_compared += 1
        verdict.problems += [f"{present.name}: {problem}" for problem in problems]
        say(f"{present.name} ended: {'; '.join(problems) or 'as the uninterrupted run'}")
        if last:
            return verdict
        number += 1
        present = folder / f"killed-{number}"
        target.prepare(present)


def differences(expected: dict[str, Any], found: dict[str, Any]) -> list[str]:
    return [f"{name} differs" for name in expected if expected[name] != found[name]]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("command", choices=sorted(TARGETS))
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("kill-test"), help="A new folder for the runs.")
    options = parser.parse_args(arguments)
    folder = options.out / f"{options.command}-{options.seed}"
    if folder.exists():
        parser.error(f"{folder} exists; choose another --out")
    folder.mkdir(parents=True)
    import_everything()

    def say(text: str) -> None:
        print(text, flush=True)

    started = time.monotonic()
    verdict = kill_test(options.command, folder, num_kills=options.kills, seed=options.seed, say=say)
    say(f"{options.command}: {verdict.num_kills} kills, {verdict.num_compared} runs came to their end "
        f"and were compared, {verdict.num_leftovers} half-written files on the way, "
        f"{len(verdict.problems)} problems, {time.monotonic() - started:.0f} s")  # fmt: skip
    for problem in verdict.problems:
        say(f"  {problem}")
    return 1 if verdict.problems else 0


if __name__ == "__main__":
    sys.exit(main())
