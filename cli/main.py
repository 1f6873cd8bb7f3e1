"""`dsonas-hw`: the command line. One thin click command per file; each is imported only when it is used."""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from dsonas_hw import __version__
from dsonas_hw.cli.common import EXIT_CLOSED_PIPE
from dsonas_hw.errors import UserError, is_out_of_memory, one_line

#: command → one line of help. The command lives in `dsonas_hw.cli.<command>` under the name `command`.
COMMANDS: dict[str, str] = {
    "run": "The whole job: profile, search, select, retrain, export, validate, report.",
    "presets": "Configurations to start from: what each is for and costs.",
    "config": "Every field of a configuration: meaning, range, default.",
    "devices": "What is known, what is here, and which runtime can serve it.",
    "profile": "Measure (or estimate) every kernel of a search space on a device.",
    "kit": "What to carry to a board that is not here, to have its networks timed.",
    "predict": "Latency and counted costs of ONNX networks on a device.",
    "calibrate": "Sharpen a device's estimate with a few measured networks.",
    "search": "Search an architecture under a budget.",
    "derive": "Fit an architecture of a finished search to a budget.",
    "select": "Choose the network of a finished search by training several briefly.",
    "retrain": "Train the derived architecture from scratch.",
    "export": "Write the trained network as ONNX (or a TensorRT engine).",
    "validate": "Count and measure the exported network against its budgets.",
    "report": "Write one HTML page about a run or a study.",
    "compare": "Put networks of runs and studies side by side.",
    "study": "Grids of runs: baselines, ablations, co-design across devices.",
    "transfer": "Carry a searched block into another network.",
}


class ClosedPipeError(Exception):
    """Whoever read our output has gone; click would end with exit code 1, which means something here."""


class LazyGroup(click.Group):
    """A group that knows its commands by name and imports one when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"dsonas_hw.cli.{cmd_name}")
        command: click.Command = module.command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS:
            from dsonas_hw.errors import closest

            ctx.fail(f"No such command {args[0]!r}. {closest(args[0], list(COMMANDS))}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise ClosedPipeError from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Start with: dsonas-hw run --dataset digits --budget mac=150k,latency=0.2ms",
)
@click.version_option(__version__, prog_name="dsonas-hw")
def cli() -> None:
    """Find the best convolutional network that measurably fits a device and a budget.

    Exit codes: 0 done, 1 the answer is no (a budget is missed), 2 bad usage or input, 3 only an estimate was
    possible.
    """


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line; a user's mistake is one line on stderr and exit code 2.

    Of the processes that torchrun starts, the first runs it and the others help it to train.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or "RANK" not in os.environ:
        _run(args)
        return
    from dsonas_hw.search.helper import help_rank_0
    from dsonas_hw.train import distributed

    try:
        distributed.join()
        if distributed.rank():
            help_rank_0()
    except UserError as error:
        click.echo(f"rank {os.environ['RANK']}: {one_line(error)}", err=True)
        sys.exit(error.exit_code)
    if distributed.rank():
        distributed.leave()
        return
    try:
        _run(args)
    except SystemExit:
        distributed.leave()
        raise
    distributed.leave()


def _run(args: Sequence[str] | None) -> None:
    # Idle OpenMP threads sleep instead of spinning: on a machine that others use, spinning makes training
    # many times slower. Must be set before torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        arguments = None if args is None else list(args)
        code = cli.main(args=arguments, prog_name="dsonas-hw", standalone_mode=False)
        sys.stdout.flush()
    except UserError as error:
        prefix = "error: " if error.exit_code == 2 else ""
        click.echo(prefix + one_line(error), err=True)
        sys.exit(error.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(2)
    except click.ClickException as error:
        hint = f" (see: {error.ctx.command_path} --help)" if getattr(error, "ctx", None) else ""
        click.echo(f"error: {error.format_message()}{hint}", err=True)
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        sys.exit(130)
    except (ClosedPipeError, BrokenPipeError):
        _leave_closed_pipe()
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - what it still holds cannot be written either
        click.echo(f"error: nothing more can be written: {error.strerror}; free space", err=True)
        sys.exit(2)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        click.echo(f"error: out of memory ({one_line(error)}); take a smaller batch or network", err=True)
        sys.exit(2)
    if code:  # of click's Exit
        sys.exit(code)


def _leave_closed_pipe() -> NoReturn:
    """Whoever read our output has gone (`| head`): end without a word, as tools do that SIGPIPE ends."""
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - what it still holds cannot be written
    sys.exit(EXIT_CLOSED_PIPE)
