"""`dsonas-hw profile` of a GPU that is not here: what its estimate lets expect, and never as if measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dsonas_hw.cli.common import EXIT_ESTIMATED, leave, print_json, say

if TYPE_CHECKING:
    from dsonas_hw.space.space import SearchSpace
    from dsonas_hw.target import Target


def list_estimates(
    target: Target,
    profiles_directory: Path | None,
    spaces: Sequence[SearchSpace],
    *,
    why: str,
    as_json: bool,
) -> None:
    """Write the table, say why nothing was measured ("not here"), and leave with the exit code for it."""
    from dsonas_hw.profile.estimate_table import estimate_gpu
    from dsonas_hw.profile.open import open_estimate, user_profiles

    done = estimate_gpu(spaces, target, profiles_directory=profiles_directory)
    say(
        f"ESTIMATED, NOT MEASURED: {target.device} is {why}; a network's latency may be off by about "
        f"±{done.expected_error:.0%} (90 % interval)"
    )
    used = open_estimate(target, profiles_directory or user_profiles())
    if used.source == "calibrated":
        say(f"predict and search use a calibration instead. {used.disclaimer}")
    if as_json:
        print_json(
            {
                "device": target.device,
                "table": str(done.path),
                "source": "estimated",
                "expected_error": done.expected_error,
                "num_kernels": done.num_kernels,
            }
        )
    else:
        click.echo(f"table: {done.path} ({done.num_kernels} kernels, estimated)")
    leave(EXIT_ESTIMATED)
