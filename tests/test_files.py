"""Files are replaced whole or not at all, and logs survive a kill."""

from __future__ import annotations

import errno
import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dsonas_hw.config import load_config_file
from dsonas_hw.errors import RunError, UserError, one_line
from dsonas_hw.files import (
    append_json_line,
    atomic_write,
    read_json,
    read_json_lines,
    read_regular,
    write_json,
    write_text,
)


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    write_text(path, "old")

    def write_half() -> None:
        with atomic_write(path) as file:
            file.write(b"half")
            raise KeyError("stop")

    with pytest.raises(KeyError):
        write_half()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["value.json"]


def test_nothing_is_there_before_the_end(tmp_path: Path) -> None:
    path = tmp_path / "deeper" / "value.bin"
    with atomic_write(path) as file:
        file.write(b"all of it")
        assert not path.exists()
    assert path.read_bytes() == b"all of it"
    assert names(path.parent) == ["value.bin"]


def test_written_files_have_ordinary_permissions(tmp_path: Path) -> None:
    write_text(tmp_path / "atomic", "x")
    (tmp_path / "ordinary").write_text("x")
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("atomic", "ordinary")]
    assert modes[0] == modes[1]


def test_a_full_disk_is_a_user_error(tmp_path: Path) -> None:
    """In a process none of whose files may grow beyond 10 kB: writing fails as on a full disk."""
    code = """
import resource, sys
from pathlib import Path
from dsonas_hw.errors import RunError
from dsonas_hw.files import append_json_line, write_text

folder = Path(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
write_text(folder / "value.json", "old")
for write in (
    lambda: write_text(folder / "value.json", "x" * 20_000),
    lambda: append_json_line(folder / "log.jsonl", {"text": "x" * 20_000}),
):
    try:
        write()
    except RunError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    value, log = done.stdout.splitlines()
    assert re.search(r"cannot write .*value\.json", value)
    assert re.search(r"cannot write .*log\.jsonl", log)
    assert (tmp_path / "value.json").read_text() == "old"
    assert "value.json" in names(tmp_path)
    assert not [name for name in names(tmp_path) if name.endswith(".part")]


def test_a_folder_that_cannot_be_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for write in (write_json, append_json_line):
        with pytest.raises(RunError, match="cannot write"):
            write(tmp_path / "file" / "value.json", {})


def test_json_round_trip(tmp_path: Path) -> None:
    value = {"λ": [1, 2.5, None, True], "text": "3×3"}
    write_json(tmp_path / "value.json", value)
    assert read_json(tmp_path / "value.json") == value
    assert "3×3" in (tmp_path / "value.json").read_text(encoding="utf-8")


def test_nan_is_never_written(tmp_path: Path) -> None:
    for write in (write_json, append_json_line):
        with pytest.raises(ValueError, match="not JSON compliant"):
            write(tmp_path / "value.json", {"loss": float("nan")})
    assert names(tmp_path) == []


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"[" * 100_000, b""])
def test_damaged_json_is_a_user_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "value.json").write_bytes(content)
    with pytest.raises(UserError, match=r"value\.json is damaged"):
        read_json(tmp_path / "value.json")


def test_missing_large_and_unreadable_json(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        read_json(tmp_path / "value.json")
    (tmp_path / "value.json").write_text("[1, 2, 3]")
    with pytest.raises(UserError, match="larger than 5 bytes"):
        read_json(tmp_path / "value.json", max_bytes=5)
    with pytest.raises(UserError, match="cannot read"):
        read_json(tmp_path)


def test_lines_come_back_in_order(tmp_path: Path) -> None:
    path, rows = tmp_path / "log.jsonl", [{"step": step, "text": "µ"} for step in range(3)]
    for row in rows:
        append_json_line(path, row)
    assert read_json_lines(path) == rows
    assert read_json_lines(tmp_path / "missing.jsonl") == []


def test_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    append_json_line(path, {"step": 0})
    append_json_line(path, {"step": 1, "text": "λ"})
    whole = path.read_bytes()
    start = whole.index(b"\n") + 1
    for end in range(start, len(whole) - 1):  # killed after any byte of the second line
        path.write_bytes(whole[:end])
        assert read_json_lines(path) == [{"step": 0}]


@pytest.mark.parametrize("line", [b"{", b"12", b"\xff", b"[" * 100_000])
def test_damage_before_the_last_line_is_named(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(json.dumps({"a": 1}).encode() + b"\n" + line + b"\n" + b'{"a": 2}\n')
    with pytest.raises(UserError, match=r"log\.jsonl, line 2 is damaged"):
        read_json_lines(path)


def test_appended_lines_are_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(handle))
    append_json_line(tmp_path / "log.jsonl", {})
    write_json(tmp_path / "value.json", {})
    assert len(synced) == 2


def test_a_failing_sync_is_a_failed_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(handle: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    write_text(tmp_path / "value.json", "old")
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(RunError, match="Input/output error"):
        write_text(tmp_path / "value.json", "new")
    assert (tmp_path / "value.json").read_text() == "old"


# -- what is not a file of ours --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")], ids=["pipe", "device"]
)
def test_what_never_sends_or_never_ends_is_not_read(make: Callable[[Path], None], tmp_path: Path) -> None:
    for read, name in ((read_json, "a.json"), (read_json_lines, "a.jsonl"), (load_config_file, "a.yaml")):
        make(tmp_path / name)
        with pytest.raises(UserError, match="not a regular file"):
            read(tmp_path / name)


def test_a_name_that_no_file_can_have_is_refused() -> None:
    with pytest.raises(OSError, match="null"):
        read_regular(Path("a\0b"), max_bytes=5)


def test_no_more_is_allocated_than_the_file_holds(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert read_regular(tmp_path / "a", max_bytes=2**40) == b"abc"


def test_an_error_is_one_short_line_that_no_terminal_obeys() -> None:
    shown = one_line(UserError("bad\nname \x1b[2J\x00" + "x" * 10_000))
    assert shown.startswith(r"bad name \x1b[2J\x00xxx")
    assert len(shown) == 2000
    assert shown.isprintable()
