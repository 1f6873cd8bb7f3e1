"""What every command shares: `--json`, output to the right stream, exit codes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click
from click.core import ParameterSource

if TYPE_CHECKING:
    from rich.console import Console

    from dsonas_hw.run_directory import RunDirectory

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


def unfinished_option(function: F) -> F:
    """`--unfinished`: take what a search has so far; see `check_finished`."""
    return click.option(
        "--unfinished", is_flag=True, help="Of a search that was interrupted, take what it has so far."
    )(function)


def typed_arguments() -> list[object]:
    """The present command and what was given to it, to be shown with something added."""
    context = click.get_current_context()
    words: list[object] = [context.info_name]
    for parameter in context.command.params:
        assert parameter.name is not None
        if context.get_parameter_source(parameter.name) is not ParameterSource.COMMANDLINE:
            continue
        value = context.params[parameter.name]
        for each in value if parameter.multiple else (value,):
            if isinstance(parameter, click.Option):
                words.append(parameter.opts[0])
            if not (isinstance(parameter, click.Option) and parameter.is_flag):
                words.append(each)
    return words


def check_finished(run: RunDirectory, unfinished: bool) -> None:
    """Say that a search has not ended; without `--unfinished` refuse it.

    Raises:
        RunError: the search has not ended.
    """
    from dsonas_hw.search.progress import refuse_unfinished, unfinished_search

    if not unfinished:
        refuse_unfinished(run, *typed_arguments())
    elif (done := unfinished_search(run)) is not None:
        say(f"the search of {run.path} is not finished ({done}): this is of what it has so far")


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
