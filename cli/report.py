"""`dsonas-hw report`: one HTML page about a run or a study."""

from __future__ import annotations

from pathlib import Path

import click

from dsonas_hw.cli.advice import check_finished, unfinished_option
from dsonas_hw.cli.common import json_option, print_json, say
from dsonas_hw.cli.options import profiles_option

EPILOG = """\b
Examples:
  dsonas-hw report runs/digits                      # write runs/digits/report.html
  dsonas-hw report studies/codesign                 # the page of a study, finished or not
  dsonas-hw report runs/digits --figures figures    # also every figure and table as files
  dsonas-hw report runs/digits --tensorboard tb     # also its curves, for: tensorboard --logdir tb
  dsonas-hw report runs/digits --json               # print the page's path as JSON
"""


@click.command("report", epilog=EPILOG)
@click.argument("path", metavar="RUN|STUDY", type=click.Path(path_type=Path))
@click.option(
    "--figures",
    "figures_directory",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Also write every figure (SVG, PNG) and what is in it and in every table (CSV, JSON) into DIR.",
)
@click.option(
    "--tensorboard",
    "tensorboard_directory",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Also write what was logged as TensorBoard scalars (pip install 'dsonas-hw[tensorboard]').",
)
@unfinished_option
@profiles_option
@json_option
def command(
    path: Path,
    figures_directory: Path | None,
    tensorboard_directory: Path | None,
    unfinished: bool,
    profiles_directory: Path | None,
    as_json: bool,
) -> None:
    """Write report.html: of a run its verdict, architecture, path and training; of a study its tables.

    The page is one file that loads nothing from the network and can be read without a script. What is not
    finished gets a page too; it says what is missing. Of a search that was interrupted, only --unfinished.
    """
    from dsonas_hw.report.kind import kind_of
    from dsonas_hw.report.write import write_figures, write_report
    from dsonas_hw.run_directory import RunDirectory

    if kind_of(path) == "run":
        check_finished(RunDirectory(path), unfinished)
    page = write_report(path, profiles_directory=profiles_directory)
    files: list[Path] = []
    if figures_directory is not None:
        files = write_figures(path, figures_directory, profiles_directory=profiles_directory)
    num_scalars = 0
    if tensorboard_directory is not None:
        from dsonas_hw.report.tensorboard import write_tensorboard

        num_scalars = write_tensorboard(path, tensorboard_directory)
    if as_json:
        print_json(
            {"report": str(page), "figures": [str(file) for file in files], "num_scalars": num_scalars}
        )
        return
    click.echo(str(page))
    if figures_directory is not None:
        say(f"{len(files)} files in {figures_directory}")
    if tensorboard_directory is not None:
        say(f"{num_scalars} scalars; look at them with: tensorboard --logdir {tensorboard_directory}")
