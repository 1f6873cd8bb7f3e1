"""A CSV that somebody brings: commas between values, a point in numbers, and only columns that are known.

Whatever else a spreadsheet writes (semicolons, tabs, decimal commas, a column more) is refused with the line
and the name: guessing would read 4,9 ms as 4 ms.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from dsonas_hw.errors import ProfileError, closest

SEPARATORS = {";": "semicolons (;)", "\t": "tabs", "|": "bars (|)"}
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def read_rows(
    text: str,
    path: Path,
    *,
    required: Sequence[str],
    optional: Collection[str] = (),
    aliases: Mapping[str, str] | None = None,
    hints: Mapping[str, str] | None = None,
) -> Iterator[tuple[int, dict[str, str]]]:
    """(line, column → value) of every row; values are stripped.

    aliases: other names of columns. hints: what to say of a column that may be meant for a required one.

    Raises:
        ProfileError: a column is missing, unknown or doubled, a row has more or fewer values than columns, or
            a quote is not closed.
    """
    rows = _split(text, path)
    header = _without_empty_tail([name.strip().lower() for name in next(rows, (0, []))[1]])
    names = [(aliases or {}).get(name, name) for name in header]
    _check_header(path, header, names, required, optional, hints or {})
    for line, values in rows:
        if not any(value.strip() for value in values):
            continue
        if len(values) > len(names):
            values = [*values[: len(names)], *_without_empty_tail(values[len(names) :])]
        if len(values) != len(names):
            raise ProfileError(_wrong_number(path, line, values, names))
        yield line, {name: value.strip() for name, value in zip(names, values, strict=True)}


def _split(text: str, path: Path) -> Iterator[tuple[int, list[str]]]:
    """(line, values) of every row."""
    reader = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            yield line, next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            reason = 'a quote (") is never closed' if "unexpected end" in str(error) else str(error)
            raise ProfileError(f"{path}, line {line}: {reason}") from None


def _without_empty_tail(values: list[str]) -> list[str]:
    while values and not values[-1].strip():
        values = values[:-1]
    return values


def _check_header(
    path: Path,
    header: list[str],
    names: list[str],
    required: Sequence[str],
    optional: Collection[str],
    hints: Mapping[str, str],
) -> None:
    if len(header) == 1:
        for separator, called in SEPARATORS.items():
            if separator in header[0]:
                raise ProfileError(
                    f"{path}, line 1: the values are separated by {called}; separate them by commas, and "
                    "write numbers with a point (4.9)"
                )
    missing = [name for name in required if name not in names]
    if missing:
        found = next((name for name in header if name in hints), None)
        hint = f"; {found!r} is {hints[found]}" if found else ""
        raise ProfileError(
            f"{path} lacks the column{'s' if len(missing) > 1 else ''} {', '.join(missing)}{hint}. "
            f"Its first line should read: {','.join(required)}"
        )
    for position, (given, name) in enumerate(zip(header, names, strict=True)):
        if name in names[:position]:
            other = header[names.index(name)]
            both = repr(given) if given == other else f"{other!r} and {given!r}"
            raise ProfileError(f"{path}, line 1: the column {name} is there twice ({both}); keep one")
        if name not in required and name not in optional:
            known = [*required, *optional]
            raise ProfileError(
                f"{path}, line 1: the column {given!r} is not known; remove it. {closest(given, known)}"
            )


def _wrong_number(path: Path, line: int, values: list[str], names: list[str]) -> str:
    """What to say of a row with more or fewer values than columns."""
    start = f"{path}, line {line}: {len(values)} values, {len(names)} columns"
    if len(values) > len(names):
        pairs = pairwise(values)
        pair = next((p for p in reversed(list(pairs)) if all(v.strip().isdigit() for v in p)), None)
        if pair:
            left, right = (part.strip() for part in pair)
            return f"{start}; if {left},{right} is one number, write {left}.{right}"
        return f"{start}; remove {', '.join(repr(v.strip()) for v in values[len(names) :][:3])}"
    separator = next((called for s, called in SEPARATORS.items() if any(s in v for v in values)), None)
    return f"{start}; separate the values by commas, not by {separator}" if separator else start


def positive_number(text: str, name: str) -> float:
    """A finite number above 0.

    Raises:
        ValueError: it is none; says how it looks.
    """
    value = float(text) if NUMBER.fullmatch(text) else math.nan
    if math.isfinite(value) and value > 0:
        return value
    hint = f"; write {text.replace(',', '.')}" if re.fullmatch(r"\d+,\d+", text) else ""
    raise ValueError(f"{name} must be a positive number, not {text!r}{hint}")


def whole_number(text: str, name: str, *, most: int) -> int:
    """A whole number from 1 to `most`, which may be written as 4.0 or 1e2.

    Raises:
        ValueError: it is none, or too large.
    """
    value = positive_number(text, name)
    if value > most:
        raise ValueError(f"{name} is at most {most:,}, not {text}")
    if value != int(value):
        raise ValueError(f"{name} must be a whole number, not {text}")
    return int(value)
