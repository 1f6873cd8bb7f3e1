"""Hand-made families: what is trained is what is measured, and resumes bit for bit."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from dsonas_hw.config import DataConfig, build_config, load_preset, overlay
from dsonas_hw.errors import UserError
from dsonas_hw.kernel.onnx.from_onnx import network_from_onnx
from dsonas_hw.run_directory import RunDirectory
from dsonas_hw.train.data import load_dataset
from dsonas_hw.train.families import FAMILIES
from dsonas_hw.train.hand_made import (
    HandMadeNetwork,
    hand_made_from_json,
    hand_made_onnx,
    layer_shapes,
    parse_family,
)
from dsonas_hw.train.retrain import retrain
from dsonas_hw.train.weights import load_weights

CPU = torch.device("cpu")
SMALL, LARGE = (1, 28, 28), (3, 224, 224)
SHAPES = [(1, 8, 8), SMALL, (3, 32, 32), LARGE]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_file_that_is_measured_computes_what_is_trained(family: str, shape: tuple[int, int, int]) -> None:
    network = parse_family(family, input_shape=shape, num_classes=7).with_width(8)
    model = hand_made_onnx(network, batch_size=2)
    torch.manual_seed(0)
    module = HandMadeNetwork(network).eval()
    images = torch.randn(2, *shape)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    found = session.run(["logits"], {"input": images.numpy()})[0]
    expected = module(images).detach().numpy()
    assert found.shape == (2, 7)
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()
    assert network_from_onnx(onnx.load_from_string(model), batch_size=2).unknown == ()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("shape", [SMALL, LARGE])
def test_wider_has_more_weights_in_every_layer(family: str, shape: tuple[int, int, int]) -> None:
    own = parse_family(family, input_shape=shape, num_classes=10)
    shapes = [layer_shapes(own.with_width(units)) for units in (4, 16, 32, 64, 128)]
    for narrow, wide in pairwise(shapes):
        assert len(narrow) == len(wide)
        assert all(np.prod(a) <= np.prod(b) for a, b in zip(narrow, wide, strict=True))
        assert narrow != wide


def test_large_images_have_torchvisions_own_networks() -> None:
    import torchvision.models as zoo

    pairs = {
        "resnet": zoo.resnet18(), "mobilenetv2": zoo.mobilenet_v2(), "regnet": zoo.regnet_x_400mf(),
        "shufflenetv2": zoo.shufflenet_v2_x1_0(), "efficientnet": zoo.efficientnet_b0(),
    }  # fmt: skip
    for family, published in pairs.items():
        own = layer_shapes(parse_family(family, input_shape=LARGE, num_classes=1000))
        theirs = [tuple(p.shape) for p in published.parameters()]
        share = sum(map(np.prod, own)) / sum(map(np.prod, theirs))
        assert len(own) == len(theirs), family
        assert 0.9 < share < 1.1, family  # channels are multiples of eight here


def test_variants_of_small_images() -> None:
    plain, strided, deep = (
        parse_family(name, input_shape=SMALL, num_classes=10)
        for name in ("resnet", "resnet-s2", "resnet-s2-d2")
    )
    assert (plain.title, strided.title, deep.title) == (
        "ResNet",
        "ResNet, stem/2",
        "ResNet, stem/2, depth ×2",
    )
    assert layer_shapes(plain) == layer_shapes(strided)
    assert len(layer_shapes(deep)) > len(layer_shapes(plain))
    assert HandMadeNetwork(strided).body[0](torch.zeros(1, 1, 28, 28)).shape[2] == 14
    assert hand_made_from_json(deep.to_json(), origin="here") == deep


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("resnext", SMALL, r"unknown family 'resnext'\. Did you mean resnet"),
        ("resnet-s3", SMALL, "unknown family"),
        ("resnet-s2", LARGE, "images of 224 pixels have the family's own stem and depth; say resnet"),
    ],
)
def test_what_is_no_family(name: str, shape: tuple[int, int, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_family(name, input_shape=shape, num_classes=10)


def test_killed_and_resumed_is_the_uninterrupted_training(tmp_path: Path) -> None:
    changes = {"retrain": {"epochs": 2, "batch_size": 32, "dropout": 0.2}, "train_on": "cpu"}
    config = build_config(overlay(load_preset("digits"), changes))
    dataset = load_dataset(DataConfig(dataset="digits", subset=128, test_subset=32))
    network = parse_family("efficientnet", input_shape=(1, 8, 8), num_classes=10).with_width(8)

    class KilledError(Exception):
        pass

    def kill(done: int, total: int, text: str) -> None:
        if done >= 4:
            raise KilledError

    runs = [RunDirectory(tmp_path / name) for name in ("whole", "killed")]
    for run in runs:
        run.create(config)
    whole = retrain(runs[0], config, network, dataset, device=CPU)
    with pytest.raises(KilledError):
        retrain(runs[1], config, network, dataset, device=CPU, progress=kill)
    resumed = retrain(runs[1], config, network, dataset, device=CPU, resume=True)
    assert resumed.test_accuracy == whole.test_accuracy
    weights, others = (load_weights(run.path / "weights.npz", network) for run in runs)
    assert weights.keys() == others.keys()
    assert all(np.array_equal(weights[name], others[name]) for name in weights)
