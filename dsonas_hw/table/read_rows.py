"""From lines of a lookup table to their records.

A table is a text file, one JSON object a line. Tables travel between people, so what is read here is not
trusted: every field is checked for type, size and sign (`rows`), and what is derived (key, flops, mac,
params) must agree with the kernel it is written beside.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, Field, Strict, TypeAdapter, ValidationError

from dsonas_hw.errors import first_problem
from dsonas_hw.kernel.spec import Kernel
from dsonas_hw.measure.reference import LARGE_KEY, SMALL_KEY, Speed
from dsonas_hw.table.rows import (
    ESTIMATE,
    SCHEMA_VERSION,
    CheckRow,
    CorrectionRow,
    Count,
    KernelRow,
    NetworkRow,
    NotNegative,
    Row,
    TableHeader,
    Text,
)
from dsonas_hw.target import Target

T = TypeVar("T")
_AtLeastOne = Annotated[Count, Field(ge=1)]
_Shape = Annotated[
    tuple[Annotated[int, Strict(), Field(ge=1, le=2**31)], ...], Field(min_length=1, max_length=8)
]
_Window = Annotated[_Shape, Field(min_length=2, max_length=3)]


class RowError(ValueError):
    """A line that is not what a table holds; the loader adds the file and the line number."""


class SchemaError(RowError):
    """A table of another version's schema."""

    def __init__(self, schema: object, target: Target) -> None:
        super().__init__(f"schema version {str(schema)[:40]!r}; this dsonas-hw reads {SCHEMA_VERSION}")
        self.target = target


class _StoredTarget(BaseModel):
    device: Text
    runtime: Text
    precision: Text
    batch_size: _AtLeastOne
    threads: _AtLeastOne


class _StoredKernel(BaseModel):
    op: Text
    inputs: Annotated[tuple[_Shape, ...], Field(max_length=1_000)]
    output: _Shape
    kernel_size: _Window = (1, 1)
    stride: _Window = (1, 1)
    dilation: _Window = (1, 1)
    groups: _AtLeastOne = 1
    num_weights: Count = 0
    num_bias: Count = 0
    function: Text = ""
    epilogue: Annotated[tuple[Text, ...], Field(max_length=16)] = ()


_TARGET = TypeAdapter(_StoredTarget)
_KERNEL = TypeAdapter(_StoredKernel)
_SPEED: TypeAdapter[Any] = TypeAdapter(dict[str, NotNegative | None])
_HEADER = TypeAdapter(TableHeader)
_KERNEL_ROW = TypeAdapter(KernelRow)
_OTHERS: dict[object, TypeAdapter[Any]] = {
    kind.row: TypeAdapter(kind) for kind in (NetworkRow, CorrectionRow, CheckRow)
}


def header_from_json(values: Any) -> TableHeader:
    """Check and build the first line of a table."""
    if not isinstance(values, dict) or values.get("row") != TableHeader.row:
        raise RowError("the first line is not the header of a lookup table")
    target = Target(**_checked(_TARGET, values).model_dump())
    if (schema := values.get("schema")) != SCHEMA_VERSION:
        raise SchemaError(schema, target)
    return _checked(_HEADER, {**values, "target": target})


def row_from_json(values: Any) -> Row:
    """Check and build any line but the first."""
    if not isinstance(values, dict):
        raise RowError("not a JSON object")
    kind = values.get("row")
    if kind == KernelRow.row:
        return _kernel_row(values)
    if not isinstance(kind, str) or kind not in _OTHERS:
        raise RowError(f"unknown kind of row {str(kind)[:40]!r}")
    if kind == CheckRow.row:
        values = {**values, "error": values}
    if kind == NetworkRow.row:
        speed = {key: values.get(key) for key in (SMALL_KEY, LARGE_KEY)}
        values = {**values, "speed": Speed.from_values(_checked(_SPEED, speed))}
    row: Row = _checked(_OTHERS[kind], values)
    return row


def _kernel_row(values: Mapping[str, Any]) -> KernelRow:
    try:
        kernel = Kernel(**_checked(_KERNEL, values).model_dump())
    except ValueError as error:  # no such operation
        raise RowError(str(error)[:200]) from None
    if values.get("key") != kernel.key:
        raise RowError(f"key {str(values.get('key'))[:120]!r} does not belong to the shapes beside it")
    if values.get("source") == "estimated":
        values = {**values, "statistic": ESTIMATE}
    else:
        for name in ("flops", "mac", "params"):
            if values.get(name) != getattr(kernel, name):
                raise RowError(
                    f"{name} {str(values.get(name))[:40]!r} does not follow from the shapes beside it"
                )
    return _checked(_KERNEL_ROW, {**values, "kernel": kernel})


def _checked(adapter: TypeAdapter[T], values: Mapping[str, Any]) -> T:
    try:
        return adapter.validate_python(values)
    except ValidationError as error:
        raise RowError(first_problem(error)[:200]) from None
