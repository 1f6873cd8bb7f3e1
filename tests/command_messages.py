"""Commands in messages: what a user is told to type must be something that the parser takes."""

from __future__ import annotations

import contextlib
import re
import shlex

import click


def commands_in(message: str) -> list[str]:
    """Every command line of ours in a message: up to its end, a semicolon, or what quotes or brackets it."""
    from dsonas_hw.cli.main import COMMANDS

    found = []
    for start in re.finditer(rf"(.?)\bdsonas-hw (?=(?:{'|'.join(COMMANDS)})\b)", message):
        rest = message[start.start() + len(start[1]) :].partition("\n")[0]
        if start[1] == "`":
            rest = rest.partition("`")[0]
        lexer = shlex.shlex(rest, posix=True, punctuation_chars=";()`")
        lexer.whitespace_split = True
        lexer.commenters = ""
        parts = []
        for part in lexer:
            if set(part) <= set(";()`"):
                break
            parts.append(part)
        found.append(shlex.join(parts))
    return found


def check(command: str) -> None:
    """Let click check a command line, without running it.

    Raises:
        click.ClickException: it cannot be typed so.
    """
    from dsonas_hw.cli.main import cli

    _, name, *rest = shlex.split(command)
    found = cli.get_command(click.Context(cli), name)
    assert found is not None, command
    with contextlib.suppress(click.exceptions.Exit):  # --help
        context = found.make_context(name, list(rest), parent=click.Context(cli))
        if isinstance(found, click.Group) and context.protected_args:
            sub, *more = [*context.protected_args, *context.args]
            inner = found.get_command(context, sub)
            assert inner is not None, command
            inner.make_context(sub, more, parent=context)
