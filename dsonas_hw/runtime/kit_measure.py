"""Time the networks of this kit on a board: Python 3.8 or newer, and trtexec or onnxruntime.

    python3 measure.py

`dsonas-hw kit` wrote this file and kit.json. It writes measured.csv, a row per network in milliseconds per
batch, and says how dsonas-hw reads that. Without --runtime it takes what the kit was made for, if that is
here.
"""

from __future__ import annotations

import argparse
import csv
import json
import shlex
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
TRTEXEC = "/usr/src/tensorrt/bin/trtexec"
PROVIDERS = {
    "ort-cuda": "CUDAExecutionProvider",
    "ort-tensorrt": "TensorrtExecutionProvider",
    "ort-cpu": "CPUExecutionProvider",
}
GPU_RUNTIMES = ("tensorrt", *(name for name in PROVIDERS if name != "ort-cpu"))
RUNTIMES = (*GPU_RUNTIMES, "ort-cpu")
MIN_RUNS = 20


def time_with_trtexec(trtexec: str, model: Path, precision: str, seconds: float) -> list[float]:
    """Milliseconds on the GPU of every run of a model."""
    with tempfile.TemporaryDirectory() as folder:
        times = Path(folder) / "times.json"
        command = [
            trtexec, f"--onnx={model}", f"--exportTimes={times}", f"--duration={max(1, round(seconds))}",
            "--warmUp=1000", "--noDataTransfers",
        ]  # fmt: skip
        command += [] if precision == "fp32" else ["--" + precision]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        if done.returncode:
            lines = done.stdout.decode(errors="replace").strip().splitlines()
            raise SystemExit(f"error: trtexec failed on {model.name}: {lines[-1] if lines else 'no output'}")
        return [float(row["computeMs"]) for row in json.loads(times.read_text())]


def time_with_onnxruntime(model: Path, provider: str, seconds: float) -> list[float]:
    """Milliseconds of every run of a model, its input and output included."""
    import numpy
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if provider == PROVIDERS["ort-cpu"]:
        options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(model), options, providers=[provider])
    if session.get_providers()[0] != provider:
        raise SystemExit(f"error: onnxruntime cannot use {provider} here; --runtime names another")
    entry = session.get_inputs()[0]
    feed = {entry.name: numpy.random.default_rng(0).standard_normal(entry.shape).astype(numpy.float32)}
    found: list[float] = []
    begin = time.perf_counter()
    while len(found) < MIN_RUNS or time.perf_counter() - begin < seconds:
        before = time.perf_counter()
        session.run(None, feed)
        found.append(1e3 * (time.perf_counter() - before))
    return found[len(found) // 5 :]  # the first fifth warms up


def find_trtexec() -> str | None:
    """Where trtexec is, None if it is not here."""
    return shutil.which("trtexec") or (TRTEXEC if Path(TRTEXEC).exists() else None)


def has_onnxruntime() -> bool:
    """Whether onnxruntime can be imported."""
    try:
        import onnxruntime  # noqa: F401
    except ImportError:
        return False
    return True


def choose_runtime(wanted: str, precision: str) -> str:
    """What the kit was made for, else the other that is here; but half precision and int8 need trtexec."""
    if wanted != "tensorrt" and has_onnxruntime():
        return wanted
    if find_trtexec():
        return "tensorrt"
    if has_onnxruntime() and precision == "fp32":
        return "ort-cuda"
    raise SystemExit(f"error: neither trtexec (also looked for as {TRTEXEC}) nor onnxruntime is here")


def measure(kit: dict[str, Any], runtime: str, seconds: float) -> list[tuple[str, float]]:
    """Name and median latency in ms of each network."""
    precision = kit["precision"]
    trtexec = find_trtexec()
    if runtime == "tensorrt" and trtexec is None:
        raise SystemExit(f"error: trtexec is neither on the PATH nor {TRTEXEC}; --runtime names another")
    if runtime != "tensorrt" and precision != "fp32":
        raise SystemExit(
            f"error: onnxruntime would time these files in fp32, not in {precision}; use trtexec"
        )
    rows = []
    for name in kit["networks"]:
        if runtime == "tensorrt":
            times = time_with_trtexec(str(trtexec), HERE / name, precision, seconds)
        else:
            times = time_with_onnxruntime(HERE / name, PROVIDERS[runtime], seconds)
        rows.append((name, statistics.median(times)))
        print(f"{name}: {rows[-1][1]:.4g} ms, the median of {len(times)} runs", flush=True)
    return rows


def main() -> None:
    """Time every network, write measured.csv, say what to do with it."""
    parser = argparse.ArgumentParser(description="Time the networks of this kit.")
    parser.add_argument("--runtime", choices=["tensorrt", *PROVIDERS], help="tensorrt is trtexec")
    parser.add_argument("--seconds", type=float, default=5.0, help="for each network (default: 5)")
    arguments = parser.parse_args()
    kit = json.loads((HERE / "kit.json").read_text(encoding="utf-8"))
    runtime = arguments.runtime or choose_runtime(kit["runtime"], kit["precision"])
    print(f"{len(kit['networks'])} networks with {runtime} ({kit['precision']})", flush=True)
    rows = measure(kit, runtime, arguments.seconds)
    with open(HERE / "measured.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["model", "batch_size", "latency_ms"])
        writer.writerows((name, kit["batch_size"], f"{latency_ms:.6g}") for name, latency_ms in rows)
    if runtime == "ort-cpu":
        print("these are times of the CPU: they show that the kit runs, and calibrate no GPU")
        return
    command = ["dsonas-hw", "calibrate", "--device", kit["device"], "--runtime", runtime]
    command += ["--precision", kit["precision"], kit["folder"] + "/measured.csv"]
    print(f"carry {HERE / 'measured.csv'} back to {kit['folder']}, and run there:")
    print(" ".join(shlex.quote(part) for part in command))


if __name__ == "__main__":
    main()
