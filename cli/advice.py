"""What a message tells a user to type: commands with the options that were given; unfinished searches."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click
from click.core import ParameterSource

from dsonas_hw.cli.common import EXIT_INTERRUPTED, leave, say
from dsonas_hw.errors import RunError, UserError, command_line

if TYPE_CHECKING:
    from dsonas_hw.architecture.architecture import Architecture
    from dsonas_hw.run_directory import RunDirectory

F = TypeVar("F", bound=Callable[..., Any])


def profiles_arguments(directory: Path | None) -> list[str]:
    """`--profiles DIR` as it was given, for a command that is to go on with the same tables."""
    return [] if directory is None else ["--profiles", str(directory)]


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


def beside(run_path: Path, budget: str) -> Path:
    """The run directory that serves another budget from a run's path, unless another is named."""
    from dsonas_hw.study.spec import slug

    path = run_path.resolve() if run_path.name in ("", "..") else run_path
    return path.with_name(f"{path.name}-{slug(budget)}")


def free_beside(run_path: Path, budget: str) -> Path:
    """The same, with the first number that makes it a path that does not exist."""
    out = beside(run_path, budget)
    names = (out.with_name(f"{out.name}-{number}") for number in itertools.count(2))
    return next(path for path in itertools.chain([out], names) if not path.exists())


def derive_command(run: RunDirectory, budget: str, profiles_directory: Path | None) -> str:
    """The command that serves another budget from a finished search, in a run of its own."""
    out = free_beside(run.path, budget)
    return command_line(
        "derive", run.path, "--budget", budget, "--out", out, *profiles_arguments(profiles_directory)
    )


def refuse_other_budget(run: RunDirectory, budget: tuple[str, ...]) -> NoReturn:
    """A search is steered by its budgets: `--resume` does not take others, which its path serves.

    Raises:
        RunError: names the command that serves them.
    """
    from dsonas_hw.search.progress import unfinished_search

    profiles = click.get_current_context().params["profiles_directory"]
    resume = command_line("run", "--resume", run.path, *profiles_arguments(profiles))
    finish = "" if unfinished_search(run) is None else f"finish it with: {resume}; then type: "
    raise RunError(
        f"{run.path} was searched under another budget; its path serves this one without another search: "
        f"{finish}{derive_command(run, ','.join(budget), profiles)}"
    )


def refuse_trained(run: RunDirectory, architecture: Architecture, instead: str) -> None:
    """Refuse to write an architecture over another that training has begun of, or ended.

    instead: what to do, to keep both.

    Raises:
        RunError: the run's architecture is another one, and there is a training of it.
    """
    from dsonas_hw.search.choose import load_architecture

    is_trained = run.list_checkpoints("retrain") or (run.path / "weights.npz").exists()
    if is_trained and load_architecture(run)[0] != architecture:
        raise RunError(f"{run.path} holds the training of another architecture; keep it, and {instead}")


@contextmanager
def interruptible(name: str, run: RunDirectory, profiles_directory: Path | None) -> Iterator[None]:
    """Where its block is interrupted, say how the command goes on, and leave with the exit code for that."""
    again = command_line(name, "--resume", run.path, *profiles_arguments(profiles_directory))
    try:
        yield
    except KeyboardInterrupt:
        say(f"interrupted; go on with: {again if run.config_path.exists() else 'the same command'}")
        leave(EXIT_INTERRUPTED)
    except UserError as stop:
        if stop.exit_code != EXIT_INTERRUPTED:
            raise
        what = str(stop).partition(";")[0]  # the rest says how to resume this stage alone
        say(f"{what}; go on with: {again}")
        leave(EXIT_INTERRUPTED)
