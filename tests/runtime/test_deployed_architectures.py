"""The kernels of random architectures, derived and as ONNX Runtime runs them; see `ort_law`."""

from __future__ import annotations

from collections import Counter

import onnx
import pytest
from ort_law import assert_deployed, rules_apply
from random_architectures import STAGES, WIDTHS, draw_architecture

from dsonas_hw.architecture.lower import lower
from dsonas_hw.architecture.onnx import model_bytes
from dsonas_hw.architecture.schedule import schedule_of
from dsonas_hw.kernel.onnx.from_onnx import network_from_onnx
from dsonas_hw.runtime.ort_cpu.layout import Blocks
from dsonas_hw.space.operations import OPERATIONS
from dsonas_hw.space.space import STEMS

pytestmark = rules_apply

NUM_NETWORKS = 240
PER_TEST = 20


@pytest.mark.parametrize("first", range(0, NUM_NETWORKS, PER_TEST))
def test_derived_kernels_are_those_that_run(first: int) -> None:
    """From the architecture, and from its file; and the file has the kernels of the architecture."""
    for index in range(first, first + PER_TEST):
        architecture, batch_size = draw_architecture(index)
        model = model_bytes(architecture, batch_size=batch_size, seed=index)
        schedule = schedule_of(architecture, batch_size=batch_size)
        assert_deployed(model, schedule, batch_size=batch_size)
        network = network_from_onnx(onnx.load_model_from_string(model))
        read, unknown = network.schedule, network.unknown
        assert unknown == ()
        kernels = tuple(step.kernel for step in read.kernels)
        assert kernels == lower(architecture, batch_size=batch_size)
        for block_size in (0, 8, 16):
            derived = Blocks(block_size=block_size).kernels(read)
            assert Counter(derived) == Counter(Blocks(block_size=block_size).kernels(schedule))


def test_the_networks_differ_in_all_that_counts() -> None:
    drawn = [draw_architecture(index) for index in range(NUM_NETWORKS)]
    spaces = [architecture.space for architecture, _ in drawn]
    used = {
        space.operation_of(node).name
        for (architecture, _), space in zip(drawn, spaces, strict=True)
        for block in architecture.blocks
        for node in block.nodes
    }
    assert used == set(OPERATIONS)
    assert {architecture.width for architecture, _ in drawn} == set(WIDTHS)
    assert {(space.stem, space.share) for space in spaces} == {(s, b) for s in STEMS for b in (True, False)}
    assert {space.input_shape[0] for space in spaces} == {1, 2, 3}
    assert {space.stages for space in spaces} == set(STAGES)
    assert {batch_size for _, batch_size in drawn} == {1, 2, 3}
