"""What every command shares: `--json`, output to the right stream, exit codes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

if TYPE_CHECKING:
    from rich.console import Console

F = TypeVar("F", bound=Callable[..., Any])

EXIT_NO = 1
"""The answer is no: a budget is missed."""
EXIT_ESTIMATED = 3
"""Only an estimate was possible."""
EXIT_INTERRUPTED = 130
"""Stopped by Ctrl-C or SIGTERM; it can go on."""
EXIT_CLOSED_PIPE = 141
"""Whoever read stdout has closed it; what a shell shows of a tool that SIGPIPE ended (128 + 13)."""


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


def console() -> Console:
    """For tables on stdout; a pipe that is closed ends the command as `click.echo` would.

    Rich would end it with exit code 1, which means that the answer is no.
    """
    import rich.console

    class PipedConsole(rich.console.Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    return PipedConsole(highlight=False)


def leave(code: int) -> NoReturn:
    """End the command with an exit code."""
    sys.exit(code)
