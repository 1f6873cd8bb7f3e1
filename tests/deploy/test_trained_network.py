"""A network leaves the run as PyTorch users expect one, comes back, and leaves nothing of the old weights."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dsonas_hw import load_network, save_network
from dsonas_hw.architecture.architecture import Architecture
from dsonas_hw.architecture.onnx import Array
from dsonas_hw.config import build_config, load_preset, overlay
from dsonas_hw.deploy.export import read_metadata
from dsonas_hw.deploy.export_and_validate import export_network
from dsonas_hw.errors import RunError, UserError
from dsonas_hw.files import write_json
from dsonas_hw.run_directory import RunDirectory
from dsonas_hw.train.data import Dataset
from dsonas_hw.train.data_batches import Batches
from dsonas_hw.train.network import DerivedNetwork
from dsonas_hw.train.preprocess import PREPROCESSING_NAME, save_preprocessing
from dsonas_hw.train.retrain import retrain
from dsonas_hw.train.weights import WEIGHTS_NAME, load_weights, save_weights


@pytest.fixture
def run(tmp_path: Path, architecture: Architecture, arrays: dict[str, Array], digits: Dataset) -> Path:
    """A run as a retraining leaves it."""
    path = tmp_path / "run"
    directory = RunDirectory(path)
    directory.create(build_config(overlay(load_preset("digits"), {"retrain": {"epochs": 1}})))
    write_json(directory.architecture_path, architecture.to_json())
    save_weights(path / WEIGHTS_NAME, architecture, arrays)
    save_preprocessing(path / PREPROCESSING_NAME, digits)
    write_json(path / "retrain.json", {"test_accuracy": 0.5})
    return path


def test_the_loaded_network_computes_what_the_run_s_does(
    run: Path, architecture: Architecture, arrays: dict[str, Array], digits: Dataset
) -> None:
    network = load_network(str(run))
    assert not network.training
    assert network.class_names == digits.class_names
    images, _ = next(Batches(images=digits.test, dataset=digits, batch_size=8, shuffle=False).epoch(0))
    pixels = digits.test.images[:8]  # type: ignore[union-attr]
    torch.testing.assert_close(network.preprocess(pixels), images, rtol=0, atol=0)
    picture = Image.fromarray(pixels[0, 0].numpy())
    torch.testing.assert_close(network.preprocess(picture), images[0], rtol=0, atol=0)
    trained = DerivedNetwork(architecture).eval()
    trained.load_named_arrays(arrays)
    torch.testing.assert_close(network(images), trained(images), rtol=0, atol=0)


def test_a_network_trained_on_elsewhere_is_exported_with_its_own_accuracy(
    run: Path, architecture: Architecture, digits: Dataset
) -> None:
    directory = RunDirectory(run)
    for path in (directory.model_path, directory.validation_path):
        path.write_text("of the old weights")
    network = load_network(run)
    network.train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    batches = Batches(images=digits.train, dataset=digits, batch_size=50)
    for epoch in range(3):
        for images, labels in batches.epoch(epoch):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(network(images), labels).backward()
            optimizer.step()
    network.eval()
    save_network(run, network)
    assert not directory.model_path.exists()
    assert not directory.validation_path.exists()
    again = load_network(run)
    images = digits.test.images[:5]  # type: ignore[union-attr]
    torch.testing.assert_close(again(again.preprocess(images)), network(network.preprocess(images)))
    export_network(directory, architecture, digits, batch_size=None)
    everything = network.preprocess(digits.test.images)  # type: ignore[union-attr]
    accuracy = float((network(everything).argmax(1) == digits.test.labels).float().mean())
    assert read_metadata(directory.model_path)["test_accuracy"] == pytest.approx(accuracy)
    assert json.loads((run / "retrain.json").read_text())["test_accuracy"] == pytest.approx(accuracy)


def test_half_precision_is_saved_as_fp32(run: Path, architecture: Architecture) -> None:
    network = load_network(run).to(torch.bfloat16)
    save_network(run, network)
    assert {array.dtype for array in load_weights(run / WEIGHTS_NAME, architecture).values()} == {
        np.dtype(np.float32)
    }


def test_what_is_not_the_run_s_network_is_refused_and_nothing_changes(run: Path) -> None:
    before = (run / WEIGHTS_NAME).read_bytes()
    network = load_network(run)
    other = copy.deepcopy(network)
    space = network.architecture.space
    wider = copy.deepcopy(network.architecture)
    object.__setattr__(wider, "width", 2 * network.architecture.width)
    other.architecture = wider
    with pytest.raises(RunError, match="another architecture"):
        save_network(run, other)
    head = copy.deepcopy(network)
    (name,) = [name for name, layer in head.layers.items() if isinstance(layer.main, torch.nn.Linear)]
    head.layers[name].main = torch.nn.Linear(head.layers[name].main.in_features, space.num_classes + 1)
    with pytest.raises(RunError, match="does not fit"):
        save_network(run, head)
    with pytest.raises(UserError, match=r"network\.module"):
        save_network(run, torch.nn.Sequential(network))
    with torch.no_grad():
        next(network.parameters()).fill_(float("nan"))
    with pytest.raises(UserError, match="not finite"):
        save_network(run, network)
    assert (run / WEIGHTS_NAME).read_bytes() == before
    assert (run / "retrain.json").exists()


def test_saved_weights_are_not_trained_over_by_resuming(
    run: Path, architecture: Architecture, digits: Dataset
) -> None:
    save_network(run, load_network(run))
    before = (run / WEIGHTS_NAME).read_bytes()
    directory = RunDirectory(run)
    config = directory.load_config()
    cpu = torch.device("cpu")
    with pytest.raises(RunError, match=r"saved by save_network.*dsonas-hw export"):
        retrain(directory, config, architecture, digits, device=cpu, resume=True)
    assert (run / WEIGHTS_NAME).read_bytes() == before


@pytest.mark.parametrize(
    "damage", ["{}", "[]", "nonsense", '{"class_names": [], "channel_order": "BGR", "resize": 8}']
)
def test_damaged_preprocessing_is_one_line(run: Path, damage: str) -> None:
    (run / PREPROCESSING_NAME).write_text(damage)
    with pytest.raises(RunError, match=r"damaged.*dsonas-hw retrain"):
        load_network(run)


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not a run directory"):
        load_network(tmp_path)


@pytest.mark.parametrize(
    "image", [torch.zeros(1, 8, 8), torch.zeros(2, 8, 8, dtype=torch.uint8), "seven.png"]
)
def test_what_is_no_image_is_refused(run: Path, image: object) -> None:
    with pytest.raises(UserError, match="image"):
        load_network(run).preprocess(image)  # type: ignore[arg-type]
