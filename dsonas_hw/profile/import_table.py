"""Import a table of operators that somebody else measured (kernel shapes and milliseconds) as a profile.

A CSV with one convolution a row: `batch, cin, hin, win, cout, k, stride, latency_ms`, and where they differ
from the usual `groups` (or `conv_type` = Depthwise), `elmt_fused` = 1 (an addition is fused) and `precision`.
Rows of another batch size or precision than asked for are passed over. The rows are marked `imported`, and so
is every prediction that comes from them; its interval is what cross-validation over the rows gives.
"""

from __future__ import annotations

import gzip
import io
import math
import random
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dsonas_hw.cost.kernel_costs import KernelCosts
from dsonas_hw.cost.kernel_fit import fit_categories
from dsonas_hw.cost.network_costs import correction_values
from dsonas_hw.device.spec import load_device
from dsonas_hw.errors import ProfileError
from dsonas_hw.estimate.calibrate_check import MeasuredNetwork, check_unit_of_all
from dsonas_hw.estimate.estimate import load_estimate
from dsonas_hw.files import read_regular
from dsonas_hw.kernel.spec import Kernel
from dsonas_hw.table.csv_file import positive_number, read_rows, whole_number
from dsonas_hw.table.rows import CorrectionRow, KernelRow, TableHeader
from dsonas_hw.table.table import now_utc, save_table, table_path
from dsonas_hw.target import Target

REQUIRED = ("batch", "cin", "hin", "win", "cout", "k", "stride", "latency_ms")
OPTIONAL = ("groups", "conv_type", "elmt_fused", "precision")
MIN_ROWS, MAX_ROWS = 20, 20_000
_NUM_FOLDS = 5
_MAX_BYTES = 1 << 26
_LARGEST = 2**31 - 1


@dataclass(frozen=True, kw_only=True)
class ImportedTable:
    """What became of a CSV."""

    path: Path
    num_rows: int
    num_passed_over: int
    mape: float
    """Cross-validated mean absolute relative error of a row that the others predict."""


def import_table(
    source: Path,
    target: Target,
    directory: Path,
) -> ImportedTable:
    """Read, check and write `<directory>/<device>/<runtime>-<precision>-b<batch>.jsonl`.

    Raises:
        DeviceError: no such device.
        ProfileError: a column is missing, a value makes no sense, the times are in another unit, too few rows
            are left, or a measured table is in the way.
    """
    found = load_device(target.device)
    target = replace(target, device=found.name)
    path = table_path(directory, target)
    if path.exists():
        raise ProfileError(f"{path} exists; move it away before importing another table in its place")
    rows: list[KernelRow] = []
    num_passed_over = 0
    for row in _read(source, target.precision, target.batch_size):
        if row is None:
            num_passed_over += 1
        else:
            rows.append(row)
    if not MIN_ROWS <= len(rows) <= MAX_ROWS:
        raise ProfileError(
            f"{source} has {len(rows)} rows of {target.precision} at batch {target.batch_size} "
            f"({num_passed_over} others); an import takes {MIN_ROWS} to {MAX_ROWS}"
        )
    _check_unit(rows, target)
    header = TableHeader(
        target=target,
        fingerprint=found.fingerprint,
        source="imported",
        created=now_utc(),
        settings={"imported_from": source.name, "device_title": found.title},
    )
    errors = cross_validate(rows)
    save_table(path, header, [*rows, _correction(rows, errors)])
    return ImportedTable(
        path=path,
        num_rows=len(rows),
        num_passed_over=num_passed_over,
        mape=float(np.mean(np.abs(np.expm1(-errors)))),
    )


def _check_unit(rows: Sequence[KernelRow], target: Target) -> None:
    """Refuse a table in another unit than milliseconds per batch: an estimate is never that far off.

    Raises:
        ProfileError: names the unit that the numbers look like.
    """
    model = load_estimate(target)
    some = rows[:: max(1, len(rows) // 200)]
    measured = [
        MeasuredNetwork(
            name=row.kernel.key,
            kernels=[row.kernel],
            batch_size=target.batch_size,
            latency_ms=row.latency_ms,
        )
        for row in some
    ]
    check_unit_of_all(measured, np.array([gpu_ms for gpu_ms, _ in model.times([r.kernel for r in some])]))


def cross_validate(rows: list[KernelRow]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """log(measured / predicted by the rows of other folds) of every row that the others can predict."""
    fits = fit_categories(rows)
    order = list(range(len(rows)))
    random.Random(0).shuffle(order)
    errors = []
    for fold in range(_NUM_FOLDS):
        held = order[fold::_NUM_FOLDS]
        kept = [rows[i] for i in sorted(set(order) - set(held))]
        costs = KernelCosts(fit_categories(kept, like=fits), kept)
        costs.add(rows[i].kernel for i in held[:200])
        errors += [
            math.log(rows[i].latency_ms / costs.latency_ms(rows[i].kernel))
            for i in held[:200]
            if costs.knows(rows[i].kernel)
        ]
    return np.array(errors or [0.0])


def _correction(rows: list[KernelRow], errors: np.ndarray[tuple[int], np.dtype[np.float64]]) -> CorrectionRow:
    half_width = max(float(np.quantile(np.abs(errors), 0.9)), 0.01)
    return CorrectionRow(values=correction_values(fit_categories(rows), interval=half_width))


def _read(source: Path, precision: str, batch_size: int) -> Iterator[KernelRow | None]:
    """Rows of the CSV; None for one of another precision or batch size."""
    try:
        rows = read_rows(_read_text(source), source, required=REQUIRED, optional=OPTIONAL)
        for line, values in rows:
            if values.get("precision") not in (None, precision):
                yield None
                continue
            try:
                row = _row(values, batch_size)
            except (TypeError, ValueError) as error:
                raise ProfileError(f"{source}, line {line}: {error}") from error
            yield row
    except OSError as error:
        raise ProfileError(f"cannot read the table {source}: {error.strerror or error}") from error
    except (UnicodeDecodeError, EOFError, zlib.error) as error:
        raise ProfileError(f"{source} is not a CSV file in UTF-8: {error}") from error


def _read_text(source: Path) -> str:
    """The text of a file, unpacked if its name ends with .gz."""
    data = read_regular(source, max_bytes=_MAX_BYTES)
    if source.suffix == ".gz":
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            data = file.read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            raise ProfileError(f"{source} holds more than {_MAX_BYTES >> 20} MiB of text")
    return data.decode("utf-8-sig")


def _row(values: Mapping[str, str], batch_size: int) -> KernelRow | None:
    numbers = {name: whole_number(values[name], name, most=_LARGEST) for name in REQUIRED[:-1]}
    if numbers["batch"] != batch_size:
        return None
    latency_ms = positive_number(values["latency_ms"], "latency_ms")
    n, cin, h, w, cout, k, stride = (numbers[name] for name in REQUIRED[:-1])
    depthwise = (values.get("conv_type") or "").lower().startswith("depthwise")
    groups = cin if depthwise else whole_number(values.get("groups") or "1", "groups", most=_LARGEST)
    cout = cin if depthwise else cout
    if cin % groups or cout % groups:
        raise ValueError(f"{groups} groups do not divide {cin} and {cout} channels")
    pad = k // 2
    output = (n, cout, (h + 2 * pad - k) // stride + 1, (w + 2 * pad - k) // stride + 1)
    fused = values.get("elmt_fused") == "1"
    kernel = Kernel(
        op="conv",
        inputs=((n, cin, h, w), output) if fused else ((n, cin, h, w),),
        output=output,
        kernel_size=(k, k),
        stride=(stride, stride),
        groups=groups,
        num_weights=cout * (cin // groups) * k * k,
        num_bias=cout,
        epilogue=("add",) if fused else (),
    )
    return KernelRow(kernel=kernel, latency_ms=latency_ms, source="imported", statistic="imported")
