"""Tables: what is written is read back; tears are survived, damage is named, other machines are refused."""

from __future__ import annotations

import json
import logging
import multiprocessing
from dataclasses import replace
from pathlib import Path

import pytest

from dsonas_hw.errors import ProfileError
from dsonas_hw.kernel.spec import Kernel
from dsonas_hw.table.rows import (
    ESTIMATE,
    SCHEMA_VERSION,
    CheckRow,
    CorrectionRow,
    ErrorSummary,
    KernelRow,
    NetworkRow,
    TableHeader,
)
from dsonas_hw.table.table import load_table, save_table, table_path
from dsonas_hw.table.writer import TableWriter
from dsonas_hw.target import Target

HEADER = TableHeader(
    target=Target(runtime="ort-cpu"),
    fingerprint="cpu",
    source="measured",
    created="2026-01-01T00:00:00+00:00",
    versions={"onnxruntime": "1.31"},
)


def conv(channels: int) -> Kernel:
    return Kernel(
        op="conv",
        inputs=((1, channels, 8, 8),),
        output=(1, channels, 8, 8),
        kernel_size=(3, 3),
        groups=channels,
        num_weights=9 * channels,
        num_bias=channels,
        epilogue=("relu",),
    )


def row(channels: int, latency_ms: float = 0.01, **more: object) -> KernelRow:
    return KernelRow(kernel=conv(channels), latency_ms=latency_ms, source="measured", **more)  # type: ignore[arg-type]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = table_path(tmp_path, Target(device="local", runtime="ort-cpu"))
    with TableWriter(path, HEADER) as writer:
        for channels in (8, 16, 24):
            writer.append(row(channels))
    return path


def test_every_row_comes_back_as_it_was_written(path: Path) -> None:
    network = NetworkRow(
        name="fit-0", latency_ms=1.5, kernels={conv(8).key: 2}, flops=7, relative_standard_error=0.01
    )
    correction = CorrectionRow(values={"scale": 0.9})
    error = ErrorSummary(mape=0.02, share_within_10=1.0, kendall_tau=0.98)
    check = CheckRow(space="cifar", num_networks=20, error=error, baselines={"flops": error}, created="now")
    with TableWriter(path, HEADER) as writer:
        for line in (network, correction, check):
            writer.append(line)
    table = load_table(path)
    assert table.header == HEADER
    assert table.kernels == {conv(c).key: row(c) for c in (8, 16, 24)}
    assert table.networks == (network,)
    assert table.corrections == {"latency": correction}
    assert table.checks == {"cifar": check}
    assert table.warnings == ()


def test_an_estimated_row_holds_no_statistics_and_comes_back_as_it_was_written(tmp_path: Path) -> None:
    estimated = KernelRow(kernel=conv(8), latency_ms=0.02, source="estimated", statistic=ESTIMATE)
    path = tmp_path / "table.jsonl"
    save_table(path, replace(HEADER, source="estimated"), [estimated])
    assert load_table(path).kernels == {conv(8).key: estimated}
    assert not {"num_samples", "statistic", "energy_mj"} & set(json.loads(path.read_text().splitlines()[1]))


def test_timings_of_one_kernel_are_averaged_by_their_samples(path: Path) -> None:
    with TableWriter(path, HEADER) as writer:
        writer.append(row(8, latency_ms=0.05, num_samples=3))
    merged = load_table(path).kernels[conv(8).key]
    assert merged.num_samples == 4
    assert merged.latency_ms == pytest.approx((0.01 + 3 * 0.05) / 4)
    # variance of the values 0.01, 0.05, 0.05, 0.05 is 0.0003
    assert merged.latency_ms_std == pytest.approx(0.0003**0.5)


def test_a_torn_last_line_is_dropped_with_a_warning_and_the_profile_resumes(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[:-25])
    with caplog.at_level(logging.WARNING):
        table = load_table(path)
    assert set(table.kernels) == {conv(8).key, conv(16).key}
    assert "dropped the last line (4)" in table.warnings[0]
    assert "dropped the last line (4)" in caplog.text
    with TableWriter(path, HEADER) as writer:
        assert set(writer.existing.kernels) == {conv(8).key, conv(16).key}
        writer.append(row(24))
    assert path.read_bytes() == whole


def test_only_the_newline_missing_loses_nothing(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with TableWriter(path, HEADER) as writer:
        assert len(writer.existing.kernels) == 3
        writer.append(row(32))
    assert len(load_table(path).kernels) == 4


def test_damage_elsewhere_names_the_line(path: Path) -> None:
    lines = path.read_bytes().split(b"\n")
    lines[2] = lines[2][:-10]
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(ProfileError, match="line 3: not JSON"):
        load_table(path)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("latency_ms", -1),
        ("latency_ms", 0),
        ("latency_ms", "fast"),
        ("latency_ms", 10**400),
        ("latency_ms", True),
        ("latency_ms", None),
        ("num_samples", 0),
        ("num_samples", 1.5),
        ("flops", 5),
        ("key", "conv"),
        ("op", "teleport"),
        ("output", [1, 0]),
        ("output", "1x8"),
        ("inputs", [[1, -8, 8, 8]]),
        ("source", "guessed"),
        ("row", "surprise"),
        ("function", "x" * 5000),
    ],
)
def test_an_edited_value_is_refused_with_its_line(path: Path, field: str, value: object) -> None:
    lines = path.read_text().splitlines()
    values = json.loads(lines[1])
    values[field] = value
    lines[1] = json.dumps(values)
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(ProfileError, match="line 2"):
        load_table(path)


@pytest.mark.parametrize("text", ["NaN", "Infinity", "[" * 100_000])
def test_json_that_python_accepts_too_easily_is_refused(path: Path, text: str) -> None:
    lines = path.read_text().splitlines()
    lines[1] = text
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(ProfileError, match="line 2"):
        load_table(path)


def test_another_schema_is_refused(path: Path) -> None:
    path.write_text(path.read_text().replace(f'"schema": {SCHEMA_VERSION}', '"schema": 99'))
    with pytest.raises(ProfileError, match=r"schema version '99'.* measure again with: dsonas-hw profile "):
        load_table(path)


def test_missing_empty_and_foreign_files_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="there is no table"):
        load_table(tmp_path / "none.jsonl")
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    with pytest.raises(ProfileError, match="is empty"):
        load_table(empty)
    with pytest.raises(ProfileError, match="cannot read"):
        load_table(tmp_path)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"fingerprint": "another cpu"}, "fingerprint: cpu there, another cpu now"),
        ({"target": Target(runtime="ort-cpu", threads=2)}, "threads: 1 there, 2 now"),
        ({"versions": {"onnxruntime": "1.30"}}, "onnxruntime 1.31 there, onnxruntime 1.30 now"),
        ({"settings": {"num_samples": 3}}, "num_samples None there"),
    ],
)
def test_a_table_made_under_other_conditions_is_not_continued(
    path: Path, change: dict[str, object], named: str
) -> None:
    before = path.read_bytes()
    with pytest.raises(ProfileError, match=named), TableWriter(path, replace(HEADER, **change)):  # type: ignore[arg-type]
        pass
    assert path.read_bytes() == before


def test_the_date_may_differ(path: Path) -> None:
    with TableWriter(path, replace(HEADER, created="2027-01-01")) as writer:
        assert writer.header.created == HEADER.created


def _try_to_write(path: Path, answers: multiprocessing.Queue[str]) -> None:
    try:
        with TableWriter(path, HEADER):
            answers.put("written")
    except ProfileError as error:
        answers.put(str(error))


def test_one_writer_at_a_time(path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    answers: multiprocessing.Queue[str] = context.Queue()
    for expected in ("another dsonas-hw is writing", "written"):
        process = context.Process(target=_try_to_write, args=(path, answers))
        if expected != "written":
            with TableWriter(path, HEADER):
                process.start()
                answer = answers.get(timeout=60)
                process.join()
        else:
            process.start()
            answer = answers.get(timeout=60)
            process.join()
        assert expected in answer


def test_a_full_disk_keeps_what_was_appended(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = path.read_bytes()

    class FullDisk:
        """Takes ten bytes, then the disk is full."""

        def __init__(self, file: object) -> None:
            self.file = file
            self.left = 10

        def write(self, data: memoryview) -> int:
            if not self.left:
                raise OSError(28, "No space left on device")
            written: int = self.file.write(data[: self.left])  # type: ignore[attr-defined]
            self.left = 0
            return written

        def __getattr__(self, name: str) -> object:
            return getattr(self.file, name)

    with TableWriter(path, HEADER) as writer:
        monkeypatch.setattr(writer, "_file", FullDisk(writer._file))
        with pytest.raises(ProfileError, match="No space left on device"):
            writer.append(row(64))
    assert path.read_bytes() == before


def test_rewrite_leaves_one_line_per_kernel_and_can_go_on(path: Path) -> None:
    with TableWriter(path, HEADER) as writer:
        writer.append(row(8, latency_ms=0.03))
        writer.rewrite(load_table(path).kernels.values())
        writer.append(row(40))
    assert len(path.read_text().splitlines()) == 1 + 3 + 1
    assert load_table(path).kernels[conv(8).key].latency_ms == pytest.approx(0.02)


def test_an_unwritable_place_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    path = tmp_path / "file" / "table.jsonl"
    with pytest.raises(ProfileError, match="cannot write the table"):
        save_table(path, HEADER, [])
    with pytest.raises(ProfileError, match="cannot write the table"), TableWriter(path, HEADER):
        pass


@pytest.mark.parametrize("device", ["", "../etc", "a/b", ".hidden", "c:x"])
def test_a_device_name_cannot_leave_the_folder(tmp_path: Path, device: str) -> None:
    with pytest.raises(ProfileError, match="not a device name"):
        table_path(tmp_path, Target(device=device, runtime="ort-cpu"))
