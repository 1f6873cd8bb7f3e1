"""The law everything rests on: the kernels of an architecture are those of its exported ONNX file."""

from __future__ import annotations

import random
from typing import Any

import pytest

from dsonas_hw.architecture.architecture import (
    Architecture,
    close_block,
    complete_architecture,
    complete_block,
    identity_architecture,
)
from dsonas_hw.architecture.costs import TargetCosts, peak_memory_bytes
from dsonas_hw.architecture.lower import lower
from dsonas_hw.architecture.onnx import build_onnx
from dsonas_hw.architecture.sample import random_architecture
from dsonas_hw.kernel.costs import count_costs
from dsonas_hw.kernel.onnx.from_onnx import network_from_onnx
from dsonas_hw.space.operations import OPERATIONS
from dsonas_hw.space.space import SearchSpace
from dsonas_hw.target import Target

SMALL: dict[str, Any] = {"levels": 3, "stages": (1, 2), "channels": 8, "input_shape": (3, 13, 9)}
STEMS = {
    "cifar": SMALL,
    "strided": {**SMALL, "stem": "strided"},
    "imagenet": {**SMALL, "stem": "imagenet", "input_shape": (3, 45, 33)},
}
SPACES = {
    f"{stem} {'share' if share else 'full'}{' shortcut' if shortcut else ''}": SearchSpace(
        **sizes, share=share, stage_shortcut=shortcut
    )
    for stem, sizes in STEMS.items()
    for share in (True, False)
    for shortcut in (True, False)
}
SPACES["every operation"] = SearchSpace(
    levels=2, operations=tuple(OPERATIONS), stages=(1, 1), channels=4, input_shape=(1, 8, 8), share=False
)


def assert_law(architecture: Architecture, *, batch_size: int = 1) -> None:
    deployed = build_onnx(architecture, batch_size=batch_size)
    fused = network_from_onnx(deployed)
    unfused = network_from_onnx(deployed, fuse=False)
    assert fused.unknown == unfused.unknown == ()
    assert fused.kernels == lower(architecture, batch_size=batch_size)
    assert unfused.kernels == lower(architecture, batch_size=batch_size, fuse=False)
    assert fused.peak_activation_elements is not None
    assert 4 * fused.peak_activation_elements == peak_memory_bytes(
        architecture, Target(runtime="any", batch_size=batch_size)
    )


@pytest.mark.parametrize("batch_size", [1, 8])
@pytest.mark.parametrize("name", SPACES)
def test_random_architectures(name: str, batch_size: int) -> None:
    for seed in range(4):
        architecture = random_architecture(SPACES[name], random.Random(seed), width=4 + 4 * seed)
        assert_law(architecture, batch_size=batch_size)


@pytest.mark.parametrize("name", SPACES)
def test_extremes(name: str) -> None:
    assert_law(complete_architecture(SPACES[name]))
    assert_law(identity_architecture(SPACES[name]))


def test_identities_between_blocks() -> None:
    space = SPACES["cifar full shortcut"]
    complete, identity = complete_block(space), close_block(space, ())
    for blocks in [
        (identity, complete, identity),
        (complete, identity, identity),
        (identity, identity, complete),
    ]:
        assert_law(Architecture(space=space, blocks=blocks, width=8))


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_operation_alone(operation: str) -> None:
    space = SearchSpace(**{**SMALL, "levels": 2, "operations": (operation,)})
    assert_law(complete_architecture(space))
    single = close_block(space, [(0, 1), (1, 3)])
    assert_law(Architecture(space=space, blocks=(single,) * 3, width=8), batch_size=2)


@pytest.mark.parametrize("side", [1, 2, 3])
def test_images_down_to_one_pixel(side: int) -> None:
    space = SearchSpace(**{**SMALL, "levels": 1, "input_shape": (1, side, side), "stages": (1, 1, 1)})
    assert_law(complete_architecture(space))


def test_an_open_batch_is_read_at_any_size() -> None:
    architecture = random_architecture(SPACES["cifar share"], random.Random(3))
    model = build_onnx(architecture, batch_size=None)
    for batch_size in (1, 8):
        read = network_from_onnx(model, batch_size=batch_size)
        assert read.kernels == lower(architecture, batch_size=batch_size)


def test_costs_are_those_of_the_file() -> None:
    target = TargetCosts()
    for seed in range(5):
        architecture = random_architecture(SPACES["every operation"], random.Random(seed))
        counted = count_costs(network_from_onnx(build_onnx(architecture)).kernels)
        costs = target.costs(architecture)
        assert (costs.flops, costs.mac, costs.params) == (counted.flops, counted.mac, counted.params)


def test_the_complete_cifar_network() -> None:
    assert_law(complete_architecture(SearchSpace(stages=(1, 1, 1), share=False)))
