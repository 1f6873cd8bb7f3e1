"""The kernels of random networks from PyTorch, derived from the file and as it runs; see `ort_law`."""

from __future__ import annotations

from collections import Counter

import onnx
import pytest
from ort_law import assert_deployed, rules_apply, running_kernels
from random_modules import draw_module, export, fill

from dsonas_hw.kernel.onnx.from_onnx import network_from_onnx
from dsonas_hw.runtime.ort_cpu.layout import Blocks

pytestmark = rules_apply

NUM_NETWORKS = 60
PER_TEST = 10


@pytest.mark.parametrize("first", range(0, NUM_NETWORKS, PER_TEST))
def test_derived_kernels_are_those_that_run(first: int) -> None:
    for index in range(first, first + PER_TEST):
        module, shape = draw_module(index)
        fill(module)
        model = export(module, shape, fold=index % 2 == 0)
        network = network_from_onnx(onnx.load_model_from_string(model))
        schedule, unknown = network.schedule, network.unknown
        assert unknown == ()
        assert_deployed(model, schedule, batch_size=shape[0])


def test_nodes_without_names_are_described_as_well() -> None:
    """The profiler's events are matched with nodes by name."""
    module, shape = draw_module(1)
    fill(module)
    proto = onnx.load_model_from_string(export(module, shape))
    schedule = network_from_onnx(proto).schedule
    for node in proto.graph.node:
        node.name = ""
    running = running_kernels(proto.SerializeToString(), batch_size=shape[0], with_blocks=False)
    assert running == Counter(Blocks(block_size=0).kernels(schedule))
