"""`presets` and `config`: what is listed is what is defined."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from dsonas_hw.config import RunConfig, build_config, load_preset, overlay, preset_names
from dsonas_hw.config.fields import FieldHelp, list_fields

FIELDS = {field.key: field for field in list_fields()}


def defined(model: type[BaseModel], prefix: str = "") -> list[str]:
    found = []
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found += defined(field.annotation, f"{prefix}{name}.")
        else:
            found.append(prefix + name)
    return found


def test_every_field_is_listed_with_its_meaning_and_range() -> None:
    assert list(FIELDS) == defined(RunConfig)
    assert [key for key, field in FIELDS.items() if not (field.meaning and field.range)] == []


def test_a_field_is_as_it_is_defined() -> None:
    assert FIELDS["space.levels"].range == "whole number, ≥ 1, ≤ 16"
    assert FIELDS["search.momentum"].range == "number, ≥ 0, < 1"
    assert FIELDS["space.stem"].range == "cifar, strided, imagenet"
    assert FIELDS["data.pad_value"].range == "whole number, ≥ 0, ≤ 255 or mean"
    assert FIELDS["retrain.width"].range == "whole number, ≥ 1 or null"
    assert FIELDS["search.epochs"] == FieldHelp(
        key="search.epochs",
        meaning="Epochs in which W and λ are trained in turns.",
        range="whole number, ≥ 1",
        default=120,
    )


@pytest.mark.parametrize("field", [f for f in FIELDS.values() if f.default is not None], ids=lambda f: f.key)
def test_a_default_can_be_set(field: FieldHelp) -> None:
    value: Any = field.default
    for name in reversed(field.key.split(".")):
        value = {name: value}
    build_config(overlay(load_preset("digits"), value))


def test_config_prints_a_field_a_section_or_all(dsonas: Any) -> None:
    shown = dsonas("config", "search.epochs").out
    assert shown.splitlines()[0] == "search.epochs: whole number, ≥ 1  [default: 120]"
    assert dsonas("config", "select").out.count("[default") == 2
    assert [f["key"] for f in dsonas("config", "--json").json["fields"]] == list(FIELDS)
    assert "no field or section 'serach'. Did you mean search" in dsonas("config", "serach").refused()


def test_every_preset_says_what_it_is_for_and_what_it_takes(dsonas: Any) -> None:
    shown = dsonas("presets", "--json").json["presets"]
    assert [preset["name"] for preset in shown] == preset_names()
    assert all(preset["purpose"] and preset["cost"] for preset in shown)
    text = dsonas("presets").out
    assert "cifar10: 24 blocks, 48 channels, 120 + 120 + 630 epochs" in text
