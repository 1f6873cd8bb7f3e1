"""Progress on stderr: a bar with time left in a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

Report = Callable[[int, int, str], None]
SECONDS_BETWEEN_LINES = 10.0


@contextmanager
def progress_bar(title: str, *, enabled: bool = True) -> Iterator[Report]:
    """Yields `report(done, total, text)`, to be called after every step.

    enabled: False reports nothing (for `--quiet` and tests).
    """
    if not enabled:
        yield lambda done, total, text: None
    elif sys.stderr.isatty():
        with _terminal_bar(title) as report:
            yield report
    else:
        yield _plain_lines(title)


@contextmanager
def _terminal_bar(title: str) -> Iterator[Report]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[words]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(title, total=None, words="")

        def report(done: int, total: int, text: str) -> None:
            progress.update(task, completed=done, total=total, words=text)

        yield report


def _plain_lines(title: str) -> Report:
    last = time.monotonic()

    def report(done: int, total: int, text: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= SECONDS_BETWEEN_LINES or done == total:
            last = now
            click.echo(f"{title}: {100 * done // max(1, total)}% {text}".rstrip(), err=True)

    return report
