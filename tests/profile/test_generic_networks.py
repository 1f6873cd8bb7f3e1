"""The networks that a profile of arbitrary networks is fitted on."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from dsonas_hw.cost.kernel_costs import category_of
from dsonas_hw.profile.generic_networks import BLOCKS, MAX_FLOPS, NUM_NETWORKS, Style, generic_networks
from dsonas_hw.profile.graph_builder import GraphBuilder
from dsonas_hw.runtime.ort.session import import_onnxruntime
from dsonas_hw.runtime.ort_cpu.layout import Blocks


def test_equal_arguments_give_equal_networks() -> None:
    first, second = (list(generic_networks(num_networks=6)) for _ in range(2))
    assert [probe.name for probe in first] == [probe.name for probe in second]
    assert [probe.schedule for probe in first] == [probe.schedule for probe in second]
    assert first[0].build() == second[0].build()
    other = list(generic_networks(num_networks=6, seed=1))
    assert all(a.schedule != b.schedule for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("block_size", [0, 8, 16])
def test_together_they_hold_every_category_in_wide_use(block_size: int) -> None:
    found = Counter(
        category_of(kernel)
        for probe in generic_networks()
        for kernel in Blocks(block_size=block_size).kernels(probe.schedule)
    )
    layout = "blocked" if block_size else "plain"
    for geometry in ("dense", "pointwise", "depthwise", "grouped"):
        assert found["conv", geometry, layout] >= 10, geometry
    for op in ("maxpool", "avgpool", "global_avgpool"):
        assert found["pool", op, layout] >= 10, op
    assert found["elementwise", "mul", "broadcast"] >= 10  # squeeze-excitation
    assert found["copy", "concat"] >= 50
    assert found["product", "gemm"] >= 50


def test_every_network_is_affordable_and_as_counted() -> None:
    probes = list(generic_networks())
    assert len(probes) == NUM_NETWORKS
    assert all(0 < probe.flops <= MAX_FLOPS for probe in probes)
    assert len({probe.name for probe in probes}) == NUM_NETWORKS


@pytest.mark.parametrize("block", dict.fromkeys(BLOCKS), ids=lambda block: block.__name__)
@pytest.mark.parametrize("squeeze", ["", "hardsigmoid"])
def test_onnx_runtime_computes_the_shapes_that_a_block_says(block, squeeze: str) -> None:  # type: ignore[no-untyped-def]
    for stride, activation, kernel_size in ((1, "relu6", 3), (2, "silu", 5), (2, "hardswish", 7)):
        style = Style(
            activation=activation, kernel_size=kernel_size, expansion=2.0, group_width=8, squeeze=squeeze
        )
        builder = GraphBuilder(seed=0)
        image = builder.input(1, 16, 12, 12)
        output = block(builder, image, 24, stride, style)
        model = builder.model(output).SerializeToString()
        session = import_onnxruntime().InferenceSession(model, providers=["CPUExecutionProvider"])
        (value,) = session.run(None, {"image": np.ones((1, 16, 12, 12), np.float32)})
        assert value.shape == output.shape
        assert np.isfinite(value).all()
