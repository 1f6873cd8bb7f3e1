"""The registry: one entry is all that a new operation needs."""

from __future__ import annotations

import random

import pytest
import torch

from dsonas_hw.architecture.architecture import complete_architecture
from dsonas_hw.architecture.graph import build_graph
from dsonas_hw.architecture.lower import lower
from dsonas_hw.architecture.onnx import build_onnx
from dsonas_hw.architecture.sample import random_architecture
from dsonas_hw.errors import UserError
from dsonas_hw.kernel.onnx.from_onnx import network_from_onnx
from dsonas_hw.search.supernet import Supernet
from dsonas_hw.space.operations import OPERATIONS, Layer, Operation, get_operation, register
from dsonas_hw.space.space import SearchSpace
from dsonas_hw.train.network import DerivedNetwork


def test_the_papers_operations_are_there() -> None:
    assert list(OPERATIONS)[:4] == ["sep3", "sep5", "avg3", "max3"]
    sep5 = get_operation("sep5")
    assert [(layer.kind, layer.kernel_size) for layer in sep5.layers] == [("depthwise", 5), ("pointwise", 1)]


def test_unknown_operations_are_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"unknown operation 'sep_3'\. Did you mean"):
        get_operation("sep_3")


def test_a_name_is_taken_once() -> None:
    with pytest.raises(ValueError, match="registered already"):
        register("sep3", "another")


@pytest.mark.parametrize(("kernel_size", "dilation"), [(2, 1), (0, 1), (3, 0)])
def test_a_layer_must_keep_the_resolution(kernel_size: int, dilation: int) -> None:
    with pytest.raises(ValueError, match="odd"):
        Layer(kind="conv", kernel_size=kernel_size, dilation=dilation)


@pytest.fixture
def twice(monkeypatch: pytest.MonkeyPatch) -> Operation:
    """DARTS' separable convolution: every layer twice."""
    monkeypatch.setattr("dsonas_hw.space.operations.OPERATIONS", OPERATIONS | {})
    layers = (Layer(kind="depthwise", kernel_size=3), Layer(kind="pointwise")) * 2
    return register("sep3x2", "2 × sep 3×3", *layers)


def test_a_registered_operation_works_everywhere(twice: Operation) -> None:
    space = SearchSpace(
        levels=2, operations=(twice.name, "avg3"), stages=(1, 1), channels=4, input_shape=(3, 8, 8)
    )
    for architecture in (complete_architecture(space), random_architecture(space, random.Random(0))):
        nodes = build_graph(architecture)
        assert len({node.name for node in nodes}) == len(nodes)
        kernels = network_from_onnx(build_onnx(architecture)).kernels
        assert kernels == lower(architecture)
        assert DerivedNetwork(architecture)(torch.randn(2, 3, 8, 8)).shape == (2, 10)
    assert Supernet(space)(torch.randn(2, 3, 8, 8)).shape == (2, 10)
