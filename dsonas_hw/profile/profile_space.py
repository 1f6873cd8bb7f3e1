"""Profiling a device for a search space: plan, measure, fit, check; and what a table lacks, on demand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dsonas_hw.architecture.architecture import complete_architecture
from dsonas_hw.architecture.lower import lower
from dsonas_hw.cost.measured import MeasuredCosts
from dsonas_hw.cost.model import CostModel
from dsonas_hw.kernel.spec import Kernel
from dsonas_hw.measure.probe import Probe
from dsonas_hw.profile.bench import Bench, clock_of
from dsonas_hw.profile.check import CheckedNetwork, check_table
from dsonas_hw.profile.coverage import CoveredKernels, needed_kernels
from dsonas_hw.profile.on_demand import Say, can_be_extended, measure_unknown
from dsonas_hw.profile.open import find_table, user_profiles
from dsonas_hw.profile.open_bench import open_bench
from dsonas_hw.profile.plan import plan_profile, witness_networks
from dsonas_hw.profile.probes import probe_networks, space_id
from dsonas_hw.profile.profiler import estimate_seconds, is_finished, profile_networks
from dsonas_hw.runtime.registry import get_runtime
from dsonas_hw.space.space import SearchSpace
from dsonas_hw.table.rows import CheckRow, Source
from dsonas_hw.table.table import LookupTable, load_table, table_path
from dsonas_hw.target import Target

NUM_NETWORKS = 36
NUM_SMALL_NETWORKS = 72
"""Of a space whose complete network has at most `SMALL_FLOPS`: they take a fraction of a millisecond."""
SMALL_FLOPS = 20_000_000
NUM_CHECKED = 10

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, kw_only=True)
class SpaceProfile:
    """A table, and how far its predictions were from networks that it had not seen."""

    path: Path
    check: CheckRow | None
    networks: tuple[CheckedNetwork, ...] = ()
    source: Source = "measured"
    remarks: tuple[str, ...] = ()
    """What makes the measurements doubtful."""


def default_num_networks(space: SearchSpace) -> int:
    """How many networks a profile of a space is fitted on."""
    flops = sum(kernel.flops for kernel in lower(complete_architecture(space)))
    return NUM_SMALL_NETWORKS if flops <= SMALL_FLOPS else NUM_NETWORKS


def is_profiled(space: SearchSpace, target: Target, *, profiles_directory: Path | None = None) -> bool:
    """Whether this device has a finished table of this space that knows every kernel its networks can run.

    What is unknown although networks that should hold it were timed (the runtime ran something else) is not
    held against it.

    Raises:
        ProfileError: there is a table, but it is damaged.
    """
    path = find_table(target, profiles_directory=profiles_directory)
    if path is None:
        return False
    table = load_table(path)
    if not is_finished(table) or not any(_of_space(network.name, space) for network in table.networks):
        return False
    return not _to_be_timed(space, MeasuredCosts(table))


def unknown_kernels(space: SearchSpace, model: MeasuredCosts) -> list[Kernel]:
    """Kernels that a network of the space can run, and that the table does not know."""
    needed = needed_kernels(space, model.deployment, batch_size=model.target.batch_size)
    return [kernel for kernel in needed if not model.knows(kernel)]


def complete_table(space: SearchSpace, model: CostModel, *, say: Say) -> CostModel:
    """The model that knows every kernel of a space: what its table lacks is measured first.

    Where the table cannot be extended, or is not a table at all, the model stays as it is.
    """
    if not isinstance(model, MeasuredCosts) or not can_be_extended(model):
        return model
    unknown = unknown_kernels(space, model)
    if not unknown:
        return model
    return measure_unknown(model, unknown, _to_be_timed(space, model), say=say)


def _to_be_timed(space: SearchSpace, model: MeasuredCosts) -> list[Probe]:
    """Networks, not in the table yet, that hold what is unknown of a space."""
    probes = witness_networks(
        space,
        unknown_kernels(space, model),
        CoveredKernels(row.kernel for row in model.table.kernels.values()),
        deployment=model.deployment,
        batch_size=model.target.batch_size,
    )
    timed = {network.name for network in model.table.networks}
    return [probe for probe in probes if probe.name not in timed]


def profile_space(
    space: SearchSpace,
    target: Target,
    *,
    name: str = "",
    profiles_directory: Path | None = None,
    num_networks: int | None = None,
    num_checked: int = NUM_CHECKED,
    widths: Sequence[int] | None = None,
    resolutions: Sequence[int] | None = None,
    with_isolated: bool = False,
    sm_clock_mhz: int | None = None,
    fit: bool = True,
    progress: Progress = lambda done, total, text: None,
) -> SpaceProfile:
    """Measure a device that is here on the plan of a space (`plan_profile`), then check the table on others.

    Continues a profile that was interrupted. Several spaces share one table.

    name: of the space in the table, e.g. the preset's.
    num_networks: random ones; witnesses come on top.
    sm_clock_mhz: the SM clock of a GPU to hold meanwhile, if the driver permits.
    fit: as in `profile_networks`; what is not fitted cannot be checked.

    Raises:
        DeviceError: the device is not here, cannot run the networks, or was taken away.
        ProfileError: the table belongs to another machine, is damaged, or is being written.
    """
    path = path_of(target, profiles_directory)
    with open_bench(target, sm_clock_mhz=sm_clock_mhz) as bench:
        probes = plan_profile(
            space,
            num_networks=num_networks or default_num_networks(space),
            deployment=get_runtime(target.runtime).deployment_here(),
            batch_size=target.batch_size,
            widths=widths,
            resolutions=resolutions,
        )
        progress(0, len(probes), f"about {estimate_seconds(probes):.0f} s")
        table = profile_networks(path, bench, probes, fit=fit, progress=progress)
        unseen = _unseen(space, target, num_checked, widths=widths, resolutions=resolutions)
        return _check(
            table, bench, unseen, name=name or space_id(space), with_isolated=with_isolated, progress=progress
        )


def check_space(
    space: SearchSpace,
    table: LookupTable,
    *,
    name: str = "",
    num_checked: int = NUM_CHECKED,
    seed: int = 0,
    widths: Sequence[int] | None = None,
    resolutions: Sequence[int] | None = None,
    with_isolated: bool = True,
    progress: Progress = lambda done, total, text: None,
) -> SpaceProfile:
    """Compare a table with measurements of networks it has not seen; the result goes into the table.

    Raises:
        DeviceError: the device is not here, cannot run the networks, or was taken away.
        ProfileError: the table is not finished, another machine's, or being written.
    """
    unseen = _unseen(
        space, table.header.target, num_checked, seed=seed, widths=widths, resolutions=resolutions
    )
    with open_bench(table.header.target, sm_clock_mhz=clock_of(table)) as bench:
        return _check(
            table, bench, unseen, name=name or space_id(space), with_isolated=with_isolated, progress=progress
        )


def _unseen(
    space: SearchSpace,
    target: Target,
    num_networks: int,
    *,
    seed: int = 0,
    widths: Sequence[int] | None,
    resolutions: Sequence[int] | None,
) -> list[Probe]:
    """Networks that no profile is fitted on."""
    return list(
        probe_networks(
            space,
            num_networks=num_networks,
            widths=widths,
            resolutions=resolutions,
            batch_size=target.batch_size,
            seed=seed,
            held_out=True,
            fuse=get_runtime(target.runtime).fuses,
        )
    )


def _check(
    table: LookupTable,
    bench: Bench,
    unseen: Sequence[Probe],
    *,
    name: str,
    with_isolated: bool,
    progress: Progress,
) -> SpaceProfile:
    """What came of a table, checked on networks that it has not seen if there are any."""
    row: CheckRow | None = None
    networks: Sequence[CheckedNetwork] = ()
    if unseen:
        row, networks = check_table(
            table, bench, unseen, name=name, with_isolated=with_isolated, progress=progress
        )
    return SpaceProfile(
        path=table.path,
        check=row,
        networks=tuple(networks),
        source=table.header.source,
        remarks=_remarks_on(bench, table),
    )


def _remarks_on(bench: Bench, table: LookupTable) -> tuple[str, ...]:
    """What makes the bench doubtful; then each remark on networks once, with their number and an example."""
    found: dict[str, list[str]] = {}
    for network in table.networks:
        for remark in network.remarks:
            if remark not in bench.remarks:
                found.setdefault(remark.split(":")[0], []).append(f"{network.name}: {remark}")
    doubtful = (
        f"{len(remarks)} of {len(table.networks)} networks, such as {remarks[0]}"
        for remarks in found.values()
    )
    return (*bench.remarks, *doubtful)


def path_of(target: Target, profiles_directory: Path | None = None) -> Path:
    """The user's own table for this target."""
    return table_path(profiles_directory or user_profiles(), target)


def _of_space(network: str, space: SearchSpace) -> bool:
    return network.startswith(f"fit-{space_id(space)}-")
