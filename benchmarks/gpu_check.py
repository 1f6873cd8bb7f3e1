"""What this project does on the GPU that is here, in one file to send.

    python -m benchmarks.gpu_check --out gpu-check

Runs for less than ten minutes and changes no setting of the GPU: what the driver says, which runtimes are
usable, the tests marked `gpu`, profiles of small networks and their error on networks held out, a run on
digits with a latency budget, seconds and memory of a search step. A step that fails, or for which no time
is left, stops no other. DIR/gpu-check.zip then holds what every step said, with the tables and the run; it
names the GPU and this machine's folders, nothing else of you. Exit code 0 if every step succeeded, 1 if one
did not, 2 without a GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

TOTAL_SECONDS = 560
"""Of all steps together."""
LEAST_SECONDS = 5
"""A step for which less is left is not begun."""
MAX_FILE_BYTES = 8 * 2**20
"""Of what is sent; larger files, such as checkpoints, stay behind."""
SENT = (".txt", ".json", ".jsonl", ".yaml", ".html", ".onnx")


@dataclass(frozen=True, kw_only=True)
class Step:
    """One command, and how long it may take."""

    name: str
    command: tuple[str, ...]
    seconds: int
    module: bool = True
    """Whether Python runs it as a module; a program of the system otherwise."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a step ended."""

    name: str
    ended: str
    """"ok", "exit code N", "cut after N s", "no time left", "not installed"."""
    seconds: float


def steps_for(device: str, folder: Path) -> list[Step]:
    """What is done on a GPU of that name, in the order of its worth."""
    hw = "dsonas_hw"

    def profile(runtime: str, *options: str, name: str = "profile") -> Step:
        where = ("--device", device, "--runtime", runtime, "--preset", "digits")
        command = (hw, "profile", *where, *options, "--mode", "measure", "--json")
        return Step(name=f"{name}-{runtime}", command=command, seconds=100)

    speed = ("benchmarks.search_speed", "cifar10", "--batch-size", "128", "--without-darts", "--json")
    memory = ("benchmarks.memory", "cifar10", "--batch-size", "128", "--limit", "8GB", "--json")
    return [
        Step(name="nvidia-smi", command=("nvidia-smi", "-q"), seconds=20, module=False),
        Step(name="devices", command=(hw, "devices", "--here", "--json"), seconds=40),
        Step(name="tests", command=("pytest", "-m", "gpu", "-q", "-n", "0", "tests"), seconds=120),
        profile("ort-cuda", "--networks", "8", "--no-check"),
        profile("ort-cuda", "--check", "8", name="check"),
        profile("eager", "--networks", "8", "--no-check"),
        Step(
            name="run",
            command=(
                *(hw, "run", "--dataset", "digits", "--budget", "mac=150k,latency=5ms", "--train-on", "cuda"),
                *("--device", device, "--runtime", "ort-cuda", "--out", str(folder / "run")),
            ),
            seconds=150,
        ),
        Step(name="speed", command=(*speed, "--device", "cuda"), seconds=60),
        Step(name="speed-bf16", command=(*speed, "--device", "cuda", "--search", "amp=bf16"), seconds=60),
        Step(name="memory", command=(*memory, "--device", "cuda"), seconds=60),
    ]


def run_step(step: Step, folder: Path, seconds: float) -> str:
    """Run one step, its output in DIR/NAME.txt; returns how it ended."""
    command = [sys.executable, "-m", *step.command] if step.module else list(step.command)
    environment = {**os.environ, "DSONAS_HW_HOME": str(folder / "home"), "PYTHONUNBUFFERED": "1"}
    with (folder / f"{step.name}.txt").open("w") as output:
        output.write(f"$ {' '.join(command)}\n")
        output.flush()
        try:
            done = subprocess.run(
                command,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=seconds,
                env=environment,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"cut after {seconds:.0f} s"
        except FileNotFoundError:
            return "not installed"
    return "ok" if done.returncode == 0 else f"exit code {done.returncode}"


def check(
    steps: Sequence[Step],
    folder: Path,
    *,
    total_seconds: float = TOTAL_SECONDS,
    run: Callable[[Step, Path, float], str] = run_step,
    clock_s: Callable[[], float] = time.monotonic,
    report: Callable[[str], None] = print,
) -> list[Outcome]:
    """Run every step for which time is left, and write DIR/gpu-check.zip."""
    end_s = clock_s() + total_seconds
    outcomes = []
    for step in steps:
        begin_s = clock_s()
        seconds = min(step.seconds, end_s - begin_s)
        ended = run(step, folder, seconds) if seconds >= LEAST_SECONDS else "no time left"
        outcomes.append(Outcome(name=step.name, ended=ended, seconds=round(clock_s() - begin_s, 1)))
        report(f"{step.name:22} {ended:20} {outcomes[-1].seconds:6.1f} s")
    (folder / "outcomes.json").write_text(json.dumps([asdict(outcome) for outcome in outcomes], indent=1))
    pack(folder)
    return outcomes


def pack(folder: Path) -> Path:
    """Everything worth sending, as one file."""
    path = folder / "gpu-check.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file() and file.suffix in SENT and file.stat().st_size <= MAX_FILE_BYTES:
                archive.write(file, file.relative_to(folder))
    return path


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new or empty folder")
    options = parser.parse_args(arguments)
    from dsonas_hw.device.spec import LOCAL
    from dsonas_hw.runtime.detect import detect_devices

    detection = detect_devices()
    gpus = [device for device in detection.devices if device.name != LOCAL]
    if not gpus:
        print(f"there is no GPU to check: {detection.no_gpu_reason}", file=sys.stderr)
        return 2
    folder = options.out.absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        print(f"{options.out} exists and is no empty folder; choose another --out", file=sys.stderr)
        return 2
    folder.mkdir(parents=True, exist_ok=True)
    print(f"{gpus[0].title}; at most {TOTAL_SECONDS / 60:.0f} minutes")
    outcomes = check(steps_for(gpus[0].name, folder), folder)
    print(f"please send {folder / 'gpu-check.zip'}")
    return 0 if all(outcome.ended == "ok" for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
