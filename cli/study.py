"""`dsonas-hw study`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dsonas_hw.cli.common import EXIT_INTERRUPTED, EXIT_NO, json_option, leave, print_json, say
from dsonas_hw.cli.options import parse_settings
from dsonas_hw.cli.progress import progress_bar
from dsonas_hw.train.known_images import KNOWN_IMAGES

if TYPE_CHECKING:
    from dsonas_hw.study.engine import Engine
    from dsonas_hw.study.scheduler import JobFailure
    from dsonas_hw.study.spec import Job, Study

CODESIGN = "codesign"
EXAMPLES = """\b
Examples:
  dsonas-hw study --list
  dsonas-hw study random-baseline --set data.data_dir=~/cifar
  dsonas-hw study table3 --workers 4 --out studies/table3
  dsonas-hw study table3 --preset cifar10 --budget params=3M --seeds 5 --dry-run
  dsonas-hw study hand-made --preset fashion-mnist --budget latency=0.142ms --seeds 3
  dsonas-hw study my-grid.yaml --dry-run
  dsonas-hw study codesign --devices 1080ti,2080ti,v100,local --budget latency=0.2ms,0.25ms --dataset digits
  dsonas-hw study codesign --devices t4,a100 --budget latency=3ms,5ms --dataset imagenet --workers 8 \\
      --ray-address 10.0.0.1:6379
"""


@click.command(epilog=EXAMPLES)
@click.argument("name", metavar="NAME|FILE.yaml|codesign", required=False)
@click.option("--list", "show_list", is_flag=True, help="Show the studies that come with the package.")
@click.option("--out", type=click.Path(path_type=Path), help="Its directory (default: studies/<name>).")
@click.option("--workers", type=click.IntRange(1), help="Jobs at a time (default: one per core).")
@click.option(
    "--ray-address",
    metavar="ADDRESS",
    help="Run the jobs on a Ray cluster: HOST:PORT of its head, or local for one on this machine "
    "(pip install 'dsonas-hw[ray]').",
)
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Laid over the base configuration."
)
@click.option(
    "--devices",
    multiple=True,
    metavar="NAMES",
    help="codesign: comma list of devices; those that are here are measured, others estimated.",
)
@click.option(
    "--budget",
    multiple=True,
    metavar="LIMITS",
    help="Limits to serve instead of the study's own, e.g. params=3M or latency=3ms,5ms,8ms; limits of "
    "several quantities are combined, each with each. codesign serves them on every device.",
)
@click.option("--dataset", help=f"codesign: {', '.join(KNOWN_IMAGES)} or folder:PATH.")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Where the dataset's files are.")
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="codesign: YAML file laid over the preset; unknown keys are refused.",
)
@click.option(
    "--preset",
    help="Start from this preset (default: the study's own; codesign: the dataset's). A study with no "
    "budgets for it needs --budget.",
)
@click.option(
    "--seeds",
    metavar="N|LIST",
    help="How many seeds (5: from 0 to 4), or a comma list of them; all is done once per seed "
    "(default: the study's own; codesign: 1).",
)
@click.option(
    "--search-per-budget",
    is_flag=True,
    help="codesign: search anew for each budget instead of serving all of a device from one path.",
)
@click.option(
    "--skip-infeasible",
    is_flag=True,
    help="codesign: leave out devices × budgets that no network, or every one, of the space serves.",
)
@click.option("--dry-run", is_flag=True, help="List the jobs with their steps and images; run nothing.")
@json_option
def command(
    name: str | None,
    show_list: bool,
    out: Path | None,
    workers: int | None,
    ray_address: str | None,
    settings: tuple[str, ...],
    dry_run: bool,
    as_json: bool,
    budget: tuple[str, ...],
    seeds: str | None,
    preset: str | None,
    data_dir: Path | None,
    **codesign: Any,
) -> None:
    """Run a grid of searches and trainings, or a co-design across devices.

    A named study or a .yaml file is a grid: it ends in one table. `codesign` finds the network for each
    device and budget, and tells what each costs on all the others: it ends in a page (see: dsonas-hw report).
    A study goes on where it stopped: start it again with the same directory.
    """
    if show_list:
        _show_list(as_json)
        return
    if name is None:
        raise click.UsageError("name a study, a .yaml file, or codesign; --list shows what is there")
    if ray_address is not None:
        from dsonas_hw.study.ray_engine import check_address

        check_address(ray_address)
    if name == CODESIGN:
        options = {**codesign, "budget": budget, "seeds": seeds, "preset": preset, "data_dir": data_dir}
        _codesign(out, workers, ray_address, settings, dry_run, as_json, options)
        return
    for option, value in codesign.items():
        if value not in (None, (), False):
            given = option.removesuffix("_file").replace("_", "-")
            raise click.UsageError(f"--{given} is only for `study codesign`, not for {name}")
    from dsonas_hw.budget import budget_levels
    from dsonas_hw.cli.study_codesign import seed_numbers
    from dsonas_hw.config import overlay
    from dsonas_hw.study.load import load_study

    changes = parse_settings(settings)
    if data_dir is not None:
        changes = overlay(changes, {"data": {"data_dir": str(data_dir)}})
    study = load_study(
        name,
        changes,
        preset=preset,
        budgets=budget_levels(budget) if budget else (),
        seeds=seed_numbers(seeds) if seeds is not None else (),
    )
    _grid(study, out, workers, ray_address, dry_run, as_json)


def _show_list(as_json: bool) -> None:
    from dsonas_hw.study.load import load_study, shipped_studies

    for shipped in shipped_studies():
        study = load_study(shipped, {})
        if as_json:
            print_json({"name": shipped, "num_jobs": len(study.jobs), "description": study.file.description})
        else:
            click.echo(f"{shipped:18} {len(study.jobs):4} jobs  {study.file.description}")
    if not as_json:
        click.echo(f"{CODESIGN:18}            which network for which of --devices under which --budget")


def _grid(
    study: Study,
    out: Path | None,
    workers: int | None,
    ray_address: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    from dsonas_hw.study.check import check_data, check_study

    check_study(study)
    if dry_run:
        from dsonas_hw.cli.study_codesign import list_jobs

        list_jobs(study.jobs, as_json)
        if study.file.hand_made and not as_json:
            from dsonas_hw.study.duration import estimate_duration

            click.echo(str(estimate_duration(study.jobs)))
        return
    check_data(study)
    from dsonas_hw.report.write import write_grid, write_report
    from dsonas_hw.study.grid import save_grid
    from dsonas_hw.study.scheduler import describe_jobs
    from dsonas_hw.study.table import collect_skipped

    path = out or Path("studies") / study.file.name
    with _workers(path, workers, ray_address) as run_jobs:
        describe_jobs(path, study.jobs)
        save_grid(path, study)
        failures = run_jobs(path, list(study.jobs))
    table = write_grid(path)
    page = write_report(path)
    if as_json:
        from dataclasses import asdict

        print_json({"study": str(path), "report": str(page), "rows": table.to_records(),
                    "skipped": collect_skipped(path, study),
                    "failed": [asdict(f) for f in failures]})  # fmt: skip
    else:
        click.echo(table.to_markdown())
    say(f"report: {page}")
    for line in collect_skipped(path, study):
        say(line)
    for failure in failures:
        say(f"failed: {failure.name}: {failure.reason}")
    if failures:
        leave(EXIT_NO)


def _codesign(
    out: Path | None,
    workers: int | None,
    ray_address: str | None,
    settings: tuple[str, ...],
    dry_run: bool,
    as_json: bool,
    options: dict[str, Any],
) -> None:
    from dsonas_hw.cli import study_codesign

    study = study_codesign.plan(settings=settings, dry_run=dry_run, **options)
    if dry_run:
        study_codesign.show_jobs(study, as_json)
        return
    path = out or Path("studies") / CODESIGN
    with _workers(path, workers, ray_address) as run_jobs:
        study_codesign.run(study, path, run_jobs, as_json=as_json)


@contextmanager
def _workers(path: Path, workers: int | None, ray_address: str | None) -> Iterator[Any]:
    """Yields a function that runs jobs in a study's directory and returns what failed."""
    from dsonas_hw.study.engine import LocalEngine
    from dsonas_hw.study.scheduler import run_jobs

    num_workers = workers or os.cpu_count() or 1
    engine: Engine = LocalEngine()
    if ray_address is not None:
        from dsonas_hw.study.ray_engine import RayEngine

        engine = RayEngine(ray_address, num_workers=num_workers)

    def run(path: Path, jobs: list[Job]) -> list[JobFailure]:
        say(f"study directory: {path}; {len(jobs)} jobs, {num_workers} at a time")
        with progress_bar("study") as report:
            return run_jobs(path, jobs, num_workers=num_workers, engine=engine, report=report)

    try:
        yield run
    except KeyboardInterrupt:
        say("interrupted; what is done is kept, and the same command goes on")
        leave(EXIT_INTERRUPTED)
    finally:
        engine.close()
