"""A little fuzzing of every reader, and the watch itself: what it must catch, it catches."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks import fuzz
from benchmarks.fuzz import READERS, Forbidden, Reader, TooSlow, damage, read_damaged
from dsonas_hw.errors import UserError
from dsonas_hw.report.run_load import load_run_data
from dsonas_hw.run_directory import RunDirectory

NUM_EXAMPLES = {"run": 15, "study": 25, "device": 40}
BRIEF = settings(
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@pytest.mark.parametrize("name", READERS)
def test_good_files_are_read(name: str, scratch: Path) -> None:
    for data in READERS[name].seeds(scratch):
        READERS[name].read(data, scratch)


@pytest.mark.parametrize("name", READERS)
def test_damaged_files_are_read_or_refused(name: str, scratch: Path) -> None:
    seeds = READERS[name].seeds(scratch)

    @settings(BRIEF, max_examples=NUM_EXAMPLES.get(name, 60))
    @given(number=st.integers(0, len(seeds) - 1), rng=st.randoms(use_true_random=False))
    def check(number: int, rng: random.Random) -> None:
        read_damaged(READERS[name], damage(seeds[number], rng), scratch)

    check()


def test_the_run_that_is_damaged_was_whole(scratch: Path) -> None:
    fuzz.run_seeds(scratch)
    assert load_run_data(RunDirectory(scratch / "run")).notes == ()


# -- the watch -------------------------------------------------------------------------------------------


def reader_that(action: str) -> Reader:
    def read(data: bytes, scratch: Path) -> None:
        try:
            exec(compile(action, "<reader>", "exec"), {"scratch": scratch})
        except Exception as error:  # what a careless reader would do
            raise UserError("swallowed") from error

    return Reader(read=read, seeds=lambda _: [])


@pytest.mark.parametrize(
    "action",
    [
        "import os; os.system('true')",
        "import subprocess; subprocess.run(['true'])",
        "open(scratch.parent / 'outside', 'w')",
        "open(scratch / 'link', 'a')",
        "import os; os.truncate(scratch / 'link', 0)",
        "import os; os.remove(scratch.parent / 'target')",
        "import pickle; pickle.loads(b'cos\\nsystem\\n.')",
        "import socket; socket.socket().connect(('127.0.0.1', 1))",
    ],
)
def test_code_and_writes_elsewhere_are_caught(action: str, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    (tmp_path / "target").write_text("keep")
    (scratch / "link").symlink_to(tmp_path / "target")
    with pytest.raises(Forbidden):
        read_damaged(reader_that(action), b"", scratch)
    assert (tmp_path / "target").read_text() == "keep"
    assert not (tmp_path / "outside").exists()


def test_the_scratch_folder_may_be_written_and_the_watch_ends(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    read_damaged(reader_that("(scratch / 'a').write_text('b')"), b"", scratch)
    assert (scratch / "a").read_text() == "b"
    (tmp_path / "outside").write_text("nobody watches now")


def test_endless_reads_are_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz, "MAX_SECONDS", 0.05)
    with pytest.raises(TooSlow):
        read_damaged(reader_that("while True: pass"), b"", tmp_path)


def test_much_memory_is_caught(tmp_path: Path) -> None:
    def read(data: bytes, scratch: Path) -> None:
        bytearray(3 * 2**30)

    with pytest.raises(MemoryError):
        read_damaged(Reader(read=read, seeds=lambda _: []), b"", tmp_path)


def test_damage_is_the_same_for_the_same_seed_and_reaches_the_whole_file() -> None:
    data = json.dumps({"first": 1, "last": [True, "x"]}).encode()
    found = [damage(data, random.Random(n)) for n in range(300)]
    assert found == [damage(data, random.Random(n)) for n in range(300)]
    assert any(not f.startswith(b'{"first": 1') for f in found)
    assert any(not f.endswith(b'"x"]}') for f in found)
    assert sum(f == data for f in found) < 60


def test_a_finding_is_kept_and_can_be_replayed(tmp_path: Path) -> None:
    """In a process of its own, where a reader is broken on purpose."""
    code = f"""
import sys
from pathlib import Path
from benchmarks import fuzz

def broken(data, scratch):
    if b"mape" not in data:
        raise KeyError("mape")

fuzz.READERS["calibration"] = fuzz.Reader(read=broken, seeds=fuzz.calibration_seeds)
sys.modules["atheris"] = None  # without it
sys.exit(fuzz.main(["calibration", "--seconds", "0.1", "--out", {str(tmp_path)!r}]))
"""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stderr
    assert "1 findings" in done.stdout
    assert "KeyError" in (tmp_path / "calibration-0.txt").read_text()
    assert b"mape" not in (tmp_path / "calibration-0.input").read_bytes()
    assert (
        fuzz.main(["--replay", str(tmp_path / "calibration-0.input")]) == 0
    )  # the real reader is not broken
