"""The measurements a user brings: a CSV of model files, batch sizes and latencies."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from dsonas_hw.errors import ProfileError
from dsonas_hw.files import read_regular
from dsonas_hw.kernel.network import NetworkKernels
from dsonas_hw.profile.calibrate import MAX_ROWS, MIN_ROWS
from dsonas_hw.profile.calibrate_check import MeasuredNetwork

COLUMNS = ("model", "batch_size", "latency_ms")
_ALIASES = {"model_path": "model", "path": "model", "onnx": "model", "batch": "batch_size"}
_OTHER_UNITS = {
    "latency_s": "seconds",
    "latency_us": "microseconds",
    "latency": "an unknown unit",
    "ms": "ms",
}
_MAX_BYTES = 1 << 20

Reader = Callable[[Path, int], NetworkKernels]


@dataclass(frozen=True, kw_only=True)
class CalibrationRow:
    """One line of the file, checked; the model is not opened yet."""

    line: int
    model: Path
    batch_size: int
    latency_ms: float


def read_calibration_rows(path: Path) -> list[CalibrationRow]:
    """Read `model,batch_size,latency_ms`; relative model paths start at the CSV's folder.

    Raises:
        ProfileError: a column is missing, a value is not a positive number, or there are too few or too many
            rows; names the line.
    """
    try:
        text = read_regular(path, max_bytes=_MAX_BYTES).decode("utf-8-sig")
        rows = list(_rows(csv.reader(io.StringIO(text, newline=""), skipinitialspace=True), path))
    except OSError as error:
        raise ProfileError(f"cannot read the measurements {path}: {error.strerror or error}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise ProfileError(f"{path} is not a CSV file in UTF-8: {error}") from error
    if not MIN_ROWS <= len(rows) <= MAX_ROWS:
        raise ProfileError(
            f"{path} has {len(rows)} measured networks; a calibration takes {MIN_ROWS} to {MAX_ROWS}"
        )
    return rows


def load_networks(
    rows: list[CalibrationRow],
    read: Reader,
    progress: Callable[[int, int, str], None] = lambda done, total, text: None,
) -> list[MeasuredNetwork]:
    """The kernels of every row's model; `read(path, batch_size)` is called once per model and batch size.

    progress: called with (rows read, rows, model) before every row.

    Raises:
        ModelFileError: a model cannot be read.
        ProfileError: most of a model's kernels are unknown.
    """
    seen: dict[tuple[Path, int], NetworkKernels] = {}
    networks = []
    for index, row in enumerate(rows):
        progress(index, len(rows), row.model.name)
        key = (row.model, row.batch_size)
        if key not in seen:
            seen[key] = read(*key)
        found = seen[key]
        if len(found.unknown) >= max(1, len(found.kernels)):
            raise ProfileError(
                f"line {row.line}: most of {row.model} is unknown ({', '.join(found.unknown[:3])}, …), so "
                f"its latency says nothing about the kernels that are known"
            )
        networks.append(
            MeasuredNetwork(
                name=f"{row.model.name} (line {row.line})",
                kernels=found.kernels,
                batch_size=row.batch_size,
                latency_ms=row.latency_ms,
            )
        )
    return networks


def _rows(reader: Iterator[list[str]], path: Path) -> Iterator[CalibrationRow]:
    header = [name.strip().lower() for name in next(reader, [])]
    names = [_ALIASES.get(name, name) for name in header]
    missing = [name for name in COLUMNS if name not in names]
    if missing:
        hint = ""
        if "latency_ms" in missing:
            other = next((name for name in header if name in _OTHER_UNITS), None)
            hint = f"; {other!r} is {_OTHER_UNITS[other]}: give latency_ms in milliseconds" if other else ""
        raise ProfileError(
            f"{path} lacks the column{'s' if len(missing) > 1 else ''} {', '.join(missing)}{hint}. "
            f"Its first line should read: {','.join(COLUMNS)}"
        )
    places = {name: names.index(name) for name in COLUMNS}
    for line, values in enumerate(reader, start=2):
        if not any(value.strip() for value in values):
            continue
        if len(values) < len(header):
            raise ProfileError(f"{path}, line {line}: {len(values)} values, {len(header)} columns")
        model = values[places["model"]].strip()
        if not model:
            raise ProfileError(f"{path}, line {line}: no model")
        batch = _number(values[places["batch_size"]], "batch_size", path, line)
        if batch != int(batch) or batch > 1_000_000:
            raise ProfileError(f"{path}, line {line}: batch_size must be a whole number, not {batch:g}")
        yield CalibrationRow(
            line=line,
            model=path.parent / Path(model).expanduser(),
            batch_size=int(batch),
            latency_ms=_number(values[places["latency_ms"]], "latency_ms", path, line),
        )


def _number(text: str, name: str, path: Path, line: int) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise ProfileError(f"{path}, line {line}: {name} must be a positive number, not {text.strip()!r}")
    return value
