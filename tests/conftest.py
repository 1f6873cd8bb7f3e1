"""Property tests draw the same examples in every run; `--hypothesis-profile=explore` looks further.

Commands that errors and other lines for people name ("next: …") are parsed (`command_messages`), whichever
test makes them.

SIGINT is delivered: a shell that starts the tests in the background has it ignored, in them and in every
process they start, and tests of Ctrl-C would wait for ever.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import click
import pytest
from command_messages import check, commands_in
from hypothesis import settings

from dsonas_hw.errors import UserError

signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.register_profile("explore", deadline=None, max_examples=2000)
settings.load_profile("repeatable")

LONGEST = ("test_distributed.py", "test_codesign_ray.py", "test_tutorial.py", "test_study_run.py")
"""Files to begin with: with two processes, a long file at the end would leave one of them idle."""


@pytest.fixture(autouse=True)
def _commands_in_messages_can_be_typed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every command that an error or a printed line names during any test must be one the parser takes."""
    commands: set[str] = set()
    initialise, echo = UserError.__init__, click.echo

    def collect(self: UserError, *args: Any) -> None:
        initialise(self, *args)
        commands.update(command for arg in args for command in commands_in(str(arg)))

    def collect_printed(message: Any = None, *args: Any, **options: Any) -> None:
        echo(message, *args, **options)
        if isinstance(message, str) and not message.startswith(("{", "[")):  # JSON
            commands.update(commands_in(message))

    monkeypatch.setattr(UserError, "__init__", collect)
    monkeypatch.setattr(click, "echo", collect_printed)
    yield
    for command in sorted(commands):
        check(command)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.fixture(scope="session", autouse=True)
def quick_verdicts() -> Iterator[None]:
    """Measurements for a verdict in a second instead of half a minute: in fewer turns, without pauses."""
    from dsonas_hw.deploy import measure
    from dsonas_hw.measure.rounds import Plan

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "VERDICT", Plan(num_rounds=6, turns_per_round=2, period_seconds=0.0))
        yield
