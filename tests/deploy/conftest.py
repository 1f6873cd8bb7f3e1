"""A small network with weights, and images to run it on."""

from __future__ import annotations

import pytest
import torch

from dsonas_hw.architecture.architecture import Architecture, complete_architecture
from dsonas_hw.architecture.onnx import Array
from dsonas_hw.config import DataConfig
from dsonas_hw.space.space import SearchSpace
from dsonas_hw.train.data import Dataset, load_dataset
from dsonas_hw.train.network import DerivedNetwork


@pytest.fixture(scope="session")
def digits() -> Dataset:
    return load_dataset(DataConfig(dataset="digits", subset=100, test_subset=70))


@pytest.fixture(scope="session")
def architecture() -> Architecture:
    return complete_architecture(SearchSpace(levels=1, stages=(1, 1), channels=8, input_shape=(1, 8, 8)))


@pytest.fixture(scope="session")
def arrays(architecture: Architecture) -> dict[str, Array]:
    """Weights after a few images have moved the batch statistics."""
    torch.manual_seed(0)
    network = DerivedNetwork(architecture).train()
    with torch.no_grad():
        for _ in range(5):
            network(torch.randn(32, 1, 8, 8))
    return network.named_arrays()
