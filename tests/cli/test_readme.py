"""The README says what is so: its commands can be typed, its files exist, its links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from command_lines import examples, parse

ROOT = Path(__file__).parents[2]
TEXTS = {name: (ROOT / name).read_text() for name in ("README.md", "CONTRIBUTING.md")}
README = TEXTS["README.md"]


@pytest.mark.parametrize("args", examples(README), ids=" ".join)
def test_every_command_of_the_readme_can_be_typed(args: list[str]) -> None:
    parse(args)


@pytest.mark.parametrize("name", [p.name for p in sorted((ROOT / "docs").glob("*.md")) if p.name != "cli.md"])
def test_every_command_of_the_docs_can_be_typed(name: str) -> None:
    for args in examples((ROOT / "docs" / name).read_text()):
        if not any("…" in arg for arg in args):
            parse(args)


def test_the_readme_shows_the_whole_way() -> None:
    shown = {args[0] for args in examples(README)}
    assert {"run", "search", "derive", "retrain", "export", "validate", "report", "predict"} <= shown


@pytest.mark.parametrize("name", TEXTS)
def test_every_file_that_is_named_exists(name: str) -> None:
    text = TEXTS[name]
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", text)
    paths = re.findall(
        r"`((?:dsonas_hw|cli|devices|docs|profiles|requirements|tests|benchmarks)/[^`*… ]*)`", text
    )
    assert name != "README.md" or len(paths) > 10
    for path in links + paths:
        assert (ROOT / path).exists(), path


def test_headings_are_linked_as_they_are_written() -> None:
    headings = re.findall(r"^#+ (.+)$", README, re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([^)]+)\)", README)) <= anchors
