"""The PyTorch network is the network that is exported, whatever the architecture."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from dsonas_hw.architecture.architecture import (
    Architecture,
    complete_architecture,
    identity_architecture,
)
from dsonas_hw.architecture.graph import build_graph
from dsonas_hw.architecture.onnx import build_onnx, random_weights
from dsonas_hw.architecture.sample import random_architecture
from dsonas_hw.space.operations import OPERATIONS
from dsonas_hw.space.space import SearchSpace
from dsonas_hw.train.layers import Conv, draw_he_weights
from dsonas_hw.train.network import DerivedNetwork

SMALL: dict[str, Any] = {"levels": 2, "stages": (1, 2), "channels": 8, "input_shape": (3, 9, 9)}
SPACES = {
    "share": SearchSpace(**SMALL, share=True),
    "full": SearchSpace(**SMALL, share=False, stage_shortcut=True),
    "imagenet stem": SearchSpace(**{**SMALL, "input_shape": (3, 30, 22)}, stem="imagenet", share=False),
    "every operation": SearchSpace(**{**SMALL, "operations": tuple(OPERATIONS), "stages": (1, 1)}),
}


def trained_looking(architecture: Architecture, **options: Any) -> DerivedNetwork:
    """A network whose batch norms are anything but the identity, in evaluation mode."""
    torch.manual_seed(0)
    network = DerivedNetwork(architecture, **options)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            for tensor in (module.weight.data, module.running_var):
                tensor.uniform_(0.5, 2.0)
            for tensor in (module.bias.data, module.running_mean):
                tensor.normal_(0.0, 0.3)
    return network.eval()


def run_onnx(network: DerivedNetwork, images: Tensor) -> Tensor:
    model = build_onnx(network.architecture, network.named_arrays(), batch_size=None)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"input": images.numpy()})[0])


def assert_same_output(architecture: Architecture) -> None:
    network = trained_looking(architecture)
    images = torch.randn(3, *architecture.space.input_shape)
    with torch.no_grad():
        expected = network(images)
    scale = expected.abs().max().item()
    torch.testing.assert_close(run_onnx(network, images), expected, rtol=1e-4, atol=1e-4 * scale)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", SPACES)
def test_torch_and_onnx_agree_on_random_architectures(name: str, seed: int) -> None:
    assert_same_output(random_architecture(SPACES[name], random.Random(seed), width=12))


@pytest.mark.parametrize("name", SPACES)
def test_torch_and_onnx_agree_on_the_extremes(name: str) -> None:
    assert_same_output(complete_architecture(SPACES[name]))
    assert_same_output(identity_architecture(SPACES[name]))


@pytest.mark.parametrize("operation", OPERATIONS)
def test_torch_and_onnx_agree_on_every_operation_alone(operation: str) -> None:
    space = SearchSpace(**{**SMALL, "operations": (operation,)})
    assert_same_output(complete_architecture(space))


@pytest.mark.parametrize("name", SPACES)
def test_arrays_are_exactly_what_the_export_reads(name: str) -> None:
    architecture = complete_architecture(SPACES[name])
    arrays = DerivedNetwork(architecture, auxiliary=True).named_arrays()
    expected = random_weights(build_graph(architecture))
    assert {k: v.shape for k, v in arrays.items()} == {k: v.shape for k, v in expected.items()}
    assert all(array.dtype == np.float32 for array in arrays.values())


def test_arrays_carry_a_network_over() -> None:
    source = trained_looking(complete_architecture(SPACES["full"]))
    copy = DerivedNetwork(source.architecture).eval()
    copy.load_named_arrays(source.named_arrays())
    images = torch.randn(2, 3, 9, 9)
    with torch.no_grad():
        assert torch.equal(copy(images), source(images))


def test_arrays_of_another_network_are_refused() -> None:
    narrow = DerivedNetwork(complete_architecture(SPACES["share"], width=4))
    wide = DerivedNetwork(complete_architecture(SPACES["share"], width=8))
    with pytest.raises(ValueError, match=r"has shape .* the network needs"):
        wide.load_named_arrays(narrow.named_arrays())


@pytest.mark.parametrize(
    ("stages", "stem", "side", "reads"),
    [((1, 1, 1), "cifar", 32, (16, 8, 8)), ((1, 1, 1, 1), "imagenet", 224, (32, 7, 7))],
)
def test_auxiliary_head_reads_the_output_of_the_last_reduction(
    stages: tuple[int, ...], stem: str, side: int, reads: tuple[int, int, int]
) -> None:
    space = SearchSpace(
        levels=1, stages=stages, channels=4, stem=stem, input_shape=(3, side, side), num_classes=5
    )  # type: ignore[arg-type]
    network = DerivedNetwork(identity_architecture(space), auxiliary=True)
    assert network.auxiliary is not None
    seen: list[Tensor] = []
    network.auxiliary.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    network.layers[f"reduction{len(stages) - 1}/out"].register_forward_hook(
        lambda module, inputs, output: seen.insert(0, output)
    )
    network.auxiliary.features[2].register_forward_hook(lambda module, inputs, output: seen.append(output))
    logits, auxiliary = network.forward_with_auxiliary(torch.randn(2, 3, side, side))
    assert auxiliary is not None
    assert auxiliary.shape == logits.shape == (2, 5)
    assert seen[0] is seen[1]
    assert seen[0].shape == (2, *reads)  # every reduction doubles the channels
    assert seen[2].shape == (2, reads[0], 2, 2)  # (8 − 5) / 3 + 1 and (7 − 5) / 2 + 1
    network.eval()
    assert network.forward_with_auxiliary(torch.randn(2, 3, side, side))[1] is None


def test_one_stage_has_no_auxiliary_head() -> None:
    space = SearchSpace(levels=1, stages=(2,), channels=4, input_shape=(3, 8, 8))
    assert DerivedNetwork(complete_architecture(space), auxiliary=True).auxiliary is None


@pytest.mark.parametrize("side", [2, 3, 4, 5, 7, 15])
def test_auxiliary_head_fits_every_resolution(side: int) -> None:
    space = SearchSpace(levels=1, stages=(1, 1), channels=4, input_shape=(1, side, side + 1))
    network = DerivedNetwork(complete_architecture(space), auxiliary=True)
    _, auxiliary = network.forward_with_auxiliary(torch.randn(2, 1, side, side + 1))
    assert auxiliary is not None
    assert auxiliary.shape == (2, 10)


def test_he_weights_have_the_variance_of_huang_and_wang() -> None:
    torch.manual_seed(0)
    network = DerivedNetwork(complete_architecture(SearchSpace(stages=(1, 1))), auxiliary=True)
    draw_he_weights(network)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear) and layer.weight.numel() > 2000:
            fan_in = layer.weight[0].numel()
            assert layer.weight.var().item() == pytest.approx(2 / fan_in, rel=0.15)
            # Of a Gaussian 31.7 % lie beyond one standard deviation, of a uniform draw 42.3 %.
            outside = (layer.weight.abs() > layer.weight.std()).float().mean().item()
            assert outside == pytest.approx(0.317, abs=0.03)
            assert layer.bias is None or not layer.bias.any()


def test_gradients_reach_every_weight() -> None:
    network = DerivedNetwork(complete_architecture(SPACES["every operation"]), auxiliary=True)
    logits, auxiliary = network.forward_with_auxiliary(torch.randn(4, 3, 9, 9))
    assert auxiliary is not None
    (logits.square().sum() + auxiliary.square().sum()).backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("channels", [1, 4, 7, 8])
def test_a_1x1_convolution_of_stride_2_is_torch_s(channels: int) -> None:
    # Below 8 channels it goes another way, since oneDNN's weight gradient corrupts memory there.
    torch.manual_seed(0)
    conv = Conv(channels, 2 * channels, 1, 2, bias=False)
    x = torch.randn(2, channels, 5, 6).to(memory_format=torch.channels_last)
    plain = torch.nn.functional.conv2d(x.contiguous(), conv.weight.contiguous(), stride=2)
    torch.testing.assert_close(conv(x), plain)
    (found,) = torch.autograd.grad(conv(x).square().sum(), [conv.weight])
    expected = torch.einsum("bohw,bihw->oi", 2 * plain, x[:, :, ::2, ::2])
    torch.testing.assert_close(found[:, :, 0, 0], expected, rtol=1e-4, atol=1e-4)
