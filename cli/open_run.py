"""Which run directory a command works in: the one named, or the next that is free."""

from __future__ import annotations

import contextlib
import itertools
import os
from pathlib import Path
from typing import Any

import click

from dsonas_hw.cli.options import config_from_options
from dsonas_hw.errors import RunError


def open_run(
    out: Path | None, resume: Path | None, options: dict[str, Any], *, default_name: str | None = None
) -> Any:
    """(RunDirectory, RunConfig, resuming) from `--out`, `--resume` and the configuration's options.

    Raises:
        RunError: the directory cannot be used, or belongs to another configuration.
    """
    from dsonas_hw.run_directory import RunDirectory

    if resume is None:
        config = config_from_options(**options)
        if out is None and int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0")):
            raise RunError("give --out RUN: when torchrun starts the processes again, they go on there")
        run = RunDirectory(out or next_run(default_name or config.data.dataset))
        return run, config, was_restarted() and run.config_path.exists()
    if out is not None and out != resume:
        raise RunError("--resume names the run directory already; leave --out away")
    run = RunDirectory(resume)
    config = run.load_config()
    if any(value not in (None, ()) for value in options.values()):
        wanted = config_from_options(base=config.model_dump(mode="json"), **options)
        if wanted.budget != config.budget:
            from dsonas_hw.cli.advice import refuse_other_budget

            refuse_other_budget(run, wanted.budget)
        run.create(wanted, resume=True)
    return run, config, True


def was_restarted() -> bool:
    """Whether torchrun started this process in the place of one that ended (--max-restarts)."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def next_run(name: str) -> Path:
    """Make runs/<name>-<n>, with the first number that is free; gone again if the command leaves it empty.

    name: of a dataset; that of a folder, as of folder:/data/flowers, is the folder's, flowers.

    Whoever makes the folder has it: of two commands that start together, one takes the next number.

    Raises:
        RunError: it cannot be made.
    """
    name = Path(name.removeprefix("folder:")).name if name.startswith("folder:") else name
    stem = "".join(c if c.isalnum() or c in "-_." else "-" for c in name).strip("-.") or "run"
    runs = Path("runs")
    try:
        runs.mkdir(exist_ok=True)
        for number in itertools.count(1):
            path = runs / f"{stem}-{number}"
            try:
                path.mkdir()
                break
            except FileExistsError:
                continue
    except OSError as error:
        raise RunError(
            f"cannot make a run directory in {runs.absolute()}: {error.strerror}; name one with --out"
        ) from error

    def remove_if_empty() -> None:
        for folder in (path, runs):
            with contextlib.suppress(OSError):
                folder.rmdir()

    context = click.get_current_context(silent=True)
    if context is not None:
        context.call_on_close(remove_if_empty)
    return path
