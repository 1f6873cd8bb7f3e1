"""What `dsonas-hw profile` prints of what it measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from dsonas_hw.cli.common import print_json, say

if TYPE_CHECKING:
    from dsonas_hw.profile.profile_space import SpaceProfile
    from dsonas_hw.table.rows import CheckRow, ErrorSummary


def show_results(results: list[SpaceProfile], device: str, *, as_json: bool) -> None:
    """The checks of what was profiled, its table, and what makes it doubtful."""
    path = results[0].path
    remarks = list(dict.fromkeys(remark for result in results for remark in result.remarks))
    for remark in remarks:
        say(f"warning: {remark}")
    checks = [result.check for result in results if result.check is not None]
    if as_json:
        print_json(
            {
                "device": device,
                "table": str(path),
                "source": results[0].source,
                "checks": [check.to_json() for check in checks],
                "remarks": remarks,
            }
        )
        return
    for check in checks:
        show_check(check)
    click.echo(f"table: {path}")


def show_check(row: CheckRow) -> None:
    """The printout of a check: our error, and the baselines' from the same run."""
    click.echo(f"{row.space}: {row.num_networks} networks that the table had not seen, {row.created}")
    click.echo(f"  {'':32} {'MAPE':>8} {'in ±10 %':>9} {'Kendall τ':>10}")
    click.echo(f"  {'this table':32} {_figures(row.error)}")
    if row.raw_error is not None and row.relative_speed is not None:
        drift = f"the same, machine at {row.relative_speed:.0%} speed"
        click.echo(f"  {drift:32} {_figures(row.raw_error)}")
    for name, error in row.baselines.items():
        click.echo(f"  {name:32} {_figures(error)}")
    if row.energy_error is not None:
        click.echo(f"  {'this table, of energies':32} {_figures(row.energy_error)}")
    if row.interval_coverage is not None:
        click.echo(f"  predicted intervals held {row.interval_coverage:.0%} of the measurements (aim: 90 %)")


def _figures(error: ErrorSummary) -> str:
    tau = "–" if error.kendall_tau is None else f"{error.kendall_tau:.3f}"
    return f"{error.mape:8.1%} {error.share_within_10:9.0%} {tau:>10}"
