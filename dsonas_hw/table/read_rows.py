"""From lines of a lookup table to their dataclasses.

A table is a text file, one JSON object a line. Tables travel between people, so what is read here is not
trusted: every field is checked for type, size and sign, and what is derived (key, flops, mac, params) must
agree with the kernel it is written beside.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeVar

from dsonas_hw.budget import METRICS
from dsonas_hw.kernel.spec import KINDS, RECURRENT_GATES, Kernel, Shape
from dsonas_hw.measure.reference import LARGE_KEY, SMALL_KEY, Speed
from dsonas_hw.table.rows import (
    ESTIMATE,
    SCHEMA_VERSION,
    SOURCES,
    Anchor,
    CheckRow,
    CorrectionRow,
    ErrorSummary,
    KernelRow,
    NetworkRow,
    Row,
    Scalar,
    TableHeader,
)
from dsonas_hw.target import Target

MAX_TEXT = 2_000
MAX_ITEMS = 20_000
MAX_REMARKS = 50
MAX_DIMENSION = 2**31

Word = TypeVar("Word", bound=str)


class RowError(ValueError):
    """A line that is not what a table holds; the loader adds the file and the line number."""


class SchemaError(RowError):
    """A table of another version's schema."""

    def __init__(self, schema: object, target: Target) -> None:
        super().__init__(f"schema version {str(schema)[:40]!r}; this dsonas-hw reads {SCHEMA_VERSION}")
        self.target = target


def header_from_json(values: Any) -> TableHeader:
    """Check and build the first line of a table."""
    if not isinstance(values, dict) or values.get("row") != "header":
        raise RowError("the first line is not the header of a lookup table")
    target = Target(
        device=_text(values, "device"),
        runtime=_text(values, "runtime"),
        precision=_text(values, "precision"),
        batch_size=_count(values, "batch_size", minimum=1),
        threads=_count(values, "threads", minimum=1),
    )
    if (schema := values.get("schema")) != SCHEMA_VERSION:
        raise SchemaError(schema, target)
    return TableHeader(
        target=target,
        fingerprint=_text(values, "fingerprint"),
        source=_one_of(values, "source", SOURCES),
        created=_text(values, "created"),
        versions={name: str(value) for name, value in _scalars(values, "versions").items()},
        clocks=_scalars(values, "clocks"),
        settings=_scalars(values, "settings"),
    )


def row_from_json(values: Any) -> Row:
    """Check and build any line but the first."""
    if not isinstance(values, dict):
        raise RowError("not a JSON object")
    match values.get("row"):
        case "kernel":
            return _kernel_row(values)
        case "network":
            counts = _mapping(values, "kernels")
            return NetworkRow(
                name=_text(values, "name"),
                latency_ms=_positive(values, "latency_ms"),
                energy_mj=_optional(values, "energy_mj", minimum=0.0),
                flops=_count(values, "flops", default=0),
                relative_noise=_optional(values, "relative_noise", minimum=0.0),
                in_situ_ms=_optional(values, "in_situ_ms", minimum=0.0),
                speed=_speed(values),
                remarks=_texts(values, "remarks"),
                kernels={_short(key, "kernels"): _count(counts, key, minimum=1) for key in counts},
            )
        case "correction":
            numbers = _mapping(values, "values")
            return CorrectionRow(
                metric=_one_of(values, "metric", METRICS),
                values={_short(name, "values"): _number(numbers, name) for name in numbers},
                anchors=_anchors(values),
            )
        case "check":
            baselines = _mapping(values, "baselines")
            return CheckRow(
                space=_text(values, "space"),
                num_networks=_count(values, "num_networks", minimum=1),
                error=_error_summary(values),
                interval_coverage=_optional(values, "interval_coverage", minimum=0.0),
                baselines={
                    _short(name, "baselines"): _error_summary(_mapping(baselines, name)) for name in baselines
                },
                relative_speed=_optional(values, "relative_speed", minimum=0.0),
                raw_error=_optional_summary(values, "raw_error"),
                energy_error=_optional_summary(values, "energy_error"),
                created=_text(values, "created"),
            )
        case other:
            raise RowError(f"unknown kind of row {str(other)[:40]!r}")


def _kernel_row(values: Mapping[str, Any]) -> KernelRow:
    kernel = _kernel(values)
    if values.get("key") != kernel.key:
        raise RowError(f"key {str(values.get('key'))[:120]!r} does not belong to the shapes beside it")
    source = _one_of(values, "source", SOURCES)
    if source == "estimated":
        return KernelRow(
            kernel=kernel, latency_ms=_positive(values, "latency_ms"), source=source, statistic=ESTIMATE
        )
    for name in ("flops", "mac", "params"):
        if values.get(name) != getattr(kernel, name):
            raise RowError(f"{name} {values.get(name)!r} does not follow from the shapes beside it")
    return KernelRow(
        kernel=kernel,
        latency_ms=_positive(values, "latency_ms"),
        source=source,
        num_samples=_count(values, "num_samples", minimum=1),
        statistic=_text(values, "statistic"),
        latency_ms_std=_optional(values, "latency_ms_std", minimum=0.0),
        energy_mj=_optional(values, "energy_mj", minimum=0.0),
    )


def _kernel(values: Mapping[str, Any]) -> Kernel:
    op = _text(values, "op")
    if op not in KINDS:
        raise RowError(f"unknown kernel op {op[:40]!r}")
    function = _text(values, "function", default="")
    if op == "rnn" and function not in RECURRENT_GATES:
        raise RowError(f"unknown recurrent layer {function[:40]!r}")
    inputs = values.get("inputs")
    if not isinstance(inputs, list) or len(inputs) > 1_000:
        raise RowError("inputs is not a list of shapes")
    epilogue = values.get("epilogue", [])
    if not isinstance(epilogue, list) or len(epilogue) > 16:
        raise RowError("epilogue is not a short list of names")
    return Kernel(
        op=op,
        inputs=tuple(_shape(shape, "inputs") for shape in inputs),
        output=_shape(values.get("output"), "output"),
        kernel_size=_window(values, "kernel_size"),
        stride=_window(values, "stride"),
        dilation=_window(values, "dilation"),
        groups=_count(values, "groups", minimum=1, default=1),
        num_weights=_count(values, "num_weights", default=0),
        num_bias=_count(values, "num_bias", default=0),
        function=function,
        epilogue=tuple(_short(name, "epilogue") for name in epilogue),
    )


def _error_summary(values: Mapping[str, Any]) -> ErrorSummary:
    return ErrorSummary(
        mape=_number(values, "mape", minimum=0.0),
        share_within_10=_number(values, "share_within_10", minimum=0.0),
        kendall_tau=_optional(values, "kendall_tau", minimum=-1.0),
    )


def _optional_summary(values: Mapping[str, Any], name: str) -> ErrorSummary | None:
    return None if values.get(name) is None else _error_summary(_mapping(values, name))


def _shape(value: Any, name: str) -> Shape:
    if not isinstance(value, list) or not 1 <= len(value) <= 8:
        raise RowError(f"{name} holds {str(value)[:60]!r}, which is not a shape")
    return tuple(_integer(size, name, minimum=1, maximum=MAX_DIMENSION) for size in value)


def _window(values: Mapping[str, Any], name: str) -> Shape:
    shape = _shape(values.get(name, [1, 1]), name)
    if len(shape) not in (2, 3):
        raise RowError(f"{name} {list(shape)!r} is neither of an image nor of a volume")
    return shape


def _integer(value: Any, name: str, *, minimum: int, maximum: int = 2**62) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not minimum <= value <= maximum:
        raise RowError(f"{name} is {str(value)[:40]!r}, not a whole number from {minimum}")
    return value


def _count(values: Mapping[str, Any], name: str, *, minimum: int = 0, default: int | None = None) -> int:
    return _integer(values.get(name, default), name, minimum=minimum)


def _number(values: Mapping[str, Any], name: str, *, minimum: float | None = None) -> float:
    value = values.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RowError(f"{name} is {str(value)[:40]!r}, not a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number) or (minimum is not None and number < minimum):
        raise RowError(f"{name} is {str(value)[:40]}, which is not possible")
    return number


def _positive(values: Mapping[str, Any], name: str) -> float:
    number = _number(values, name)
    if number <= 0:
        raise RowError(f"{name} is {number}; a time is positive")
    return number


def _optional(values: Mapping[str, Any], name: str, *, minimum: float) -> float | None:
    return None if values.get(name) is None else _number(values, name, minimum=minimum)


def _text(values: Mapping[str, Any], name: str, *, default: str | None = None) -> str:
    return _short(values.get(name, default), name)


def _short(value: Any, name: str) -> str:
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        raise RowError(f"{name} is {str(value)[:40]!r}, not a short text")
    return value


def _texts(values: Mapping[str, Any], name: str) -> tuple[str, ...]:
    found = values.get(name, [])
    if not isinstance(found, list) or len(found) > MAX_REMARKS:
        raise RowError(f"{name} is {str(found)[:40]!r}, not a list of at most {MAX_REMARKS} texts")
    return tuple(_short(text, name) for text in found)


def _one_of(values: Mapping[str, Any], name: str, known: tuple[Word, ...]) -> Word:
    value = values.get(name)
    for word in known:
        if value == word:
            return word
    raise RowError(f"{name} is {str(value)[:40]!r}, not one of {', '.join(known)}")


def _mapping(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = values.get(name, {})
    if not isinstance(value, dict) or len(value) > MAX_ITEMS:
        raise RowError(f"{name} is not a small JSON object")
    return value


def _speed(values: Mapping[str, Any]) -> Speed | None:
    """What the reference workloads took; None: they did not run."""
    return Speed.from_values({key: _optional(values, key, minimum=0.0) for key in (SMALL_KEY, LARGE_KEY)})


def _anchors(values: Mapping[str, Any]) -> tuple[Anchor, ...]:
    found = values.get("anchors", [])
    if not isinstance(found, list) or len(found) > MAX_ITEMS:
        raise RowError("anchors is not a short list")
    anchors = []
    for entry in found:
        if not isinstance(entry, list) or len(entry) != 5:
            raise RowError("an anchor is not five numbers")
        numbers = dict(zip(("cost", "kernels", "largest", "weight", "half_width"), entry, strict=True))
        cost, kernels, largest, weight, half_width = (_number(numbers, name) for name in numbers)
        anchors.append((cost, kernels, largest, weight, half_width))
    return tuple(anchors)


def _scalars(values: Mapping[str, Any], name: str) -> dict[str, Scalar]:
    result: dict[str, Scalar] = {}
    for key, value in _mapping(values, name).items():
        if not isinstance(value, str | int | float | bool | None):
            raise RowError(f"{name}.{key[:40]} is neither text nor number")
        result[_short(key, name)] = value
    return result
