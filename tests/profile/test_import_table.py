"""Importing a table of operators: rows, marks, cross-validated error, refusals."""

from __future__ import annotations

import gzip
import random
from dataclasses import replace
from pathlib import Path

import pytest

from dsonas_hw.errors import ProfileError
from dsonas_hw.kernel.network import Schedule, ScheduledKernel
from dsonas_hw.kernel.spec import Kernel
from dsonas_hw.profile.import_table import import_table
from dsonas_hw.profile.open import open_table
from dsonas_hw.target import Target

COLUMNS = "precision,conv_type,batch,cin,hin,win,cout,k,stride,elmt_fused,latency_ms"


def _lines(num: int = 120) -> list[str]:
    rng = random.Random(0)
    lines = []
    for _ in range(num):
        c, size, k = rng.choice([16, 32, 64, 128]), rng.choice([7, 14, 28]), rng.choice([1, 3])
        depthwise = rng.random() < 0.2
        work = 8 * c * (1 if depthwise else c) * size * size * k * k
        kind = "Depthwise" if depthwise else "Regular"
        ms = 0.01 + work * 1e-9
        lines.append(f"fp16,{kind},8,{c},{size},{size},{c},{k},1,0,{ms:.6f}")
    return [*lines, "fp32,Regular,8,16,7,7,16,3,1,0,1.0", "fp16,Regular,1,16,7,7,16,3,1,0,1.0"]


def _import(source: Path, directory: Path):  # type: ignore[no-untyped-def]
    return import_table(
        source, Target(device="v100", runtime="tensorrt", precision="fp16", batch_size=8), directory
    )


@pytest.mark.parametrize("packed", [False, True])
def test_rows_become_an_imported_profile(tmp_path: Path, packed: bool) -> None:
    text = "\n".join([COLUMNS, *_lines()])
    source = tmp_path / ("t.csv.gz" if packed else "t.csv")
    source.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    done = _import(source, tmp_path / "profiles")
    assert (done.num_rows, done.num_passed_over) == (120, 2)
    assert done.mape < 0.1
    model = open_table(done.path)
    assert model is not None
    assert model.source == "imported"
    shape = (8, 64, 28, 28)
    kernel = Kernel(op="conv", inputs=(shape,), output=shape, kernel_size=(3, 3), num_weights=64 * 64 * 9)
    # 0.01 ms + 8 · 64 · 64 · 28² · 9 · 1e-9 = 0.01 + 0.231 ms
    found = model.predict([kernel])
    assert found.value == pytest.approx(0.241, rel=0.1)
    assert found.low < found.value < found.high
    assert found.source == "imported"
    fused = replace(kernel, epilogue=("relu",))  # operators are timed bare: a fused activation is free
    step = ScheduledKernel(kernel=fused, reads=("x",), writes="y")
    schedule = Schedule(kernels=(step,), inputs={"x": shape}, outputs=frozenset({"y"}))
    assert model.predict_schedule(schedule) == found
    assert "IMPORTED, NOT MEASURED" in model.disclaimer
    with pytest.raises(ProfileError, match="exists"):
        _import(source, tmp_path / "profiles")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("batch,cin\n", "lacks the columns hin, win, cout, k, stride, latency_ms"),
        (f"{COLUMNS}\nfp16,Regular,8,16,7,7,16,3,1,0,0.1\n", "has 1 rows of fp16 at batch 8"),
        (f"{COLUMNS}\nfp16,Regular,8,16,7,7,16,3,1,0,zero\n", "line 2"),
        (f"{COLUMNS}\nfp16,Regular,8,16,7,7,16,3,1,0,-1\n", "line 2: latency_ms"),
        (f"{COLUMNS}\nfp16,Regular,8,1.5,7,7,16,3,1,0,1\n", "line 2: cin"),
        (
            f"{COLUMNS}\nfp16,Regular,8,1e23,7,7,16,3,1,0,1\n",
            "line 2: cin is at most 2,147,483,647, not 1e23",
        ),
        (f"{COLUMNS}\nfp16,Regular,8,16\n", "line 2"),
        (f"{COLUMNS}\nfp16,Regular,8,16,7,7,16,3,1,0,4,9\n", "line 2: 12 values, 11 columns; if 4,9 is one"),
        (f"{COLUMNS},\nfp16,Regular,8,16,7,7,16,3,1,0,4.9,\n", "has 1 rows of fp16 at batch 8"),
        (f"{COLUMNS},weather\n", "line 1: the column 'weather' is not known"),
        (f"{COLUMNS},k\n", "line 1: the column k is there twice"),
        (COLUMNS.replace(",", ";") + "\n", "semicolons"),
    ],
)
def test_refusals(tmp_path: Path, text: str, message: str) -> None:
    source = tmp_path / "t.csv"
    source.write_text(text)
    with pytest.raises(ProfileError, match=message):
        _import(source, tmp_path / "profiles")
    assert not (tmp_path / "profiles").exists()


@pytest.mark.parametrize(("factor", "unit"), [(1e-3, "like seconds"), (1e3, "microseconds")])
def test_times_in_another_unit_are_named(tmp_path: Path, factor: float, unit: str) -> None:
    lines = []
    for line in _lines():
        shape, _, ms = line.rpartition(",")
        lines.append(f"{shape},{float(ms) * factor}")
    source = tmp_path / "t.csv"
    source.write_text("\n".join([COLUMNS, *lines]))
    with pytest.raises(ProfileError, match=unit):
        _import(source, tmp_path / "profiles")
    assert not (tmp_path / "profiles").exists()


def test_a_small_file_that_unpacks_to_a_large_one_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "bomb.csv.gz"
    source.write_bytes(gzip.compress(bytes(80 << 20), compresslevel=1))
    assert source.stat().st_size < 1 << 20
    with pytest.raises(ProfileError, match="holds more than 64 MiB"):
        _import(source, tmp_path / "profiles")
