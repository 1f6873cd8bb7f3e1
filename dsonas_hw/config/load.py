"""Configurations from YAML: read, laid over one another, checked."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from dsonas_hw.config.models import RunConfig
from dsonas_hw.errors import UserError, closest
from dsonas_hw.files import read_regular

MAX_CONFIG_BYTES = 1_000_000
MAX_YAML_DEPTH = 50
"""Brackets within brackets; reading them takes time by the square of their depth."""


def load_config_file(path: Path) -> dict[str, Any]:
    """A YAML file of options as nested dictionaries.

    Raises:
        UserError: a file that cannot be read, is too large, or is not a YAML mapping.
    """
    try:
        text = read_regular(path, max_bytes=MAX_CONFIG_BYTES).decode("utf-8")
    except OSError as error:
        raise UserError(f"cannot read the configuration {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"cannot read the configuration {path}: it is not text in UTF-8") from None
    return parse_yaml(text, origin=str(path))


_YAML_DEPTH = {
    f"{kind}{edge}Token": step
    for kind in ("FlowSequence", "FlowMapping", "BlockSequence", "BlockMapping", "Block")
    for edge, step in (("Start", 1), ("End", -1))
}
"""Token → what it adds to the depth; every kind of block ends with a BlockEndToken."""


def parse_yaml(text: str, *, origin: str) -> dict[str, Any]:
    """A YAML mapping; anchors are refused, since a few lines of them expand without bound."""
    import yaml

    depth = 0
    try:
        for token in yaml.scan(text):
            if isinstance(token, yaml.tokens.AliasToken):
                raise UserError(f"{origin}: YAML aliases are not supported; write the value out")
            depth += _YAML_DEPTH.get(type(token).__name__, 0)
            if depth > MAX_YAML_DEPTH:
                raise UserError(f"{origin}: YAML nested more than {MAX_YAML_DEPTH} deep is not supported")
        data = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise UserError(f"{origin} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise UserError(f"{origin} must hold a mapping of options")
    return data


def overlay(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `changes` laid over it; nested mappings are merged, everything else is replaced."""
    merged = copy.deepcopy(dict(base))
    for key, value in changes.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), dict):
            merged[key] = overlay(merged[key], value)
        else:
            merged[key] = copy.deepcopy(value)
    return merged


def build_config(data: Mapping[str, Any], *, origin: str = "configuration") -> RunConfig:
    """Check nested dictionaries and freeze them.

    Raises:
        UserError: names the first key that is unknown or holds a bad value.
        BudgetError: a budget that cannot be read.
    """
    try:
        return RunConfig.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            hint = closest(str(first["loc"][-1]), _known_keys(first["loc"][:-1]))
            raise UserError(f"{origin}: unknown key {where!r}. {hint}") from None
        message = first["msg"].removeprefix("Value error, ")
        if not where:  # a check of several fields, which names them
            raise UserError(f"{origin}: {message}") from None
        raise UserError(f"{origin}: {where}: {message} (got {first['input']!r})") from None


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    model: type[BaseModel] = RunConfig
    for part in location:
        annotation = model.model_fields[str(part)].annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            model = annotation
    return list(model.model_fields)
