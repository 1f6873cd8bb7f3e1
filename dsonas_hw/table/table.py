"""Lookup tables on disk: `profiles/<device>/<runtime>-<precision>-b<batch>.jsonl`.

A header line, then one line per kernel, plus the whole networks timed, the correction fitted on them and
the checks. A torn last line, which a profile that was killed leaves behind (`writer`), is dropped with a
warning; damage anywhere else is an error that names the line.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path

from dsonas_hw.budget import Metric
from dsonas_hw.errors import ProfileError, RunError
from dsonas_hw.files import atomic_write, read_regular
from dsonas_hw.kernel.spec import Kernel
from dsonas_hw.measure.reference import Speed
from dsonas_hw.table.commands import directory_of, profile_command
from dsonas_hw.table.read_rows import RowError, SchemaError, header_from_json, row_from_json
from dsonas_hw.table.rows import (
    CheckRow,
    CorrectionRow,
    KernelRow,
    NetworkRow,
    Row,
    TableHeader,
)
from dsonas_hw.target import Target

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

    @cached_property
    def usual_speed(self) -> Speed | None:
        """Of the machine: the median while it was profiled; None: no reference workloads ran."""
        unit = Speed.from_values(self.header.clocks)
        return unit and Speed.usual(network.speed or unit for network in self.networks)

    def usual_latency_ms(self, network: NetworkRow) -> float:
        """The latency of one of the networks at the usual speed."""
        unit, usual = Speed.from_values(self.header.clocks), self.usual_speed
        factor = usual.relative_time(unit, network.latency_ms) if usual and unit else 1.0
        return network.latency_ms * factor

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
    header, rows, warnings, _ = read_rows_of(path)
    return merge_rows(path, header, rows, warnings)


def save_table(path: Path, header: TableHeader, rows: Iterable[Row]) -> None:
    """Write a whole table at once (temporary file, sync, rename).

    Raises:
        ProfileError: it cannot be written; what was there before is untouched.
    """
    try:
        with atomic_write(path) as file:
            for row in (header, *rows):
                file.write(encode_row(row))
    except RunError as error:
        raise ProfileError(f"cannot write the table: {error}") from None


def encode_row(row: Row | TableHeader) -> bytes:
    """The line of the file."""
    return (json.dumps(row.to_json(), ensure_ascii=False, allow_nan=False) + "\n").encode()


def read_rows_of(path: Path) -> tuple[TableHeader, list[Row], tuple[str, ...], int]:
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


def merge_rows(path: Path, header: TableHeader, rows: list[Row], warnings: tuple[str, ...]) -> LookupTable:
    """The table that these lines make."""
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
