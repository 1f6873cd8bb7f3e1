"""Lookup tables on disk: `profiles/<device>/<runtime>-<precision>-b<batch>.jsonl`.

A header line, then one line per kernel, plus the whole networks timed, the correction fitted on them and
the checks. Lines are appended and synced one by one, so a profile that is killed resumes where it stopped:
a torn last line is dropped with a warning, damage anywhere else is an error that names the line. One
writer at a time.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any

from dsonas_hw.budget import Metric
from dsonas_hw.errors import ProfileError, RunError
from dsonas_hw.files import atomic_write, read_regular, remove_leftovers
from dsonas_hw.kernel.spec import Kernel
from dsonas_hw.table.commands import directory_of, profile_command
from dsonas_hw.table.read_rows import RowError, SchemaError, header_from_json, row_from_json
from dsonas_hw.table.rows import (
    CheckRow,
    CorrectionRow,
    ErrorSummary,
    KernelRow,
    NetworkRow,
    Row,
    TableHeader,
)
from dsonas_hw.target import Target

__all__ = [
    "CheckRow",
    "CorrectionRow",
    "ErrorSummary",
    "KernelRow",
    "LookupTable",
    "NetworkRow",
    "TableHeader",
    "TableWriter",
    "load_table",
    "now_utc",
    "save_table",
    "table_path",
]

MAX_FILE_BYTES = 256 * 2**20
MAX_LINE_BYTES = 2**20

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class LookupTable:
    """A table as loaded: rows of one kernel are already merged."""

    path: Path
    header: TableHeader
    kernels: dict[str, KernelRow] = field(default_factory=dict)
    """Key → row."""
    networks: tuple[NetworkRow, ...] = ()
    corrections: dict[Metric, CorrectionRow] = field(default_factory=dict)
    """Metric → its last correction; empty: the profile is not finished."""
    checks: dict[str, CheckRow] = field(default_factory=dict)
    """Space → its last check."""
    warnings: tuple[str, ...] = ()

    def kernels_of(self, network: NetworkRow) -> tuple[Kernel, ...]:
        """The kernels that ran in one of the networks; empty if some of them have no row."""
        if not all(key in self.kernels for key in network.kernels):
            return ()
        return tuple(self.kernels[key].kernel for key, count in network.kernels.items() for _ in range(count))


def now_utc() -> str:
    """The date that goes into a table."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def table_path(directory: Path, target: Target) -> Path:
    """Where the table of a target lives below a directory of profiles.

    Raises:
        ProfileError: the device's name cannot be a folder's.
    """
    device = target.device
    if not device or device.startswith(".") or any(mark in device for mark in "/\\:\0"):
        raise ProfileError(f"{device!r} is not a device name; see: dsonas-hw devices")
    suffix = f"-t{target.threads}" if target.threads != 1 else ""
    return directory / device / f"{target.runtime}-{target.precision}-b{target.batch_size}{suffix}.jsonl"


def load_table(path: Path) -> LookupTable:
    """Read and check a table.

    Raises:
        ProfileError: missing, unreadable, of another schema, or damaged (names the line).
    """
    header, rows, warnings, _ = _read(path)
    return _merge(path, header, rows, warnings)


def save_table(path: Path, header: TableHeader, rows: Iterable[Row]) -> None:
    """Write a whole table at once (temporary file, sync, rename).

    Raises:
        ProfileError: it cannot be written; what was there before is untouched.
    """
    try:
        with atomic_write(path) as file:
            for row in (header, *rows):
                file.write(_encode(row))
    except RunError as error:
        raise ProfileError(f"cannot write the table: {error}") from None


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
        self._append(_encode(row))

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
            found, rows, warnings, good_bytes = _read(self.path)
            difference = _difference(found, self.header)
            if difference:
                raise ProfileError(
                    f"the table {self.path} was made under other conditions ({difference}); "
                    "move it away, or choose another directory with --profiles"
                )
            self.header = found
            self.existing = _merge(self.path, found, rows, warnings)
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
            self._append(_encode(self.header))

    def _release(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None


def _encode(row: Row | TableHeader) -> bytes:
    return (json.dumps(row.to_json(), ensure_ascii=False, allow_nan=False) + "\n").encode()


def _ends_with_newline(file: FileIO) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"


def _difference(found: TableHeader, wanted: TableHeader) -> str:
    """What disagrees between two headers, apart from date and clocks; empty when they agree."""
    there, now = found.to_json(), wanted.to_json()
    for name in (
        "device",
        "fingerprint",
        "runtime",
        "precision",
        "batch_size",
        "threads",
        "source",
        "versions",
        "settings",
    ):
        old, new = there[name], now[name]
        if old != new:
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


def _read(path: Path) -> tuple[TableHeader, list[Row], tuple[str, ...], int]:
    """Header, rows, warnings, and how many bytes of the file are good."""
    try:
        data = read_regular(path, max_bytes=MAX_FILE_BYTES)
    except FileNotFoundError as error:
        raise ProfileError(f"there is no table {path}; measure one with: dsonas-hw profile") from error
    except OSError as error:
        raise ProfileError(f"cannot read the table {path}: {error.strerror or error}") from error
    header: TableHeader | None = None
    rows: list[Row] = []
    warnings: tuple[str, ...] = ()
    lines = data.split(b"\n")
    last = len(lines) - 1 if lines[-1] else len(lines) - 2
    position = 0
    for index, line in enumerate(lines[: last + 1]):
        try:
            if len(line) > MAX_LINE_BYTES:
                raise RowError(f"longer than {MAX_LINE_BYTES} bytes")
            values = json.loads(line, parse_constant=_refuse_constant)
            if header is None:
                header = header_from_json(values)
            else:
                rows.append(row_from_json(values))
        except SchemaError as error:
            command = profile_command(error.target, directory=directory_of(path))
            raise ProfileError(
                f"{path} has {error}: move it away, then measure again with: {command}"
            ) from error
        except (RowError, RecursionError, ValueError) as error:
            torn = index == last and index > 0 and not isinstance(error, RowError)
            if torn:
                warning = f"{path}: dropped the last line ({index + 1}), which was cut short"
                _log.warning(warning)
                warnings = (warning,)
                break
            reason = error if isinstance(error, RowError) else "not JSON"
            raise ProfileError(f"{path}, line {index + 1}: {reason}") from error
        position += len(line) + 1
    if header is None:
        raise ProfileError(f"the table {path} is empty; delete it and profile again")
    return header, rows, warnings, min(position, len(data))


def _refuse_constant(name: str) -> float:
    raise RowError(f"{name} is not a number")


def _merge(path: Path, header: TableHeader, rows: list[Row], warnings: tuple[str, ...]) -> LookupTable:
    kernels: dict[str, list[KernelRow]] = {}
    networks: dict[str, NetworkRow] = {}
    corrections: dict[Metric, CorrectionRow] = {}
    checks: dict[str, CheckRow] = {}
    for row in rows:
        if isinstance(row, KernelRow):
            kernels.setdefault(row.kernel.key, []).append(row)
        elif isinstance(row, NetworkRow):
            networks[row.name] = row
        elif isinstance(row, CorrectionRow):
            corrections[row.metric] = row
        else:
            checks[row.space] = row
    return LookupTable(
        path=path,
        header=header,
        kernels={key: merge_kernel_rows(same) for key, same in kernels.items()},
        networks=tuple(networks.values()),
        corrections=corrections,
        checks=checks,
        warnings=warnings,
    )


def merge_kernel_rows(rows: list[KernelRow]) -> KernelRow:
    """One row for several timings of one kernel: mean weighted by the number of samples, and the spread."""
    if len(rows) == 1:
        return rows[0]
    total = sum(row.num_samples for row in rows)
    mean = sum(row.latency_ms * row.num_samples for row in rows) / total
    square = sum(
        ((row.latency_ms - mean) ** 2 + (row.latency_ms_std or 0.0) ** 2) * row.num_samples for row in rows
    )
    return replace(rows[-1], latency_ms=mean, num_samples=total, latency_ms_std=math.sqrt(square / total))
