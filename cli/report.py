"""`dsonas-hw report`: one HTML page about a run."""

from __future__ import annotations

from pathlib import Path

import click

from dsonas_hw.cli.common import json_option, print_json, say
from dsonas_hw.cli.options import profiles_option

EPILOG = """\b
Examples:
  dsonas-hw report runs/digits                      write runs/digits/report.html
  dsonas-hw report runs/digits --figures figures    also every figure and table as files
  dsonas-hw report runs/digits --json               print the page's path as JSON
"""


@click.command("report", epilog=EPILOG)
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--figures",
    "figures_directory",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Also write every figure (SVG, PNG) and what is in it and in every table (CSV, JSON) into DIR.",
)
@profiles_option
@json_option
def command(
    run: Path, figures_directory: Path | None, profiles_directory: Path | None, as_json: bool
) -> None:
    """Write RUN/report.html: verdict, architecture, path of the search, predicted against measured.

    The page is one file that loads nothing from the network and can be read without a script. A run that is
    not finished gets a page too; it says what is missing.
    """
    from dsonas_hw.report.run_report import write_figures, write_report
    from dsonas_hw.run_directory import RunDirectory

    directory = RunDirectory(run)
    page = write_report(directory, profiles_directory=profiles_directory)
    files = []
    if figures_directory is not None:
        files = write_figures(directory, figures_directory, profiles_directory=profiles_directory)
    if as_json:
        print_json({"report": str(page), "figures": [str(path) for path in files]})
        return
    click.echo(str(page))
    if figures_directory is not None:
        say(f"{len(files)} files in {figures_directory}")
