"""infer.py, with numpy and onnxruntime alone, sees an image of every source as the training pipeline does."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dsonas_hw.architecture.architecture import complete_architecture
from dsonas_hw.config import DataConfig
from dsonas_hw.deploy import infer
from dsonas_hw.deploy.export import export_onnx, read_metadata
from dsonas_hw.space.space import SearchSpace
from dsonas_hw.train.augment import Augmentation
from dsonas_hw.train.data import Dataset, load_dataset
from dsonas_hw.train.data_batches import Batches
from dsonas_hw.train.data_decode import load_image, resize_and_crop_centre, to_gray
from dsonas_hw.train.data_images import MemoryImages, channel_statistics
from dsonas_hw.train.network import DerivedNetwork


def fake_cifar(rng: np.random.Generator) -> Dataset:
    """Images of CIFAR's shape."""
    pixels = torch.from_numpy(rng.integers(0, 256, (40, 3, 32, 32), dtype=np.uint8))
    images = MemoryImages(images=pixels, labels=torch.arange(40) % 10)
    mean, std = channel_statistics(pixels)
    return Dataset(
        name="cifar10", train=images, test=images, class_names=tuple("abcdefghij"), input_shape=(3, 32, 32),
        mean=mean, std=std, augmentation=Augmentation(),
    )  # fmt: skip


def photograph(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """Colours that change slowly, and some noise."""
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((width, height))
    noise = rng.integers(-20, 20, (height, width, 3))
    return Image.fromarray(np.clip(np.asarray(coarse).astype(int) + noise, 0, 255).astype(np.uint8))


def folder_of_images(root: Path, rng: np.random.Generator) -> None:
    for name in ("cat", "dog"):
        (root / name).mkdir(parents=True)
        for number in range(6):
            photograph(rng, 90 + 40 * number, 131).save(root / name / f"{number}.png")


def source(name: str, folder: Path) -> tuple[Dataset, Path]:
    """A dataset and one of its test images as a file."""
    rng = np.random.default_rng(0)
    path = folder / "image.png"
    if name.startswith("folder"):
        folder_of_images(folder / "images", rng)
        in_memory = name == "folder-in-memory"
        data = DataConfig(dataset=f"folder:{folder / 'images'}", image_size=32)
        dataset, files = load_dataset(data, in_memory=in_memory), load_dataset(data, in_memory=False).test
        return dataset, files.path(0)  # type: ignore[union-attr]
    if name == "cifar10":
        dataset = fake_cifar(rng)
    else:
        if name == "fashion-mnist" and not Path("/usr/share/datasets/fashion-mnist").is_dir():
            pytest.skip("Fashion-MNIST is not here")
        dataset = load_dataset(DataConfig(dataset=name, subset=50, test_subset=20))
    pixels = dataset.test.images[0].numpy()  # type: ignore[union-attr]
    Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0).copy()).save(path)
    return dataset, path


SOURCES = ["digits", "fashion-mnist", "cifar10", "folder-in-memory", "folder-on-disk"]
WITHOUT = """
import sys
for name in ("PIL", "torch", "torchvision", "onnx", "dsonas_hw"):
    sys.modules[name] = None
sys.argv = sys.argv[1:]
import runpy
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize(("with_preprocessing", "softmax"), [(False, False), (True, True)])
@pytest.mark.parametrize("name", SOURCES)
def test_an_image_of_every_source_gets_the_same_class_and_nearly_the_same_outputs(
    tmp_path: Path, name: str, with_preprocessing: bool, softmax: bool
) -> None:
    dataset, image = source(name, tmp_path)
    space = SearchSpace(
        levels=1, stages=(1, 1), channels=8, input_shape=dataset.input_shape, num_classes=dataset.num_classes
    )
    architecture = complete_architecture(space)
    torch.manual_seed(0)
    network = DerivedNetwork(architecture).train()
    network(next(Batches(images=dataset.train, dataset=dataset, batch_size=8).epoch(0))[0])
    network.eval()
    images, _ = next(Batches(images=dataset.test, dataset=dataset, batch_size=1, shuffle=False).epoch(0))
    expected = network(images)[0]
    expected = (expected.softmax(0) if softmax else expected).detach().numpy()
    model = tmp_path / "model.onnx"
    export_onnx(
        model, architecture, network.named_arrays(), dataset, batch_size=2, softmax=softmax,
        with_preprocessing=with_preprocessing,
    )  # fmt: skip
    outputs, class_names, kind = infer.classify(model, image)
    assert kind == ("probabilities" if softmax else "logits")
    assert tuple(class_names) == dataset.class_names
    # One grey level of difference here and there (rounding of the resize) at most.
    np.testing.assert_allclose(outputs, expected, atol=0.02 * np.abs(expected).max())
    assert outputs.argmax() == expected.argmax()
    # As a program, where nothing else is installed.
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, tmp_path / "infer.py", image],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{image}: {dataset.class_names[expected.argmax()]} ")


def test_the_resize_is_the_pipeline_s_within_a_grey_level(tmp_path: Path) -> None:
    rng, sizes = np.random.default_rng(1), random.Random(1)
    for _ in range(25):
        image = photograph(rng, sizes.randint(5, 300), sizes.randint(5, 300))
        size = sizes.randint(4, 64)
        resize = size + sizes.randint(0, 10)
        expected = np.asarray(resize_and_crop_centre(image, resize=resize, crop=size)).astype(int)
        found = infer.resize_and_crop(np.asarray(image), resize, size).astype(int)
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() <= 1


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P", "1"])
@pytest.mark.parametrize("suffix", [".png", ".bmp", ".ppm"])
def test_files_are_decoded_without_pillow_as_with_it(tmp_path: Path, mode: str, suffix: str) -> None:
    if (suffix == ".bmp" and mode != "RGB") or (suffix == ".ppm" and mode not in ("L", "RGB")):
        pytest.skip("not a file of this kind")
    path = tmp_path / f"image{suffix}"
    photograph(np.random.default_rng(0), 37, 23).convert(mode).save(path)
    expected = np.asarray(load_image(path))
    np.testing.assert_array_equal(infer.to_rgb(infer.decode(path)), expected)
    np.testing.assert_array_equal(infer.to_rgb(infer.load_image(path)), expected)
    with Image.open(path) as image:
        gray = np.asarray(to_gray(image))
    np.testing.assert_array_equal(infer.to_gray(infer.decode(path))[:, :, 0], gray)


def test_arrays_are_images_too(tmp_path: Path) -> None:
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    np.save(tmp_path / "image.npy", pixels)
    np.testing.assert_array_equal(infer.load_image(tmp_path / "image.npy")[:, :, 0], pixels)
    np.save(tmp_path / "image.npy", pixels.astype(np.float32))
    with pytest.raises(ValueError, match="must be uint8"):
        infer.load_image(tmp_path / "image.npy")


def test_what_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "image.jpg"
    photograph(np.random.default_rng(0), 20, 20).save(path)
    with pytest.raises(ValueError, match="pip install pillow"):
        infer.decode(path)
    done = subprocess.run(
        [sys.executable, infer.__file__, path, "--model", tmp_path / "none.onnx"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


def test_the_metadata_say_how_an_image_is_prepared(tmp_path: Path) -> None:
    dataset, _ = source("folder-on-disk", tmp_path)
    space = SearchSpace(levels=1, stages=(1,), channels=8, input_shape=(3, 32, 32), num_classes=2)
    architecture = complete_architecture(space)
    arrays = DerivedNetwork(architecture).named_arrays()
    export_onnx(tmp_path / "model.onnx", architecture, arrays, dataset)
    facts = read_metadata(tmp_path / "model.onnx")
    wanted = {
        "input_layout": "NCHW",
        "channel_order": "RGB",
        "resize": 37,
        "interpolation": "bilinear, antialiased",
        "crop": "centre",
        "size": 32,
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "output": "logits",
        "class_names": ["cat", "dog"],
    }
    assert {name: facts[name] for name in wanted} == wanted
    assert json.loads(json.dumps(facts)) == facts
