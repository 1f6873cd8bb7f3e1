"""What an engine was built from and by, in a file beside it: its timing is never another network's."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from dsonas_hw.errors import DeviceError, UserError, command_line
from dsonas_hw.files import read_json
from dsonas_hw.target import Target

SCHEMA: Literal[1] = 1


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class EngineInfo:
    """What an engine was built from and by; stored beside it."""

    sha256: str
    """Of the engine file."""
    model_sha256: str
    precision: str
    batch_size: int
    tensorrt_version: str
    gpu: str
    """The GPU it was built on, and runs on."""
    timing_cache: str | None
    """File of the timing cache it was built with."""
    build_seconds: float
    remarks: tuple[str, ...] = ()
    schema: Literal[1] = SCHEMA


_STORED = TypeAdapter(EngineInfo)


def description_path(engine_path: Path) -> Path:
    """`x.engine` is described by `x.engine.json`."""
    return engine_path.with_name(engine_path.name + ".json")


def load_engine_info(engine_path: Path) -> EngineInfo:
    """The description of an engine.

    Raises:
        UserError: missing, damaged, or of another schema.
    """
    path = description_path(engine_path)
    try:
        return _STORED.validate_python(read_json(path))
    except ValidationError:
        raise UserError(
            f"{path} does not describe an engine (schema {SCHEMA}); build the engine again"
        ) from None


def check_engine(engine_path: Path, model: bytes, target: Target) -> None:
    """Refuse an engine whose timing would be another network's, or another precision's or batch's.

    Raises:
        DeviceError: says what it is of, and how to build it again.
    """
    info = load_engine_info(engine_path)
    if info.model_sha256 != hashlib.sha256(model).hexdigest():
        found = "another model"
    elif (info.precision, info.batch_size) != (target.precision, target.batch_size):
        found = f"{info.precision} at batch {info.batch_size}, not {target.precision} at {target.batch_size}"
    else:
        return
    command = command_line(
        "export", engine_path.parent, "--format", "tensorrt", "--precision", target.precision
    )
    raise DeviceError(f"{engine_path} is of {found}; build it again: {command}; or delete it")
