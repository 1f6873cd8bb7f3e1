"""Command lines in texts: finding them, and checking that they can be typed."""

from __future__ import annotations

import re
import shlex

import click

from dsonas_hw.cli.main import cli


def get_command(name: str) -> click.Command:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    return command


def examples(text: str) -> list[list[str]]:
    """The arguments of every command line in a text, as a shell reads it, up to a pipe."""
    joined = re.sub(r"\\\n\s*", "", text)
    lines = re.findall(r"^ *(?:\$ )?dsonas-hw (\S.*?)(?: *\|.*)?$", joined, re.MULTILINE)
    return [shlex.split(line, comments=True) for line in lines]


def parse(args: list[str]) -> None:
    """Let click check the arguments of a command line, without running it."""
    name, *rest = args
    get_command(name).make_context(name, list(rest), parent=click.Context(cli))
