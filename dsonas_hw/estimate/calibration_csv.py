"""The measurements a user brings: a CSV of model files, batch sizes and latencies."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from dsonas_hw.errors import ModelFileError, ProfileError
from dsonas_hw.estimate.calibrate import MAX_ROWS, MIN_ROWS
from dsonas_hw.estimate.calibrate_check import MeasuredNetwork
from dsonas_hw.files import read_regular
from dsonas_hw.kernel.onnx.from_onnx import OnnxNetwork
from dsonas_hw.kernel.recurrent import unrolled
from dsonas_hw.table.csv_file import positive_number, read_rows, whole_number

COLUMNS = ("model", "batch_size", "latency_ms")
_ALIASES = {"model_path": "model", "path": "model", "onnx": "model", "batch": "batch_size"}
_OTHER_UNITS = {
    "latency_s": "seconds",
    "latency_us": "microseconds",
    "latency": "an unknown unit",
    "ms": "ms",
}
_MAX_BYTES = 1 << 20

Reader = Callable[[Path, int], OnnxNetwork]


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
        ProfileError: a column is missing or unknown, a value is not a positive number, or there are too few
            or too many rows; names the line.
    """
    try:
        text = read_regular(path, max_bytes=_MAX_BYTES).decode("utf-8-sig")
        rows = list(_rows(text, path))
    except OSError as error:
        raise ProfileError(f"cannot read the measurements {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ProfileError(f"{path} is not a CSV file in UTF-8, save it as one: {error}") from error
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
        ProfileError: what is unknown of a model may take much of its time; names the line.
    """
    seen: dict[tuple[Path, int], OnnxNetwork] = {}
    networks = []
    for index, row in enumerate(rows):
        progress(index, len(rows), row.model.name)
        key = (row.model, row.batch_size)
        if key not in seen:
            try:
                seen[key] = read(*key)
            except ModelFileError as error:
                raise ModelFileError(f"line {row.line}: {error}") from error
        found = seen[key]
        if not found.is_known:
            some = ", ".join(found.unknown[:3]) + (", …" if len(found.unknown) > 3 else "")
            raise ProfileError(
                f"line {row.line}: operations of {row.model} are unknown ({some}) and may take much of its "
                "time, so its latency says nothing about the kernels that are known"
            )
        networks.append(
            MeasuredNetwork(
                name=f"{row.model.name} (line {row.line})",
                kernels=unrolled(found.kernels),
                batch_size=row.batch_size,
                latency_ms=row.latency_ms,
            )
        )
    return networks


def _rows(text: str, path: Path) -> Iterator[CalibrationRow]:
    hints = {name: f"{unit}: give latency_ms in milliseconds" for name, unit in _OTHER_UNITS.items()}
    for line, values in read_rows(text, path, required=COLUMNS, aliases=_ALIASES, hints=hints):
        if not values["model"]:
            raise ProfileError(f"{path}, line {line}: no model")
        try:
            batch_size = whole_number(values["batch_size"], "batch_size", most=1_000_000)
            latency_ms = positive_number(values["latency_ms"], "latency_ms")
        except ValueError as error:
            raise ProfileError(f"{path}, line {line}: {error}") from None
        yield CalibrationRow(
            line=line,
            model=path.parent / Path(values["model"]).expanduser(),
            batch_size=batch_size,
            latency_ms=latency_ms,
        )
