"""`--dataset folder:` from the command line: what is printed, and that cheap checks come first."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import dsonas_hw.pipeline


def put(root: Path, sides: dict[str, int]) -> Path:
    """Three classes of grey images of 8 × 8, so many of each on every side."""
    for side, count in sides.items():
        for value, name in enumerate(("glioma", "meningioma", "no tumour")):
            folder = root / side / name
            folder.mkdir(parents=True)
            for number in range(count):
                Image.fromarray(np.full((8, 8, 3), 80 * value, np.uint8)).save(folder / f"{number}.png")
    return root


DRY = ("--preset", "digits", "--dry-run")


def test_classes_and_counts(tmp_path: Path, empty_folder: Path, dsonas: Any) -> None:
    root = put(tmp_path / "brain", {"Training": 4, "Testing": 2})
    (root / "__MACOSX").mkdir()
    images = dsonas("search", "--dataset", f"folder:{root}", *DRY, "--json").json["images"]
    assert images == {
        "train": {
            "directory": str(root / "Training"),
            "split_off": False,
            "num_images": 12,
            "classes": {"glioma": 4, "meningioma": 4, "no tumour": 4},
        },
        "test": {
            "directory": str(root / "Testing"),
            "split_off": False,
            "num_images": 6,
            "classes": {"glioma": 2, "meningioma": 2, "no tumour": 2},
        },
        "ignored": ["__MACOSX"],
    }
    text = dsonas("run", "--dataset", f"folder:{root}", *DRY).out
    assert "train images: 12 of 3 classes (glioma 4, meningioma 4, no tumour 4)" in text
    assert "ignored: __MACOSX" in text
    assert dsonas("search", "--dataset", "digits", "--dry-run", "--json").json["images"] is None


def test_the_sides_are_asked_for_and_given(tmp_path: Path, empty_folder: Path, dsonas: Any) -> None:
    root = put(tmp_path / "odd", {"part A": 2, "part B": 4})
    refused = dsonas("search", "--dataset", f"folder:{root}", *DRY).refused()
    advice = shlex.split(refused.partition("for example with ")[2])
    assert advice == ["--train-dir", "part B", "--test-dir", "part A"], "most images are for training"
    images = dsonas("search", "--dataset", f"folder:{root}", *DRY, "--json", *advice).json["images"]
    assert (images["train"]["num_images"], images["test"]["num_images"]) == (12, 6)
    root = put(tmp_path / "alike", {"part A": 2, "part B": 2})
    refused = dsonas("search", "--dataset", f"folder:{root}", *DRY).refused()
    assert "for example" not in refused, "no guess that could train on the test images"
    refused = dsonas("search", "--dataset", "digits", "--dry-run", "--train-dir", "a").refused()
    assert "are for --dataset folder:PATH, not for digits" in refused


def test_too_few_images_are_refused_before_anything_is_measured(
    tmp_path: Path,
    empty_folder: Path,
    dsonas: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def measured(*args: Any, **options: Any) -> None:
        raise AssertionError("measured")

    monkeypatch.setattr(dsonas_hw.pipeline, "ensure_profile", measured)
    root = put(tmp_path / "few", {"train": 4, "val": 2})
    (root / "train" / "glioma" / "notes.txt").write_text("")
    result = dsonas("run", "--dataset", f"folder:{root}", "--preset", "digits", "--budget", "latency=1ms")
    assert result.code == 2
    assert "fewer than one batch" in result.err
    assert "train images: 12 of 3 classes" in result.err
    assert caplog.text.count("ignoring 1 file(s)") == 1  # described, then loaded
    assert not (empty_folder / "runs").exists()


def test_a_folder_alone_is_a_whole_configuration(tmp_path: Path, empty_folder: Path, dsonas: Any) -> None:
    root = put(tmp_path / "brain", {"train": 20, "val": 5})
    words = ("run", "--dataset", f"folder:{root}", "--budget", "mac=20k", "--dry-run")
    result = dsonas(*words, "--json")
    config = result.json["config"]
    assert (config["preset"], config["data"]["image_size"], config["space"]["stem"]) == ("folder", 8, "cifar")
    assert config["retrain"]["epochs"] * (60 // config["retrain"]["batch_size"]) >= 600
    assert "data.image_size=8" in result.err
    assert "pixels, as the images are" in result.err
    assert result.json["estimate"]["memory_bytes"] > 0
    # What is set stays, and is not announced; a configuration file counts as set.
    file = tmp_path / "mine.yaml"
    file.write_text("retrain: {epochs: 3}\n")
    result = dsonas(*words, "--json", "--config", file, "--set", "space.stages=[1]")
    assert (result.json["config"]["retrain"]["epochs"], result.json["config"]["space"]["stages"]) == (3, [1])
    assert "retrain.epochs" not in result.err
    text = dsonas(*words).out
    assert "on this machine, by a few steps timed now" in text
    assert "mac: memory access" in text


def test_a_profile_is_advised_of_the_fitted_space(tmp_path: Path, empty_folder: Path, dsonas: Any) -> None:
    root = put(tmp_path / "brain", {"train": 20, "val": 5})
    words = ("--dataset", f"folder:{root}", "--budget", "mac=20k", "--dry-run")
    advised = shlex.split(dsonas("search", *words).out.partition("measure it with: ")[2].splitlines()[0])
    assert advised[:4] == ["dsonas-hw", "profile", "--device", "local"]
    again = dsonas("search", *advised[4:], "--dry-run", "--json").json
    assert again["space"] == dsonas("run", *words, "--json").json["space"]


def test_the_folder_preset_needs_a_folder(empty_folder: Path, dsonas: Any) -> None:
    assert "folder: needs a path" in dsonas("run", "--preset", "folder", "--dry-run").refused()


def test_an_operation_of_a_script_is_named(empty_folder: Path, dsonas: Any) -> None:
    refused = dsonas("search", "--set", "space.operations=[sep3,shuffle9]", "--dry-run").refused()
    assert "unknown operation 'shuffle9'" in refused
    assert "python SCRIPT.py" in refused
