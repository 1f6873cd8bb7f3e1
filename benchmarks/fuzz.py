"""Hostile files: does every reader end in a result or in one clear line?

    python -m benchmarks.fuzz --seconds 120                    every reader, one after the other
    python -m benchmarks.fuzz table run --seconds 600 --out findings

Files are damaged at random (guided by coverage if `atheris` is installed: pip install atheris) and read. A
reader must return or raise a UserError. A finding is any other exception, over 20 s of the processor, over
2 GB of memory, or an attempt to run code or to write outside the scratch folder, seen by an audit hook. The
first input of each kind of finding is kept in --out, to be read again with --replay.
Exit code 1 if there is one.
"""

from __future__ import annotations

import argparse
import io
import json
import mmap
import os
import random
import re
import resource
import signal
import struct
import sys
import tempfile
import time
import traceback
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from types import FrameType
from typing import Any

from dsonas_hw.errors import UserError

MAX_SECONDS = 20
MAX_BYTES = 2 * 2**30
MAX_INPUT_BYTES = 40_000
"""Long files only make the fuzzer slow; limits of size have tests of their own."""


# -- what a reader may not do ----------------------------------------------------------------------------


class Forbidden(BaseException):
    """Not an Exception: no reader may swallow it."""


class TooSlow(BaseException):
    """A read took over `MAX_SECONDS` of the processor."""


_CODE = {
    "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system", "subprocess.Popen",
    "socket.connect", "pickle.find_class", "ctypes.dlopen", "code.__new__", "marshal.loads",
}  # fmt: skip
_CHANGES = {
    "os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink", "os.chmod",
    "os.chown", "os.utime", "shutil.rmtree", "shutil.move",
}  # fmt: skip
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_scratch: str | None = None
"""The folder that may be written while a file is read; None: nobody is watched."""
_is_hooked = False


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if _scratch is None:
        return
    if event in _CODE:
        if event in ("code.__new__", "marshal.loads") and _is_importing():
            return
        raise Forbidden(f"{event} {arguments!r:.200}")
    if event == "open":
        path, _, flags = arguments
        if isinstance(path, int) or not isinstance(flags, int) or not flags & _WRITING:
            return
        changed = [path]
    elif event in _CHANGES:
        changed = [a for a in arguments if isinstance(a, (str, bytes, os.PathLike))]
    else:
        return
    for path in changed:
        real = os.path.realpath(os.fsdecode(path))
        if not (real == _scratch or real.startswith(_scratch + os.sep) or real == os.devnull):
            raise Forbidden(f"{event} {real}")


def _is_importing() -> bool:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


@contextmanager
def watched(scratch: Path) -> Iterator[None]:
    """Inside, code, writes outside of `scratch`, much memory and much time end in an exception."""
    global _is_hooked, _scratch
    if not _is_hooked:
        sys.addaudithook(_audit)
        _is_hooked = True

    def stop(*_: object) -> None:
        raise TooSlow(f"over {MAX_SECONDS} s")

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    before = signal.signal(signal.SIGPROF, stop)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MAX_BYTES, hard))
    signal.setitimer(signal.ITIMER_PROF, MAX_SECONDS)
    _scratch = os.path.realpath(scratch)
    try:
        yield
    finally:
        _scratch = None
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def read_damaged(reader: Reader, data: bytes, scratch: Path) -> None:
    """Read once, watched; a UserError is as good as a result."""
    with watched(scratch), suppress(UserError):
        reader.read(data, scratch)


# -- damage ----------------------------------------------------------------------------------------------

_TOKEN = re.compile(r'"(?:[^"\\\n]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?|[A-Za-z_][\w.-]*|[\[\]{}:,=*&-]')
HOSTILE = (
    "-1", "0", "1", "2", "0.5", "1e308", "1e400", "-1e400", "NaN", "Infinity", ".nan", ".inf", "nan", "inf",
    "2147483648", "9223372036854775808", "1" + "0" * 30, "1" * 5000, "null", "true", "false", "[]", "{}",
    '""', "[0]", "[[1]]", '{"a": 1}', "[" * 1000, '{"a":' * 1000, '"\\u0000"', '"\\ud800"', '"\\u001b[2J"',
    '"../../../../tmp/escaped"', '"/etc/passwd"', '"~"', "*a", "&a [1]",
    "!!python/object/apply:os.system [x]", "1" + "0" * 400, "NULL", "~", "[[], []]", "[{}]",
    '[""]', '{"": null}',
    "2026-11-24", "0x7fffffff", "1_000", "1:30", "-", "?", "\x00", "\ufeff", "\r", "'", '"""', "<<", "é" * 50,
)  # fmt: skip


def damage(data: bytes, rng: random.Random) -> bytes:
    """A file with some of its words, lines or bytes changed."""
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        try:
            text = data.decode()
        except UnicodeDecodeError:
            text = ""
        data = _damage_text(text, rng).encode(errors="surrogatepass") if text and rng.random() < 0.85 else (
            _damage_bytes(data, rng)
        )  # fmt: skip
    return data[:MAX_INPUT_BYTES]


def _damage_text(text: str, rng: random.Random) -> str:
    if rng.random() < 0.2:
        lines = text.splitlines(keepends=True)
        at = rng.randrange(len(lines))
        match rng.randrange(3):
            case 0:
                del lines[at]
            case 1:
                lines.insert(rng.randrange(len(lines) + 1), lines[at])
            case _:
                other = rng.randrange(len(lines))
                lines[at], lines[other] = lines[other], lines[at]
        return "".join(lines)
    tokens = list(_TOKEN.finditer(text))
    if not tokens:
        return text + rng.choice(HOSTILE)
    token = rng.choice(tokens)
    new = rng.choice(HOSTILE) if rng.random() < 0.75 else rng.choice(tokens)[0]
    if rng.random() < 0.3 and token[0].startswith('"') and not new.startswith('"'):
        new = json.dumps(new)
    return text[: token.start()] + new + text[token.end() :]


def _damage_bytes(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    match rng.randrange(4):
        case 0:
            return data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]
        case 1:
            return data[:at]
        case 2:
            return data[:at] + rng.randbytes(rng.choice((1, 2, 4, 8))) + data[at:]
        case _:
            end = min(len(data), at + rng.randrange(1, 64))
            return data[:at] + data[end:]


# -- readers ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Reader:
    """What reads a kind of file."""

    read: Callable[[bytes, Path], None]
    """The file's bytes, and the folder in which it may be written."""
    seeds: Callable[[Path], list[bytes]]
    """Good files to begin with; a folder in which they may be made."""


def _file(scratch: Path, name: str, data: bytes) -> Path:
    path = scratch / name
    path.write_bytes(data)
    return path


def _shipped(package: str, suffix: str) -> list[bytes]:
    folder = resources.files(package)
    return [e.read_bytes() for e in sorted(folder.iterdir(), key=lambda e: e.name) if e.name.endswith(suffix)]


def _small_network() -> Any:
    from dsonas_hw.architecture.architecture import complete_architecture
    from dsonas_hw.architecture.lower import lower
    from dsonas_hw.space.space import SearchSpace

    space = SearchSpace(levels=1, stages=(1,), channels=8, input_shape=(3, 8, 8))
    return lower(complete_architecture(space))


def read_onnx(data: bytes, scratch: Path) -> None:
    from dsonas_hw.deploy.export import read_metadata
    from dsonas_hw.kernel.costs import count_costs
    from dsonas_hw.kernel.onnx.from_onnx import network_from_onnx

    path = _file(scratch, "model.onnx", data)
    network = network_from_onnx(path)
    costs = count_costs(network.kernels)
    assert min(costs.flops, costs.mac, costs.params) >= 0
    read_metadata(path)


def onnx_seeds(folder: Path) -> list[bytes]:
    from dsonas_hw.architecture.architecture import complete_architecture
    from dsonas_hw.architecture.onnx import build_onnx
    from dsonas_hw.space.space import SearchSpace

    space = SearchSpace(levels=1, stages=(1,), channels=4, input_shape=(3, 8, 8))
    return [build_onnx(complete_architecture(space)).SerializeToString()]


def read_table(data: bytes, scratch: Path) -> None:
    from dsonas_hw.cost.measured import MeasuredCosts
    from dsonas_hw.table.table import load_table

    table = load_table(_file(scratch, "table.jsonl", data))
    if table.corrections:
        MeasuredCosts(table).predict([row.kernel for row in table.kernels.values()][:20])


def table_seeds(folder: Path) -> list[bytes]:
    """An imported table."""
    from dsonas_hw.profile.import_table import import_table
    from dsonas_hw.target import Target

    done = import_table(
        _file(folder, "rows.csv", import_seeds(folder)[0]),
        Target(device="1080ti", runtime="tensorrt"),
        folder,
    )
    imported = done.path.read_bytes()
    done.path.unlink()  # an import would not replace it
    return [imported]


def read_device_file(data: bytes, scratch: Path) -> None:
    from dsonas_hw.device.datasheet_file import read_device
    from dsonas_hw.estimate.estimate import EstimatedLatency
    from dsonas_hw.target import Target

    device = read_device(_file(scratch, "card.toml", data))
    for runtime in device.runtimes:
        EstimatedLatency(device, Target(runtime=runtime)).predict(_small_network())


def read_config(data: bytes, scratch: Path) -> None:
    from dsonas_hw.config import build_config, load_config_file, load_preset, overlay
    from dsonas_hw.train.images import space_of_config

    loaded = load_config_file(_file(scratch, "config.yaml", data))
    config = build_config(overlay(load_preset("digits"), loaded))
    assert build_config(config.model_dump(mode="json")) == config
    if config.data.dataset == "digits":
        space_of_config(config)


def config_seeds(folder: Path) -> list[bytes]:
    return [b"preset: " + b"x\n" + data if b"preset:" not in data else data
            for data in _shipped("dsonas_hw.presets", ".yaml") if b"\nbase:" not in data]  # fmt: skip


def read_study(data: bytes, scratch: Path) -> None:
    from dsonas_hw.study.load import load_study

    for job in load_study(str(_file(scratch, "study.yaml", data)), {}).jobs:
        assert re.fullmatch(r"[A-Za-z0-9][\w.=+-]*", job.name), job.name


def read_calibration(data: bytes, scratch: Path) -> None:
    from dsonas_hw.estimate.calibrated import load_calibration
    from dsonas_hw.estimate.calibration_csv import read_calibration_rows

    if data.lstrip().startswith(b"{"):
        load_calibration(_file(scratch, "a.calibration.json", data))
    else:
        read_calibration_rows(_file(scratch, "a.csv", data))


def calibration_seeds(folder: Path) -> list[bytes]:
    from dataclasses import asdict

    from dsonas_hw.estimate.calibrate import Calibration
    from dsonas_hw.estimate.calibrate_fit import FACTORS

    rows = "".join(f"model{n}.onnx,{n},{n / 7:.3f}\n" for n in range(1, 9))
    example = Calibration(
        device="1080ti", runtime="tensorrt", precision="fp32", factors=dict.fromkeys(FACTORS, 1.1),
        image_ms=0.1, network_ms=0.1, num_networks=8, mape=0.1, mape_before=0.2,
        relative_sd=0.1, work=((18.0, 15.0),), outliers=("a",), base="0123456789abcdef", created="2026-11-24",
    )  # fmt: skip
    stored = {"schema_version": 3, **asdict(example)}
    shipped = sorted(Path(str(resources.files("dsonas_hw.profiles"))).rglob("*.calibration.json"))
    return [
        f"model,batch_size,latency_ms\n{rows}".encode(),
        json.dumps(stored).encode(),
        *(path.read_bytes() for path in shipped[:1]),
    ]


def read_import(data: bytes, scratch: Path) -> None:
    from dsonas_hw.profile.import_table import import_table
    from dsonas_hw.table.table import load_table
    from dsonas_hw.target import Target

    name = "rows.csv.gz" if data[:2] == b"\x1f\x8b" else "rows.csv"
    done = None
    try:
        done = import_table(_file(scratch, name, data), Target(device="1080ti", runtime="tensorrt"), scratch)
        load_table(done.path)
    finally:
        if done is not None:
            done.path.unlink()


def import_seeds(folder: Path) -> list[bytes]:
    import gzip

    rng = random.Random(0)
    lines = ["batch,cin,hin,win,cout,k,stride,groups,elmt_fused,precision,latency_ms"]
    for _ in range(30):
        c, size, k = rng.choice((8, 16, 32)), rng.choice((8, 16, 32)), rng.choice((1, 3, 5))
        lines.append(f"1,{c},{size},{size},{c},{k},1,{rng.choice((1, c))},0,fp32,{c * size * k / 5e4:.5f}")
    text = "\n".join(lines).encode()
    return [text, gzip.compress(text)]


def read_checkpoint(data: bytes, scratch: Path) -> None:
    """An archive as it is; anything else is put into one as the pickle that describes its tensors."""
    from dsonas_hw.checkpoint_file import load_checkpoint_file

    path = scratch / "search-000001.pt"
    if data.startswith(b"PK"):
        path.write_bytes(data)
    else:
        with zipfile.ZipFile(path, "w") as archive, zipfile.ZipFile(io.BytesIO(good_checkpoint())) as good:
            for entry in good.infolist():
                is_pickle = entry.filename.endswith("data.pkl")
                archive.writestr(entry.filename, data if is_pickle else good.read(entry))
    load_checkpoint_file(path)


@cache
def good_checkpoint() -> bytes:
    import torch

    file = io.BytesIO()
    torch.save({"w": torch.arange(4.0), "epoch": 3, "log_sizes": {"a": 1}, "rows": [1.5, "x", None]}, file)
    return file.getvalue()


def checkpoint_seeds(folder: Path) -> list[bytes]:
    with zipfile.ZipFile(io.BytesIO(good_checkpoint())) as archive:
        return [good_checkpoint(), archive.read("archive/data.pkl")]


RUN_FILES = (
    "architecture.json", "config.yaml", "metrics.jsonl", "path.jsonl", "lambda.jsonl", "retrain.json",
    "validation.json", "weights.npz",
)  # fmt: skip


def read_run(data: bytes, scratch: Path) -> None:
    """The first byte says which file of a run the rest stands for; then whatever reads a run reads it."""
    from dsonas_hw.report.write import write_report
    from dsonas_hw.run_directory import RunDirectory
    from dsonas_hw.search.choose import load_architecture
    from dsonas_hw.search.path import load_path
    from dsonas_hw.train.weights import load_weights

    path = scratch / "run" / RUN_FILES[data[0] % len(RUN_FILES) if data else 0]
    good = path.read_bytes()
    path.write_bytes(data[1:])
    run = RunDirectory(scratch / "run")
    try:
        for read in (
            lambda: write_report(run.path),
            lambda: run.create(run.load_config(), resume=True),
            lambda: load_weights(run.path / "weights.npz", load_architecture(run)[0]),
            lambda: load_path(run, load_architecture(run)[0].to_json()["space"]),
        ):
            with suppress(UserError):
                read()
    finally:
        path.write_bytes(good)


def run_seeds(folder: Path) -> list[bytes]:
    """Every file of a small run that has gone through all stages, on paper."""
    from dsonas_hw.architecture.architecture import complete_architecture
    from dsonas_hw.architecture.costs import TargetCosts
    from dsonas_hw.architecture.graph import build_graph
    from dsonas_hw.architecture.onnx import random_weights
    from dsonas_hw.config import build_config, load_preset, overlay
    from dsonas_hw.files import write_json, write_text
    from dsonas_hw.run_directory import RunDirectory
    from dsonas_hw.search.path import PathPoint
    from dsonas_hw.train.identity import architecture_hash
    from dsonas_hw.train.images import space_of_config
    from dsonas_hw.train.weights import save_weights

    run = RunDirectory(folder / "run")
    if not run.path.exists():
        changes = {"budget": "mac=60k", "space": {"levels": 1, "stages": [1, 1], "channels": 8}}
        config = build_config(overlay(load_preset("digits"), changes))
        run.create(config)
        space = space_of_config(config)
        architecture = complete_architecture(space)
        costs, identity = TargetCosts().costs(architecture), architecture_hash(architecture)
        derived = {
            "budgets": ["mac=60k"], "limits": {"mac": 60e3}, "predicted": costs.to_dict(),
            "source": "estimated", "disclaimer": "",
            "ratio_before_fit": 1.2, "ratio": 0.9, "step": 3, "shared_accuracy": 0.7,
        }  # fmt: skip
        write_json(run.architecture_path, {**architecture.to_json(), "derived": derived})
        point = PathPoint(step=3, epoch=1, gamma=1e-3, architecture=architecture, costs=costs, accuracy=0.5)
        lam = [[1.0] * len(space.edges)] * space.num_lambda_sets
        logs = {
            "path.jsonl": [point.to_json()],
            "lambda.jsonl": [{"stage": "search", "epoch": 1, "step": n, "lam": lam} for n in (3, 6)],
            "metrics.jsonl": [
                {"stage": stage, "epoch": n, "loss": 1.5, "accuracy": 0.6, "lr": 0.1, "step": 3}
                for stage in ("pretrain", "search", "retrain") for n in (1, 2)
            ],
        }  # fmt: skip
        for name, rows in logs.items():
            write_text(run.log_path(name), "".join(json.dumps(row) + "\n" for row in rows))
        write_json(run.path / "retrain.json", {"architecture": identity, "test_accuracy": 0.9, "epochs": 2})
        verdict = {"name": "latency", "limit": 0.3, "predicted": 0.2, "measured": 0.21, "holds": True,
                   "verdict": "holds", "statistic": "p50", "low": 0.2, "high": 0.22}  # fmt: skip
        latency = {"device_title": "CPU", "p50_ms": 0.21, "p50_ms_low": 0.2, "p50_ms_high": 0.22,
                   "quiet_ms": 0.2, "samples_ms": [0.2, 0.21], "round_medians_ms": [0.2, 0.21],
                   "num_samples": 2}  # fmt: skip
        validation = {
            "budgets": [verdict], "holds": True, "device": "local", "runtime": "ort-cpu",
            "source": "measured", "architecture": identity, "costs": costs.to_dict(), "latency": latency,
            "warnings": ["slow"],
            "max_abs_output_error": 1e-6, "date": "2026-01-02T03:04:05Z", "versions": {"numpy": "2"},
        }  # fmt: skip
        write_json(run.validation_path, validation)
        save_weights(run.path / "weights.npz", architecture, random_weights(build_graph(architecture)))
    _draw_once(run.path)
    return [bytes([n]) + (run.path / name).read_bytes() for n, name in enumerate(RUN_FILES)]


def _draw_once(path: Path) -> None:
    """Let matplotlib make its folders and find its fonts before anybody is watched."""
    from dsonas_hw.report.write import write_report

    write_report(path)


def read_study_directory(data: bytes, scratch: Path) -> None:
    """study.json, or, after a zero byte, the result of its first job."""
    from dsonas_hw.report.write import write_report
    from dsonas_hw.study.grid import SPECIFICATION, load_grid

    study = scratch / "study"
    is_result = data[:1] == b"\0"
    path = next(iter(sorted(study.glob("jobs/*/result.json")))) if is_result else study / SPECIFICATION
    good = path.read_bytes()
    path.write_bytes(data[1:] if is_result else data)
    try:
        load_grid(study)
        write_report(study)
    finally:
        path.write_bytes(good)


def study_directory_seeds(folder: Path) -> list[bytes]:
    from dsonas_hw.study.grid import SPECIFICATION, save_grid
    from dsonas_hw.study.job_files import job_directory
    from dsonas_hw.study.load import load_study

    study = folder / "study"
    specification = {"name": "small", "base": {"preset": "digits"}, "budgets": ["mac=60k"], "random": 2}
    loaded = load_study(str(_file(folder, "small.yaml", json.dumps(specification).encode())), {})
    study.mkdir(exist_ok=True)
    save_grid(study, loaded)
    result = {
        "test_error": 0.1, "seconds": 3.0, "width": 8, "ratio_before_fit": 0.9, "ratio": 0.95,
        "costs": {"flops": 1000, "mac": 2000, "params": 30, "memory_bytes": 4000, "latency_ms": None,
                  "energy_mj": None},
        "architecture": [{"output": []}], "latency_measured": {"p50_ms": 0.2, "p95_ms": 0.3},
    }  # fmt: skip
    for job in loaded.jobs:
        job_directory(study, job.name).mkdir(parents=True, exist_ok=True)
        (job_directory(study, job.name) / "result.json").write_text(json.dumps(result))
    _draw_once(study)
    return [(study / SPECIFICATION).read_bytes(), b"\0" + json.dumps(result).encode()]


CODESIGN_FILES = ("codesign.json", "jobs/derive-1080ti-mac-60k-s0/result.json")


def read_codesign(data: bytes, scratch: Path) -> None:
    """The first byte says which file the rest stands for."""
    from dsonas_hw.report.write import write_report
    from dsonas_hw.study.codesign import load_codesign
    from dsonas_hw.study.codesign_jobs import finished_derivations, network_jobs, search_jobs
    from dsonas_hw.study.codesign_result import load_result
    from dsonas_hw.study.job_files import job_directory

    study = scratch / "codesign"
    path = study / CODESIGN_FILES[data[0] % 2 if data else 0]
    good = path.read_bytes()
    path.write_bytes(data[1:])
    try:
        loaded = load_codesign(study)
        searches = search_jobs(loaded)
        for job in (*searches, *network_jobs(loaded, finished_derivations(study, searches))):
            assert job_directory(study, job.name).resolve().parent == (study / "jobs").resolve(), job.name
        load_result(study)
        write_report(study)
    finally:
        path.write_bytes(good)


def codesign_seeds(folder: Path) -> list[bytes]:
    from dsonas_hw.architecture.architecture import complete_architecture
    from dsonas_hw.architecture.costs import TargetCosts
    from dsonas_hw.config import build_config, load_preset
    from dsonas_hw.files import write_json
    from dsonas_hw.study.codesign import Codesign, StudyDevice, save_codesign
    from dsonas_hw.train.identity import architecture_hash
    from dsonas_hw.train.images import space_of_config

    study, config = folder / "codesign", load_preset("digits")
    device = StudyDevice(
        name="1080ti", title="GTX", runtime="tensorrt", source="estimated", is_here=False, mean_error=None
    )
    save_codesign(
        study, Codesign(devices=(device,), budgets=("mac=60k",), config={"preset": "digits", **config})
    )
    architecture = complete_architecture(space_of_config(build_config({"preset": "digits", **config})))
    guess = {"latency_ms": 0.2, "latency_ms_low": 0.1, "latency_ms_high": 0.3, "source": "estimated"}
    result = {
        "network": architecture_hash(architecture), "architecture": architecture.to_json(),
        "costs": TargetCosts().costs(architecture).to_dict(), "predicted": {"1080ti": guess},
    }  # fmt: skip
    write_json(study / CODESIGN_FILES[1], result)
    return [bytes([n]) + (study / name).read_bytes() for n, name in enumerate(CODESIGN_FILES)]


READERS: dict[str, Reader] = {
    "codesign": Reader(read=read_codesign, seeds=codesign_seeds),
    "onnx": Reader(read=read_onnx, seeds=onnx_seeds),
    "table": Reader(read=read_table, seeds=table_seeds),
    "device": Reader(read=read_device_file, seeds=lambda _: _shipped("dsonas_hw.devices", ".toml")[:6]),
    "config": Reader(read=read_config, seeds=config_seeds),
    "study": Reader(read=read_study, seeds=lambda _: _shipped("dsonas_hw.studies", ".yaml")),
    "study-directory": Reader(read=read_study_directory, seeds=study_directory_seeds),
    "calibration": Reader(read=read_calibration, seeds=calibration_seeds),
    "import": Reader(read=read_import, seeds=import_seeds),
    "checkpoint": Reader(read=read_checkpoint, seeds=checkpoint_seeds),
    "run": Reader(read=read_run, seeds=run_seeds),
}


# -- the hunt --------------------------------------------------------------------------------------------


class Hunt:
    """Reads inputs, counts them in shared memory, and keeps one input of each kind of finding."""

    def __init__(self, name: str, scratch: Path, out: Path) -> None:
        self.name, self.reader, self.scratch, self.out = name, READERS[name], scratch, out
        self.counter = mmap.mmap(-1, 8)  # shared with forks
        self.seen: set[str] = set()

    @property
    def num_inputs(self) -> int:
        return int(struct.unpack("q", self.counter[:])[0])

    def __call__(self, data: bytes) -> None:
        self.counter[:] = struct.pack("q", self.num_inputs + 1)
        try:
            read_damaged(self.reader, data, self.scratch)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            kind = f"{type(error).__name__} at {_place(error)}"
            if kind not in self.seen:
                self.seen.add(kind)
                number = len(list(self.out.glob(f"{self.name}-*.input")))
                (self.out / f"{self.name}-{number}.input").write_bytes(data)
                text = "".join(traceback.format_exception(error))
                (self.out / f"{self.name}-{number}.txt").write_text(f"{kind}\n{text}")


def _place(error: BaseException) -> str:
    """The innermost line of ours that the exception passed."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if "dsonas_hw" in f.filename or f"{os.sep}cli{os.sep}" in f.filename]
    frame = (ours or frames)[-1]
    return f"{Path(frame.filename).name}:{frame.lineno}"


def _fuzz(hunt: Hunt, seeds: list[bytes], seconds: float, seed: int) -> None:
    """In a process of its own: atheris ends the process it runs in."""
    try:
        import atheris
    except ImportError:
        rng, end = random.Random(seed), time.monotonic() + seconds
        for data in seeds:
            hunt(data)
        while time.monotonic() < end:
            hunt(damage(rng.choice(seeds), rng))
        return
    corpus = hunt.scratch / "corpus"
    corpus.mkdir()
    for number, data in enumerate(seeds):
        (corpus / str(number)).write_bytes(data)

    def mutate(data: bytes, max_size: int, number: int) -> bytes:
        rng = random.Random(number)
        if rng.random() < 0.3:
            return bytes(atheris.Mutate(data, max_size))
        return damage(data or rng.choice(seeds), rng)[:max_size]

    options = [
        "fuzz", f"-max_total_time={int(seconds)}", f"-seed={seed + 1}", f"-max_len={MAX_INPUT_BYTES}",
        "-timeout=120", f"-artifact_prefix={hunt.out}{os.sep}",
        "-rss_limit_mb=0", "-verbosity=0", "-print_final_stats=0", str(corpus),
    ]  # fmt: skip
    atheris.Setup(options, hunt, custom_mutator=mutate)
    atheris.Fuzz()


def import_readers() -> bool:
    """Import what reads, instrumented if atheris is there; whether it is."""
    names = (
        "deploy.export", "kernel.onnx.from_onnx", "cost.measured", "table.table", "estimate.estimate",
        "device.datasheet_file", "config", "task", "study.spec", "study.grid", "report.write",
        "study.codesign_jobs",
        "estimate.calibrated", "estimate.calibration_csv", "profile.import_table",
        "run_directory", "search.path", "search.choose", "train.weights", "train.data",
    )  # fmt: skip
    import importlib

    import torch

    torch.set_num_threads(1)
    try:
        import atheris
    except ImportError:
        for name in names:
            importlib.import_module(f"dsonas_hw.{name}")
        return False
    with atheris.instrument_imports(include=["dsonas_hw"]):
        for name in names:
            importlib.import_module(f"dsonas_hw.{name}")
    return True


def hunt_for(name: str, *, seconds: float, seed: int, out: Path) -> tuple[int, int]:
    """Fuzz one reader; how many inputs were read, and how many kinds of findings there are."""
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        seeds = [data for data in READERS[name].seeds(scratch) if len(data) <= MAX_INPUT_BYTES]
        hunt = Hunt(name, scratch, out)
        process = os.fork()
        if not process:
            code = 0
            try:
                os.dup2(os.open(out / f"{name}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
                _fuzz(hunt, seeds, seconds, seed)
            except SystemExit as stop:
                code = stop.code if isinstance(stop.code, int) else 1
            except BaseException:
                traceback.print_exc()
                code = 70
            finally:
                os._exit(code)
        status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        if status:
            (out / f"{name}-ended.txt").write_text(
                f"the fuzzing process ended with {status}; see {name}.log\n"
            )
        return hunt.num_inputs, len(list(out.glob(f"{name}-*.txt")))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("readers", nargs="*", choices=[*READERS, []], default=[])
    parser.add_argument("--seconds", type=float, default=60, help="for each reader")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("fuzz-findings"))
    parser.add_argument("--replay", type=Path, help="read one kept input and show what happens")
    options = parser.parse_args(arguments)
    sys.dont_write_bytecode = True
    if options.replay:
        reader = READERS[options.replay.name.rpartition("-")[0]]
        with tempfile.TemporaryDirectory() as folder:
            reader.seeds(Path(folder))
            read_damaged(reader, options.replay.read_bytes(), Path(folder))
        print("read, or refused in one line")
        return 0
    options.out.mkdir(parents=True, exist_ok=True)
    guided = "guided by coverage (atheris)" if import_readers() else "at random"
    failed = False
    for name in options.readers or READERS:
        number, findings = hunt_for(name, seconds=options.seconds, seed=options.seed, out=options.out)
        failed |= findings > 0
        print(
            f"{name:16} {options.seconds:6.0f} s {number:9} inputs {guided}: {findings} findings", flush=True
        )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
