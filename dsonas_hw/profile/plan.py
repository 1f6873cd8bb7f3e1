"""The networks that a profile of a search space times: random ones, and witnesses of what those lack.

A pure function of the space and of the block size of the processor: what any network of the space can need
is known (`coverage`) before anything is measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from dsonas_hw.architecture.architecture import Architecture
from dsonas_hw.architecture.onnx import model_bytes
from dsonas_hw.architecture.schedule import schedule_of
from dsonas_hw.device.fingerprint import short_hash
from dsonas_hw.kernel.deployment import Deployment
from dsonas_hw.kernel.spec import Kernel
from dsonas_hw.measure.probe import Probe
from dsonas_hw.profile.coverage import CoveredKernels, needed_kernels, witnesses
from dsonas_hw.profile.probes import probe_networks, space_id
from dsonas_hw.space.space import SearchSpace


def plan_profile(
    space: SearchSpace,
    *,
    num_networks: int,
    deployment: Deployment,
    batch_size: int = 1,
    widths: Sequence[int] | None = None,
    resolutions: Sequence[int] | None = None,
) -> list[Probe]:
    """Networks whose kernels tell the cost of every kernel that a network of the space can run.

    num_networks: random ones; so many witnesses are added as it takes.
    deployment: of the runtime, on the processor that is profiled.
    widths, resolutions: if given, only those are covered.
    """
    drawn = probe_networks(
        space,
        num_networks=num_networks,
        widths=widths,
        resolutions=resolutions,
        batch_size=batch_size,
        fuse=deployment.fuses,
    )
    plan = list(drawn)
    covered = CoveredKernels(kernel for probe in plan for kernel in deployment.kernels(probe.schedule))
    for side in resolutions or (None,):
        sized = replace(space, input_shape=(space.input_shape[0], side, side)) if side else space
        needed = needed_kernels(sized, deployment, batch_size=batch_size, widths=widths)
        plan += witness_networks(
            sized, needed, covered, deployment=deployment, batch_size=batch_size, widths=widths
        )
    return plan


def witness_networks(
    space: SearchSpace,
    needed: Sequence[Kernel],
    covered: CoveredKernels,
    *,
    deployment: Deployment,
    batch_size: int = 1,
    widths: Sequence[int] | None = None,
) -> list[Probe]:
    """`coverage.witnesses`, ready to be timed."""
    found = witnesses(space, needed, covered, deployment=deployment, batch_size=batch_size, widths=widths)
    return [_witness(architecture, batch_size, deployment.fuses) for architecture in found]


def _witness(architecture: Architecture, batch_size: int, fuse: bool) -> Probe:
    content = short_hash(architecture.to_json())[:8]
    return Probe(
        name=f"cover-{space_id(architecture.space)}-{content}",
        build=lambda: model_bytes(architecture, batch_size=batch_size),
        schedule=schedule_of(architecture, batch_size=batch_size, fuse=fuse),
    )
