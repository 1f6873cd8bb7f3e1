"""`dsonas-hw study`."""

from __future__ import annotations

import os
from pathlib import Path

import click

from dsonas_hw.cli.common import EXIT_INTERRUPTED, EXIT_NO, json_option, leave, print_json, say
from dsonas_hw.cli.options import parse_settings
from dsonas_hw.cli.progress import progress_bar

EXAMPLES = """\b
Examples:
  dsonas-hw study --list
  dsonas-hw study random-baseline --set data.data_dir=~/cifar
  dsonas-hw study table3 --workers 4 --out studies/table3
  dsonas-hw study my-grid.yaml --dry-run
"""


@click.command(epilog=EXAMPLES)
@click.argument("name", metavar="NAME|FILE.yaml", required=False)
@click.option("--list", "show_list", is_flag=True, help="Show the studies that come with the package.")
@click.option("--out", type=click.Path(path_type=Path), help="Its directory (default: studies/<name>).")
@click.option("--workers", type=click.IntRange(1), help="Processes (default: one per core).")
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Laid over the base configuration."
)
@click.option("--dry-run", is_flag=True, help="List the jobs; run nothing.")
@json_option
def command(
    name: str | None,
    show_list: bool,
    out: Path | None,
    workers: int | None,
    settings: tuple[str, ...],
    dry_run: bool,
    as_json: bool,
) -> None:
    """Run a grid of searches and trainings, and write one table.

    A study goes on where it stopped: start it again with the same directory.
    """
    from dsonas_hw.study.spec import load_study, shipped_studies

    if show_list:
        for shipped in shipped_studies():
            study = load_study(shipped, {})
            click.echo(f"{shipped:18} {len(study.jobs):4} jobs  {study.file.description}")
        return
    if name is None:
        raise click.UsageError("name a study or a .yaml file; --list shows what is there")
    from dsonas_hw.study.check import check_study

    study = load_study(name, parse_settings(settings))
    check_study(study)
    if dry_run:
        for job in study.jobs:
            click.echo(f"{job.name}  ({', '.join(job.budgets)})")
        return
    from dsonas_hw.study.scheduler import run_jobs
    from dsonas_hw.study.table import markdown, save_tables

    path = out or Path("studies") / study.file.name
    num_workers = workers or os.cpu_count() or 1
    say(f"study directory: {path}; {len(study.jobs)} jobs, {num_workers} at a time")
    try:
        with progress_bar("study") as report:
            failures = run_jobs(path, study.jobs, num_workers=num_workers, report=report)
    except KeyboardInterrupt:
        say("interrupted; what is done is kept, and the same command goes on")
        leave(EXIT_INTERRUPTED)
    rows = save_tables(path, study)
    if as_json:
        from dataclasses import asdict

        print_json({"study": str(path), "rows": [asdict(r) for r in rows],
                    "failed": [asdict(f) for f in failures]})  # fmt: skip
    else:
        click.echo(markdown(rows))
    for failure in failures:
        say(f"failed: {failure.name}: {failure.reason}")
    if failures:
        leave(EXIT_NO)
