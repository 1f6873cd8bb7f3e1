"""What every command shares: `--json`, output to the right stream, exit codes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

EXIT_NO = 1
"""The answer is no: a budget is missed."""
EXIT_ESTIMATED = 3
"""Only an estimate was possible."""
EXIT_INTERRUPTED = 130
"""Stopped by Ctrl-C or SIGTERM; it can go on."""


def json_option(function: F) -> F:
    """`--json`: one object (or one line per item) on stdout; all else goes to stderr."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout, for machines.")(
        function
    )


def print_json(value: object) -> None:
    """One JSON object on one line of stdout."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    if not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text):  # of a path that is not UTF-8
        text = json.dumps(value, allow_nan=False)
    click.echo(text)


def say(message: str) -> None:
    """A line for people: stderr, so that stdout stays for results."""
    click.echo(message, err=True)


def leave(code: int) -> NoReturn:
    """End the command with an exit code."""
    sys.exit(code)
