"""Kernels that a table lacks are measured by the command that needs them, and appended.

Only a table that this machine measured, and that can be written, is added to. Any other is left as it is, and
whoever asks for an unknown kernel of it is told so.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from dsonas_hw.cost.measured import MeasuredCosts
from dsonas_hw.device.spec import LOCAL
from dsonas_hw.errors import UserError
from dsonas_hw.kernel.spec import Kernel
from dsonas_hw.measure.probe import Probe
from dsonas_hw.profile.bench import clock_of
from dsonas_hw.profile.open_bench import open_bench
from dsonas_hw.runtime.registry import get_runtime
from dsonas_hw.table.rows import TableHeader

MAX_WAIT_SECONDS = 900.0
"""For another command that is measuring into the same table."""

Say = Callable[[str], None]


def can_be_extended(model: MeasuredCosts) -> bool:
    """Whether the table of a model is this machine's own, and can be written."""
    from dsonas_hw.profile.open import shipped_profiles

    header, path = model.table.header, model.table.path.absolute()
    return (
        header.source == "measured"
        and not path.is_relative_to(shipped_profiles().absolute())
        and _is_writable(path)
        and _is_here(header)
        and not get_runtime(header.target.runtime).why_untimed(header.target)
    )


def measure_unknown(
    model: MeasuredCosts, unknown: Sequence[Kernel], probes: Sequence[Probe], *, say: Say
) -> MeasuredCosts:
    """Time the networks that hold unknown kernels, append them to the table, and return its new model.

    If they cannot be measured, one line says why and the model is returned as it was.

    unknown: what the model does not know of the kernels of the probes.
    """
    from dsonas_hw.profile.profiler import (
        estimate_seconds,
        is_finished,
        profile_networks,
    )

    table = model.table
    done = {network.name for network in table.networks}
    todo = [probe for probe in probes if probe.name not in done]
    if not todo and is_finished(table):
        return model  # they were timed, and the runtime ran other kernels than expected
    number = f"{len(unknown)} kernels are" if len(unknown) != 1 else "1 kernel is"
    seconds = estimate_seconds(todo)
    say(f"{number} new to the table of {model.target.device}: measuring them, about {seconds:.0f} s")
    try:
        with open_bench(table.header.target, sm_clock_mhz=clock_of(table)) as bench:
            extended = profile_networks(table.path, bench, probes, wait_s=MAX_WAIT_SECONDS)
        return MeasuredCosts(extended, profile_options=model.profile_options)
    except UserError as error:
        say(f"they cannot be measured: {error}")
        return model


def _is_here(header: TableHeader) -> bool:
    """Whether what the table is of is in this machine."""
    from dsonas_hw.device.cpu import local_cpu
    from dsonas_hw.profile.gpu_bench import is_here

    if header.target.device == LOCAL:
        return header.fingerprint == local_cpu().fingerprint
    return is_here(header.target.device)


def _is_writable(path: Path) -> bool:
    """Whether a table can be appended to and replaced; asked of the system, so of a read-only mount too."""
    return os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)
