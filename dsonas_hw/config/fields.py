"""Every field of a configuration with its meaning, range and default, read from where it is defined."""

from __future__ import annotations

import ast
import inspect
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from dsonas_hw.config import models
from dsonas_hw.config.models import RunConfig

BOUNDS = {"minimum": "≥ ", "exclusiveMinimum": "> ", "maximum": "≤ ", "exclusiveMaximum": "< "}
"""Keywords of a JSON schema, as they are shown."""
KINDS = {"boolean": "true or false", "integer": "whole number", "number": "number", "string": "text"}


@dataclass(frozen=True, kw_only=True)
class FieldHelp:
    """One field, as `--set` names it."""

    key: str
    """With its section, such as `search.epochs`."""
    meaning: str
    range: str
    default: Any
    """As YAML holds it, before any preset; None where there is none."""


def list_fields() -> list[FieldHelp]:
    """Return every field that `--set` and a configuration file may set, in the order of their definition."""
    return _fields_of(RunConfig, "", _docstrings())


def _fields_of(
    model: type[BaseModel], prefix: str, docstrings: dict[tuple[str, str], str]
) -> list[FieldHelp]:
    schema = model.model_json_schema()
    found: list[FieldHelp] = []
    for name, field in model.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            found += _fields_of(annotation, f"{prefix}{name}.", docstrings)
            continue
        default = None if field.default is PydanticUndefined else field.default
        found.append(
            FieldHelp(
                key=prefix + name,
                meaning=docstrings.get((model.__name__, name), "").replace("None", "null"),
                range=_range(schema["properties"][name]),
                default=list(default) if isinstance(default, tuple) else default,
            )
        )
    return found


def _range(schema: dict[str, Any]) -> str:
    """A JSON schema in a few words: `whole number, ≥ 1, ≤ 16`."""
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(map(_range, schema["anyOf"])))
    if "const" in schema:
        return str(schema["const"])
    if "enum" in schema:
        return ", ".join(map(str, schema["enum"]))
    kind = schema.get("type", "")
    if kind == "null":
        return "null"
    if kind == "array":
        parts = schema.get("prefixItems") or [schema.get("items", {})]
        return f"list of {_range(parts[0])}"
    bounds = [
        f"{sign}{schema[name]:g}" for name, sign in BOUNDS.items() if name in schema and schema[name] < 1e15
    ]
    return ", ".join([KINDS.get(kind, kind), *bounds])


def _docstrings() -> dict[tuple[str, str], str]:
    """(class, field) → the string that stands below the field's definition."""
    found: dict[tuple[str, str], str] = {}
    for statement in ast.parse(inspect.getsource(models)).body:
        if isinstance(statement, ast.ClassDef):
            for field, below in zip(statement.body, statement.body[1:], strict=False):
                if (
                    isinstance(field, ast.AnnAssign)
                    and isinstance(field.target, ast.Name)
                    and isinstance(below, ast.Expr)
                    and isinstance(below.value, ast.Constant)
                ):
                    found[statement.name, field.target.id] = inspect.cleandoc(str(below.value.value))
    return found
