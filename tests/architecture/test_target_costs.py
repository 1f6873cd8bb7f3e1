"""Costs of networks, blocks and operations: by hand, additive, the same from every side."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import fields, replace

import pytest

from dsonas_hw.architecture.architecture import (
    Architecture,
    Block,
    close_block,
    complete_architecture,
    identity_architecture,
)
from dsonas_hw.architecture.costs import Costs, TargetCosts, peak_memory_bytes
from dsonas_hw.architecture.graph import BlockSegment, list_segments
from dsonas_hw.architecture.lower import lower, lower_segment
from dsonas_hw.architecture.sample import random_architecture
from dsonas_hw.budget import LIMITABLE, QUANTITIES, Metric
from dsonas_hw.cost.model import Prediction
from dsonas_hw.errors import ProfileError
from dsonas_hw.kernel.costs import count_costs
from dsonas_hw.kernel.spec import Kernel
from dsonas_hw.space.space import SearchSpace
from dsonas_hw.table.rows import Source
from dsonas_hw.target import Target

CIFAR = SearchSpace()
SMALL = SearchSpace(levels=2, stages=(1, 1), channels=8, input_shape=(3, 8, 8), share=False)
SEP3, SEP5, AVG3, MAX3 = 1, 2, 3, 4
STRICT = ("flops", "mac", "params", "latency_ms")
"""Of these an edge into the output always takes some."""


class KernelTimes:
    """A latency model: one microsecond per kernel and one nanosecond per element accessed."""

    source: Source = "measured"
    disclaimer = ""

    def __init__(self, *, batch_size: int = 1, fuse: bool = True) -> None:
        self.target = Target(device="toy", runtime="toy", batch_size=batch_size)
        self.fuse = fuse

    def why_not(self, metric: Metric) -> str:
        return "" if metric == "latency" else "nothing tells it"

    def kernel_cost(self, kernel: Kernel, metric: Metric = "latency") -> float:
        assert kernel.batch_size == self.target.batch_size
        return 1e-3 + 1e-6 * kernel.mac

    def predict(self, kernels: Sequence[Kernel], metric: Metric = "latency") -> Prediction:
        total = sum(map(self.kernel_cost, kernels))
        return Prediction(value=total, low=total, high=total, source=self.source)


def cifar_block(stage: int, *, channels: int = 48) -> BlockSegment:
    """The complete block of a stage, `channels` wide in the first."""
    segments = [s for _, s in list_segments(complete_architecture(CIFAR, width=channels))]
    blocks = [s for s in segments if isinstance(s, BlockSegment)]
    return blocks[8 * stage]


# -- goldens --------------------------------------------------------------------------------------------


def test_multiply_adds_of_the_papers_operations() -> None:
    block, target = cifar_block(0), TargetCosts()  # 48 × 32×32
    # Depthwise 48·32²·3² + pointwise 48²·32² = 442,368 + 2,359,296.
    assert target.operation_cost(block, SEP3, "flops") == 2_801_664
    # Depthwise 48·32²·5² + pointwise 48²·32² = 1,228,800 + 2,359,296.
    assert target.operation_cost(block, SEP5, "flops") == 3_588_096
    assert target.operation_cost(block, AVG3, "flops") == target.operation_cost(block, MAX3, "flops") == 0
    # 1×1 over 16 branches: 16·48·48·32².
    merge = lower_segment(block, 1, True)[-2]
    assert merge.flops == 37_748_736


def test_the_authors_hard_coded_mac_ratios() -> None:
    block, target = cifar_block(1), TargetCosts()
    assert block.shape == (96, 16, 16)
    largest = target.operation_cost(block, SEP5, "mac")
    # 4·hwc + k²c + c² = 98,304 + 2,400 + 9,216
    assert largest == 109_920
    relative = [target.operation_cost(block, node, "mac") / largest for node in (SEP3, SEP5, AVG3, MAX3)]
    assert relative == pytest.approx([0.986, 1.0, 0.447, 0.447], abs=5e-4)
    alone = BlockSegment(close_block(CIFAR, [(0, 1), (1, 17)]), block.operations, block.shape, shortcut=False)
    merge = lower_segment(alone, 1, True)[-2]
    # 2·hwc + c² = 49,152 + 9,216; the authors' 0.448 takes c² for c.
    assert merge.mac == 58_368
    assert merge.mac / largest == pytest.approx(0.531, abs=5e-4)


def test_smallest_network_by_hand() -> None:
    space = SearchSpace(levels=1, operations=("sep3",), stages=(1,), channels=4, input_shape=(1, 2, 2))
    costs = TargetCosts().costs(identity_architecture(space))
    # Stem 3×3, 1 → 4 channels on 2×2: 4·4·9 multiply-adds; classifier 4 × 10.
    assert costs.flops == 144 + 40
    # Stem 4 + 16 + 36; BN 16 + 16; pool 16 + 4; classifier 4 + 10 + 40.
    assert costs.mac == 56 + 32 + 20 + 54
    # Stem 36 + 4; BN 8; classifier 40 + 10.
    assert costs.params == 40 + 8 + 50
    # The largest moment: BN reads 16 elements and writes 16, 4 bytes each.
    assert costs.memory_bytes == 32 * 4
    assert costs.latency_ms is None
    assert costs.energy_mj is None


# -- laws -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_costs_add_up_over_kernels_and_segments(seed: int) -> None:
    architecture = random_architecture(SMALL, random.Random(seed))
    target = TargetCosts(KernelTimes())
    costs, counted = target.costs(architecture), count_costs(lower(architecture))
    assert (costs.flops, costs.mac, costs.params) == (counted.flops, counted.mac, counted.params)
    kernels = [k for _, s in list_segments(architecture) for k in lower_segment(s, 1, True)]
    assert tuple(kernels) == lower(architecture)
    for quantity, value in costs.to_dict().items():
        assert target.cost(architecture, quantity) == value


@pytest.mark.parametrize("seed", range(5))
def test_a_block_costs_its_operations_sums_and_merge(seed: int) -> None:
    architecture, target = random_architecture(SMALL, random.Random(seed)), TargetCosts(KernelTimes())
    segment = next(s for _, s in list_segments(architecture) if isinstance(s, BlockSegment))
    rest = [k for k in lower_segment(segment, 1, True) if k.op in ("sum", "concat") or is_merge(segment, k)]
    for name in ("flops", "mac"):
        operations = sum(target.operation_cost(segment, node, name) for node in segment.block.nodes)
        assert target.block_cost(segment, name) == operations + sum(getattr(k, name) for k in rest)
    times = sum(target.operation_cost(segment, node, "latency") for node in segment.block.nodes)
    expected = times + sum(map(KernelTimes().kernel_cost, rest))
    assert target.block_cost(segment, "latency") == pytest.approx(expected)


def is_merge(segment: BlockSegment, kernel: Kernel) -> bool:
    """The block's last convolution; its position is fixed, its shape may be that of a pointwise one."""
    return kernel is [k for k in lower_segment(segment, 1, True) if k.op == "conv"][-1]


def test_what_a_budget_can_limit_is_what_is_counted_or_measured() -> None:
    assert {cost.quantity for cost in LIMITABLE.values()} == {field.name for field in fields(Costs)}


@pytest.mark.parametrize("quantity", [one for one in QUANTITIES.values() if one != "energy_mj"])
@pytest.mark.parametrize("seed", range(3))
def test_wider_and_fuller_never_cost_less(seed: int, quantity: str) -> None:
    rng, target = random.Random(seed), TargetCosts(KernelTimes())
    architecture = random_architecture(SMALL, rng)
    by_width = [target.cost(architecture.with_width(width), quantity) for width in SMALL.widths()]
    assert by_width == sorted(by_width)
    if quantity != "memory_bytes":
        for number in range(SMALL.num_blocks):
            fewer = (*architecture.blocks[:number], without_an_output(architecture.blocks[number]))
            fewer += architecture.blocks[number + 1 :]
            sparser = Architecture(space=SMALL, blocks=fewer, width=architecture.width)
            less, more = target.cost(sparser, quantity), target.cost(architecture, quantity)
            assert less < more or (less == more and quantity not in STRICT)


def without_an_output(block: Block) -> Block:
    edges = [(s, t) for t, sources in enumerate(block.inputs, start=1) for s in sources]
    edges += [(s, SMALL.num_nodes + 1) for s in block.output[1:]]
    return close_block(SMALL, edges)


def test_latency_is_asked_for_the_batch_and_the_kernels_the_model_knows() -> None:
    architecture = random_architecture(SMALL, random.Random(0))
    for batch_size in (1, 4):
        for fuse in (True, False):
            model = KernelTimes(batch_size=batch_size, fuse=fuse)
            kernels = lower(architecture, batch_size=batch_size, fuse=fuse)
            costs = TargetCosts(model).costs(architecture)
            assert costs.latency_ms == pytest.approx(sum(map(model.kernel_cost, kernels)))


def test_counts_are_per_image_and_memory_is_per_batch() -> None:
    architecture = complete_architecture(SMALL)
    one, eight = (
        TargetCosts().costs(architecture),
        TargetCosts(target=Target(runtime="toy", batch_size=8)).costs(architecture),
    )
    assert (one.flops, one.mac, one.params) == (eight.flops, eight.mac, eight.params)
    assert eight.memory_bytes == 8 * one.memory_bytes
    assert peak_memory_bytes(architecture, Target(runtime="toy", precision="fp16")) * 2 == one.memory_bytes
    assert (
        TargetCosts(target=Target(runtime="toy", precision="int8")).costs(architecture).memory_bytes * 4
        == one.memory_bytes
    )


def test_latency_without_a_model_is_unknown_never_zero() -> None:
    target, architecture = TargetCosts(), complete_architecture(SMALL)
    assert target.cost(architecture, "latency_ms") is None
    assert target.cost(architecture, "energy_mj") is None
    segment = cifar_block(0)
    with pytest.raises(ValueError, match="nothing here predicts latency"):
        target.operation_cost(segment, SEP3, "latency")


class LacksThinKernels(KernelTimes):
    """A profile in which kernels of fewer than 16 channels were never measured."""

    def why_not(self, metric: Metric) -> str:
        return "" if metric == "latency" else "nothing tells it"

    def kernel_cost(self, kernel: Kernel, metric: Metric = "latency") -> float:
        if kernel.inputs[0][1] < 16 and kernel.op == "conv":
            raise ProfileError("1 kernel was never measured")
        return super().kernel_cost(kernel)


def test_a_kernel_that_the_profile_lacks_leaves_only_latency_unknown() -> None:
    thin = complete_architecture(SMALL, width=8)
    target = TargetCosts(LacksThinKernels())
    assert target.costs(thin) == replace(TargetCosts(KernelTimes()).costs(thin), latency_ms=None)
    with pytest.raises(ProfileError, match="never measured"):
        target.cost(thin, "latency_ms")
    assert target.cost(thin, "mac") == target.costs(thin).mac
