"""ONNX Runtime's profiler and the lowering call a kernel the same: a table serves its own space."""

from __future__ import annotations

import random
from dataclasses import replace
from math import prod
from pathlib import Path

import pytest

from dsonas_hw.architecture.metric import ArchitectureMetric
from dsonas_hw.architecture.sample import random_architecture
from dsonas_hw.architecture.schedule import schedule_of
from dsonas_hw.cost.measured import MeasuredCosts
from dsonas_hw.profile.profile_space import profile_space
from dsonas_hw.space.space import SearchSpace
from dsonas_hw.table.table import load_table
from dsonas_hw.target import Target

SPACE = SearchSpace(levels=3, stages=(1, 1), channels=8, input_shape=(1, 8, 8), width_step=2)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> MeasuredCosts:
    profiles = tmp_path_factory.mktemp("profiles")
    done = profile_space(
        SPACE, Target(runtime="ort-cpu"), num_networks=8, num_checked=0, profiles_directory=Path(profiles)
    )
    return MeasuredCosts(load_table(done.path))


def test_weights_are_counted_though_the_runtime_packs_them_away(model: MeasuredCosts) -> None:
    kernels = [row.kernel for row in model.table.kernels.values()]
    linear = [kernel for kernel in kernels if kernel.op == "gemm"]
    assert linear
    for kernel in linear:
        assert (kernel.num_weights, kernel.num_bias) == (kernel.inputs[0][-1] * 10, 10)
    for kernel in (kernel for kernel in kernels if kernel.op == "conv"):
        channels_in = kernel.inputs[0][1] // kernel.groups
        assert kernel.num_weights == kernel.output[1] * channels_in * prod(kernel.kernel_size)


def test_every_kernel_of_the_profiled_space_is_known(model: MeasuredCosts) -> None:
    rng = random.Random(1)
    for width in SPACE.widths():
        schedule = schedule_of(random_architecture(SPACE, rng, width=width))
        assert [kernel.key for kernel in model.deployment.kernels(schedule) if not model.knows(kernel)] == []


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("width", [2, 8, 10, 12, 16, 18, 32])
def test_the_quick_way_through_parts_agrees_with_the_whole_network(
    width: int, share: bool, model: MeasuredCosts
) -> None:
    """Searches add up blocks; `predict` reads a network kernel by kernel."""
    rng = random.Random(f"{width} {share}")
    quick = ArchitectureMetric(model, "latency")
    for _ in range(12):
        architecture = random_architecture(replace(SPACE, share=share), rng, width=width)
        whole = model.predict_schedule(schedule_of(architecture))
        assert quick.predict(architecture).value == pytest.approx(whole.value, rel=1e-9)
