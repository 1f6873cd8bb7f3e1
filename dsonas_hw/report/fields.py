"""Reading files that may come from anyone: types of fields, and lines; what does not fit is not known."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator, ValidationError

from dsonas_hw.budget import QUANTITIES, VERDICTS, Verdict
from dsonas_hw.errors import UserError
from dsonas_hw.files import read_json_lines
from dsonas_hw.report.numbers import COST_LABELS, finite

T = TypeVar("T")
MAX_TEXT = 500
DAMAGE = (UserError, KeyError, TypeError, ValueError, AttributeError, ArithmeticError)
"""What reading a file from anyone may raise."""


def _known(value: object) -> float:
    if (number := finite(value)) is None:
        raise ValueError("not a number")
    return number


def fraction(value: object) -> float | None:
    """A number from 0 to 1; None for anything else."""
    number = finite(value)
    return number if number is not None and 0 <= number <= 1 else None


def _numbers(value: Any) -> dict[str, float]:
    return {text(k): number for k, v in (value or {}).items() if (number := finite(v)) is not None}


def _costs(value: Mapping[str, Any] | None) -> dict[str, float]:
    return {name: cost for name, cost in _numbers(value).items() if name in COST_LABELS}


def _samples(value: object) -> tuple[float, ...]:
    found = map(finite, value) if isinstance(value, list) else ()
    return tuple(number for number in found if number is not None)


def _budget_name(value: object) -> str:
    if value not in QUANTITIES:
        raise ValueError(f"unknown budget {text(value)!r}")
    return str(value)


def text(value: object) -> str:
    """Anything as text of bounded length; nothing as none."""
    return str(value or "")[:MAX_TEXT]


def texts(value: object) -> dict[str, str]:
    """Names and texts; nothing for anything else."""
    return {text(k): text(v) for k, v in value.items()} if isinstance(value, dict) else {}


def _lines(value: object) -> tuple[str, ...]:
    return tuple(map(text, value)) if isinstance(value, list) else ()


Known = Annotated[float, BeforeValidator(_known)]
Number = Annotated[float | None, BeforeValidator(finite)]
Fraction = Annotated[float | None, BeforeValidator(fraction)]
Numbers = Annotated[dict[str, float], BeforeValidator(_numbers)]
Costs = Annotated[dict[str, float], BeforeValidator(_costs)]
Samples = Annotated[tuple[float, ...], BeforeValidator(_samples)]
BudgetName = Annotated[str, BeforeValidator(_budget_name)]
Answer = Annotated[Verdict | None, BeforeValidator(lambda value: value if value in VERDICTS else None)]
Text = Annotated[str, BeforeValidator(text)]
Texts = Annotated[dict[str, str], BeforeValidator(texts)]
Lines = Annotated[tuple[str, ...], BeforeValidator(_lines)]


def first_error(error: Exception) -> str:
    """What is wrong, in a line."""
    if not isinstance(error, ValidationError):
        return text(error)
    first = error.errors()[0]
    return text(f"{'.'.join(map(str, first['loc']))}: {first['msg']}")


def read_log(path: Path, notes: list[str], *, without: str = "") -> list[dict[str, Any]]:
    """The lines of a log; none, and a note, where it is damaged, or (`without`) empty or not there."""
    try:
        rows = read_json_lines(path)
    except UserError as error:
        notes.append(f"{error}.")
        return []
    if not rows and without:
        notes.append(f"{without} (there is no {path.name}).")
    return rows


def read_each(
    rows: Sequence[dict[str, Any]], read: Callable[[dict[str, Any]], T], notes: list[str], what: str
) -> tuple[T, ...]:
    """Every row that can be read; the others are counted in a note."""
    found = []
    for row in rows:
        with suppress(*DAMAGE):
            found.append(read(row))
    if num_bad := len(rows) - len(found):
        notes.append(f"{num_bad} {what} and are left out.")
    return tuple(found)
