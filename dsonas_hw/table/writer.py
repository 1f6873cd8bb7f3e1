"""Appending to a lookup table: line by line, each synced, so that a profile that is killed resumes there.

One process writes at a time.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any

from dsonas_hw.errors import ProfileError
from dsonas_hw.files import remove_leftovers
from dsonas_hw.table.rows import Row, TableHeader
from dsonas_hw.table.table import LookupTable, encode_row, merge_rows, read_rows_of, save_table


class TableWriter:
    """Appends to a table; a table that exists is continued if its header agrees.

    Use as a context manager: it holds the table's lock.

        with TableWriter(path, header) as writer:
            writer.append(KernelRow(kernel=kernel, latency_ms=0.02, source="measured"))
    """

    def __init__(self, path: Path, header: TableHeader, *, wait_s: float = 0.0) -> None:
        """wait_s: how long to wait for another process that writes the table."""
        self.path = path
        self.header = header
        self._wait_s = wait_s
        self.existing: LookupTable = LookupTable(path=path, header=header)
        """What the table held when it was opened."""
        self._file: FileIO | None = None
        self._lock: Any = None

    def __enter__(self) -> TableWriter:
        """Lock and open.

        Raises:
            ProfileError: another process writes it, its header disagrees, it is damaged or not writable.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._acquire()
        except OSError as error:
            raise ProfileError(f"cannot write the table {self.path}: {error.strerror or error}") from error
        try:
            self._open()
        except BaseException:
            self._release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._release()

    def append(self, row: Row) -> None:
        """Add one line and wait until it is on the disk.

        Raises:
            ProfileError: the disk is full or gone; everything appended before is kept.
        """
        assert self._file is not None, "TableWriter is used as a context manager"
        self._append(encode_row(row))

    def rewrite(self, rows: Iterable[Row]) -> None:
        """Replace the table's rows, keeping its header and its lock: one line per kernel at the end."""
        assert self._file is not None, "TableWriter is used as a context manager"
        save_table(self.path, self.header, rows)
        self._file.close()
        self._file = self.path.open("r+b", buffering=0)
        self._file.seek(0, os.SEEK_END)

    def _append(self, line: bytes) -> None:
        assert self._file is not None
        end = self._file.seek(0, os.SEEK_END)
        try:
            rest = memoryview(line)
            while rest:
                rest = rest[self._file.write(rest) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            with contextlib.suppress(OSError):  # leave no torn line behind
                self._file.truncate(end)
            raise ProfileError(
                f"cannot append to the table {self.path}: {error.strerror or error}; "
                "what was measured is kept: make room and run the same command again"
            ) from error

    def _acquire(self) -> None:
        from filelock import FileLock, Timeout

        lock = FileLock(str(self.path) + ".lock", timeout=self._wait_s)
        try:
            lock.acquire()
        except Timeout as error:
            raise ProfileError(
                f"another dsonas-hw is writing the table {self.path}; wait until it has finished"
            ) from error
        self._lock = lock
        remove_leftovers(self.path.parent, self.path.name)

    def _open(self) -> None:
        if self.path.exists() and self.path.stat().st_size > 0:
            found, rows, warnings, good_bytes = read_rows_of(self.path)
            difference = _difference(found, self.header)
            if difference:
                raise ProfileError(
                    f"the table {self.path} was made under other conditions ({difference}); "
                    "move it away, or choose another directory with --profiles"
                )
            self.header = found
            self.existing = merge_rows(self.path, found, rows, warnings)
            self._file = self.path.open("r+b", buffering=0)
            assert self._file is not None
            self._file.truncate(good_bytes)
            if good_bytes and not _ends_with_newline(self._file):
                self._append(b"\n")
        else:
            try:
                self._file = self.path.open("w+b", buffering=0)
            except OSError as error:
                raise ProfileError(
                    f"cannot write the table {self.path}: {error.strerror or error}"
                ) from error
            self._append(encode_row(self.header))

    def _release(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None


def _ends_with_newline(file: FileIO) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"


def _difference(found: TableHeader, wanted: TableHeader) -> str:
    """What disagrees between two headers, apart from date and clocks; empty when they agree."""
    there, now = found.to_json(), wanted.to_json()
    for name, old in there.items():
        new = now[name]
        if old != new and name not in ("created", "clocks"):
            return f"{name}: {_brief(old, new)} there, {_brief(new, old)} now"
    return ""


def _brief(value: Any, other: Any) -> str:
    if isinstance(value, dict) and isinstance(other, dict):
        return ", ".join(
            f"{name} {value.get(name)}"
            for name in sorted({*value, *other})
            if value.get(name) != other.get(name)
        )
    return str(value)
