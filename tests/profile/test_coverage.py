"""A table knows its space: the plan of a profile holds every kernel that a network of the space can run.

Nothing is measured here: the kernels are those of the lowering, their times are made up, and the processor's
block size is a parameter.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from dsonas_hw.architecture.architecture import (
    Architecture,
    close_block,
    complete_architecture,
    identity_architecture,
)
from dsonas_hw.architecture.costs import TargetCosts
from dsonas_hw.architecture.graph import block_segments
from dsonas_hw.architecture.metric import ArchitectureMetric
from dsonas_hw.architecture.sample import random_architecture
from dsonas_hw.architecture.schedule import schedule_of
from dsonas_hw.config import build_config, load_preset
from dsonas_hw.cost.fit import TimedNetwork, fit_corrections
from dsonas_hw.cost.measured import MeasuredCosts
from dsonas_hw.kernel.spec import Kernel
from dsonas_hw.measure.probe import Probe
from dsonas_hw.profile.coverage import CoveredKernels, needed_kernels, representatives
from dsonas_hw.profile.plan import plan_profile
from dsonas_hw.profile.probes import probe_networks
from dsonas_hw.runtime.ort_cpu.layout import Blocks
from dsonas_hw.space.operations import OPERATIONS
from dsonas_hw.space.space import STEMS, SearchSpace
from dsonas_hw.table.rows import KernelRow, TableHeader
from dsonas_hw.table.table import LookupTable
from dsonas_hw.target import Target
from dsonas_hw.train.images import space_of_config

BLOCK_SIZES = (0, 8, 16)
NUM_RANDOM = 8
"""Random networks of a plan: few, so that the witnesses have much to do."""
TINY = SearchSpace(
    levels=2, operations=("sep3", "max3"), stages=(1, 1), channels=8, input_shape=(1, 8, 8), width_step=2
)
"""The space of tests/cli."""


def made_up_ms(kernel: Kernel) -> float:
    return 1e-3 + 1e-7 * kernel.mac + 2e-8 * kernel.flops


def table_of(probes: Iterable[Probe], block_size: int) -> MeasuredCosts:
    """A table as a profile of these networks would leave it on such a processor."""
    networks = [Blocks(block_size=block_size).kernels(probe.schedule) for probe in probes]
    kernels = dict.fromkeys(kernel for network in networks for kernel in network)
    rows = [KernelRow(kernel=kernel, latency_ms=made_up_ms(kernel), source="measured") for kernel in kernels]
    timed = [TimedNetwork(kernels=each, latency_ms=sum(map(made_up_ms, each))) for each in networks]
    header = TableHeader(
        target=Target(runtime="ort-cpu"), fingerprint="",
        source="measured", created="", settings={"block_size": block_size},
    )  # fmt: skip
    return MeasuredCosts(
        LookupTable(
            path=Path("made-up.jsonl"),
            header=header,
            kernels={row.kernel.key: row for row in rows},
            corrections={"latency": fit_corrections(rows, timed)[0]},
        )
    )


def plan(space: SearchSpace, block_size: int) -> list[Probe]:
    return plan_profile(space, num_networks=NUM_RANDOM, deployment=Blocks(block_size=block_size))


@cache
def planned(space: SearchSpace, block_size: int) -> MeasuredCosts:
    return table_of(
        plan_profile(space, num_networks=NUM_RANDOM, deployment=Blocks(block_size=block_size)), block_size
    )


def preset_space(name: str) -> SearchSpace:
    return space_of_config(build_config(load_preset(name)))


def random_space(seed: int) -> SearchSpace:
    """Any stem, operations, levels, stages, widths; small, so that hundreds are quickly lowered."""
    rng = random.Random(f"space {seed}")
    stem = rng.choice(STEMS)
    step = rng.choice([2, 2, 4, 6] if stem == "imagenet" else [1, 2, 3, 4])
    side = rng.choice([8, 11]) * {"cifar": 1, "strided": 2, "imagenet": 4}[stem]
    return SearchSpace(
        levels=rng.randint(1, 3),
        operations=tuple(rng.sample(sorted(OPERATIONS), rng.randint(1, 4))),
        stages=tuple(rng.randint(1, 3) for _ in range(rng.randint(1, 3))),
        channels=step * rng.randint(1, 6),
        stem=stem,  # type: ignore[arg-type]
        input_shape=(rng.choice([1, 3]), side, side),
        stage_shortcut=rng.random() < 0.3,
        width_step=step,
    )


def random_networks(space: SearchSpace, count: int, seed: int) -> list[Architecture]:
    """At any width; share and full; some with identities, some complete."""
    rng = random.Random(f"networks {seed}")
    found = []
    for index in range(count):
        width = rng.choice(space.widths())
        drawn = random_architecture(replace(space, share=rng.random() < 0.5), rng, width=width)
        if index % 5 == 0:
            empty = close_block(space, ())
            blocks = tuple(empty if rng.random() < 0.5 else block for block in drawn.blocks)
            drawn = replace(drawn, space=replace(space, share=False), blocks=blocks)
        found.append(drawn)
    ends = (space.widths()[0], space.widths()[-1])
    found += [make(space, width=w) for w in ends for make in (complete_architecture, identity_architecture)]
    return found


def unknown(model: MeasuredCosts, networks: Iterable[Architecture]) -> set[str]:
    return {
        kernel.key for network in networks for kernel in model.unknown(model.kernels(schedule_of(network)))
    }


@pytest.mark.parametrize("block_size", BLOCK_SIZES)
@pytest.mark.parametrize("seed", range(10))
def test_no_kernel_of_any_network_is_unknown_at_any_width(seed: int, block_size: int) -> None:
    space = random_space(seed)
    assert unknown(planned(space, block_size), random_networks(space, 60, seed)) == set()


@pytest.mark.parametrize("block_size", BLOCK_SIZES)
@pytest.mark.parametrize("preset", ["digits", "fashion-mnist", "cifar10-small"])
def test_nor_of_the_presets(preset: str, block_size: int) -> None:
    space = preset_space(preset)
    assert unknown(planned(space, block_size), random_networks(space, 60, 0)) == set()


def test_nor_of_a_space_with_every_operation() -> None:
    space = SearchSpace(
        levels=2, operations=tuple(OPERATIONS), stages=(1, 1), channels=8, input_shape=(1, 8, 8),
        width_step=2, share=False,
    )  # fmt: skip
    assert unknown(planned(space, 16), random_networks(space, 60, 0)) == set()


@pytest.mark.parametrize(
    ("space", "key"),
    [
        # Width 10, three branches: 30 channels fill no block of 16 and are no multiple of 4, so NCHW.
        (TINY, "conv(1x30x8x8)->1x10x8x8;k1x1,s1x1+relu"),
        # 18 channels likewise, read by the reduction behind the first stage.
        (preset_space("fashion-mnist"), "conv(1x18x28x28)->1x36x14x14;k1x1,s2x2+relu"),
    ],
)
def test_random_networks_alone_leave_kernels_out_that_the_plan_holds(space: SearchSpace, key: str) -> None:
    """Both were missing on a processor with blocks of 16 channels."""
    networks = random_networks(space, 400, 0)
    kernels = {
        kernel.key: kernel
        for net in networks
        for kernel in planned(space, 16).deployment.kernels(schedule_of(net))
    }
    drawn = table_of(probe_networks(space, num_networks=NUM_RANDOM), 16)
    kernel = kernels[key]
    assert covered_by(drawn).missing([kernel]) == [kernel]
    assert covered_by(planned(space, 16)).missing([kernel]) == []
    assert planned(space, 16).knows(kernel)


def covered_by(model: MeasuredCosts) -> CoveredKernels:
    return CoveredKernels(row.kernel for row in model.table.kernels.values())


@pytest.mark.parametrize("block_size", BLOCK_SIZES)
@pytest.mark.parametrize("seed", range(10))
def test_the_quick_way_asks_for_the_kernels_of_the_whole_network_and_no_others(
    seed: int, block_size: int
) -> None:
    """Searches add up blocks and atoms, from whatever layout the segment before left."""
    space = random_space(seed)
    model = planned(space, block_size)
    quick = ArchitectureMetric(model, "latency")
    for network in random_networks(space, 25, seed):
        whole = model.predict_schedule(schedule_of(network))
        assert quick.predict(network).value == pytest.approx(whole.value, rel=1e-9)


@pytest.mark.parametrize("block_size", BLOCK_SIZES)
def test_a_table_that_knows_one_network_only_predicts_it_the_quick_way(
    block_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So no atom is looked up that the network does not run."""
    for seed in range(6):
        space = random_space(seed)
        model = table_of(
            plan_profile(space, num_networks=NUM_RANDOM, deployment=Blocks(block_size=block_size)), block_size
        )
        part, asked = model.part, set()

        def noting(kernels: Iterable[Kernel], metric: str, part=part, asked=asked):  # type: ignore[no-untyped-def]
            asked.update(kernels)
            return part(kernels, metric)

        monkeypatch.setattr(model, "part", noting)
        for network in random_networks(space, 20, seed):
            asked.clear()
            ArchitectureMetric(model, "latency").predict(network)
            runs = set(model.deployment.kernels(schedule_of(network)))
            assert {kernel.key for kernel in asked - runs} == set()


@pytest.mark.parametrize("block_size", BLOCK_SIZES)
def test_no_cost_that_weighs_gamma_is_unknown(block_size: int) -> None:
    """Eq. 9 and 10 by latency ask for kernels one by one."""
    for seed in range(10):
        space = random_space(seed)
        target = TargetCosts(planned(space, block_size))
        for width in (space.widths()[0], space.channels, space.widths()[-1]):
            for segment in block_segments(complete_architecture(space, width=width)):
                costs = [target.block_cost(segment, "latency"), target.branch_cost(segment, "latency")]
                costs += [target.operation_cost(segment, node, "latency") for node in segment.block.nodes]
                assert min(costs) >= 0


def test_a_plan_is_a_pure_function_of_space_and_block_size() -> None:
    for block_size in BLOCK_SIZES:
        first, second = (
            plan_profile(TINY, num_networks=4, deployment=Blocks(block_size=block_size)) for _ in range(2)
        )
        assert [probe.name for probe in first] == [probe.name for probe in second]
        assert len({probe.name for probe in first}) == len(first)
        assert [probe.schedule for probe in first] == [probe.schedule for probe in second]


@pytest.mark.parametrize("block_size", BLOCK_SIZES)
def test_a_usual_plan_needs_few_networks_beyond_the_random_ones(block_size: int) -> None:
    """They cost profile time; measured for the three presets: at most 7."""
    for preset in ("digits", "fashion-mnist", "cifar10-small"):
        plan = plan_profile(preset_space(preset), num_networks=96, deployment=Blocks(block_size=block_size))
        assert len(plan) - 96 <= 8


def test_given_widths_and_resolutions_are_covered_and_no_others() -> None:
    plan = plan_profile(
        TINY, num_networks=4, deployment=Blocks(block_size=16), widths=[10, 26], resolutions=[12]
    )
    images = {tuple(probe.schedule.inputs["input"]) for probe in plan}
    assert images == {(1, 1, 12, 12)}
    assert {probe.schedule.kernels[0].kernel.output[1] for probe in plan} == {10, 26}
    model, sized = table_of(plan, 16), replace(TINY, input_shape=(1, 12, 12))
    rng = random.Random(0)
    assert unknown(model, [random_architecture(sized, rng, width=w) for w in [10, 26] * 20]) == set()


def test_representatives_are_all_narrow_widths_and_the_widest_of_each_remainder() -> None:
    # Blocks of 8, remainders by 16: all below 16, and 50 to 64 for the eight remainders of even widths.
    assert representatives(range(2, 65, 2), Blocks(block_size=8)) == (
        2,
        4,
        6,
        8,
        10,
        12,
        14,
        50,
        52,
        54,
        56,
        58,
        60,
        62,
        64,
    )
    assert representatives(range(4, 5, 4), Blocks(block_size=16)) == (4,)
    assert representatives(range(48, 193, 48), Blocks(block_size=0)) == (48, 192)


def test_what_is_of_another_category_or_far_larger_or_smaller_is_missing() -> None:
    def conv(channels: int, *, kernel_size: int = 1) -> Kernel:
        return Kernel(
            op="conv", inputs=((1, channels, 8, 8),), output=(1, channels, 8, 8),
            kernel_size=(kernel_size, kernel_size), num_weights=(channels * kernel_size) ** 2,
        )  # fmt: skip

    covered = CoveredKernels([conv(16), conv(20), conv(24)])
    # Weights and multiply-adds go with the square: 11² is just less than half of 16², 12² is more; so is
    # 34² a little more than twice 24², and 33² less.
    assert covered.missing([conv(12), conv(18), conv(33)]) == []
    assert covered.missing([conv(11), conv(34)]) == [conv(11), conv(34)]
    assert covered.missing([conv(16, kernel_size=3)]) == [conv(16, kernel_size=3)]
    few = CoveredKernels([conv(16), conv(20)])
    assert few.missing([conv(16), conv(18)]) == [conv(18)], "two kernels say little about the others"
    assert few.missing([conv(16), conv(20)]) == [], "the space has no third"


def test_needed_kernels_are_kernels_of_networks() -> None:
    """No category is asked for that no network has."""
    for seed in range(3):
        space = random_space(seed)
        for block_size in BLOCK_SIZES:
            needed = needed_kernels(space, Blocks(block_size=block_size))
            held = CoveredKernels(
                kernel
                for probe in plan_profile(
                    space, num_networks=NUM_RANDOM, deployment=Blocks(block_size=block_size)
                )
                for kernel in Blocks(block_size=block_size).kernels(probe.schedule)
            )
            assert held.missing(needed) == []
