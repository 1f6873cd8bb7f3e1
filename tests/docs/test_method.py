"""docs/method.md tells every deviation from the paper and the release, with the presets' values."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from dsonas_hw.config import build_config, load_preset, preset_names
from dsonas_hw.study.load import load_study, shipped_studies

TEXT = (Path(__file__).parents[2] / "docs" / "method.md").read_text("utf-8")
TABLE = TEXT[TEXT.index("## Every deviation") :]
STATED = re.findall(r"`([\w-]+) (data|space|search|retrain)\.(\w+): ([^`]+)`", TABLE)
FIELDS = re.findall(r"`(data|space|search|retrain)\.(\w+)(?:: [^`]*)?`", TEXT)


def values(preset: str) -> dict[str, Any]:
    config = build_config(load_preset(preset)).model_dump(mode="json")
    return {
        f"{section}.{name}": value
        for section in ("data", "space", "search", "retrain")
        for name, value in config[section].items()
    }


@pytest.mark.parametrize(("preset", "section", "field", "text"), STATED)
def test_a_stated_value_is_the_presets(preset: str, section: str, field: str, text: str) -> None:
    assert preset in preset_names()
    assert values(preset)[f"{section}.{field}"] == yaml.safe_load(text)


def test_every_field_that_is_named_exists() -> None:
    assert len(STATED) > 50
    known = values("cifar10")
    assert [f"{section}.{field}" for section, field in FIELDS if f"{section}.{field}" not in known] == []


@pytest.mark.parametrize(
    ("paper", "other"),
    [
        ("cifar10", "release"),
        ("cifar10", "cifar10-full"),
        ("cifar10", "cifar10-steered"),
        ("imagenet", "imagenet-steered"),
    ],
)
def test_no_field_that_differs_is_left_out(paper: str, other: str) -> None:
    theirs, ours = values(paper), values(other)
    different = {field for field, value in theirs.items() if ours[field] != value}
    told = {f"{section}.{field}" for preset, section, field, _ in STATED if preset in (paper, other)}
    assert different - told == set()
    assert different


def test_every_row_has_a_reason_column() -> None:
    rows = [line for line in TABLE.splitlines() if line.startswith("|")]
    assert len(rows) > 35
    assert {row.count("|") for row in rows} == {6}


def test_the_papers_experiments_are_commands_that_exist() -> None:
    commands = re.findall(r"^    dsonas-hw study (\S+)([^#\n]*)", TEXT, flags=re.MULTILINE)
    assert {name for name, _ in commands} <= set(shipped_studies())
    for name, options in commands:
        preset = re.search(r"--preset (\S+)", options)
        assert preset is not None
        assert load_study(name, {}, preset=preset[1]).jobs
