"""The constraints for older GPUs agree with what their device files say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dsonas_hw.device.datasheet import admits
from dsonas_hw.device.spec import load_device

FOLDER = Path(__file__).parents[2] / "requirements"


def pinned(file: str) -> dict[str, str]:
    lines = (FOLDER / file).read_text().splitlines()
    matches = [re.match(r"([a-z0-9-]+)==([0-9][^; ]*)", line) for line in lines]
    return {match[1]: match[2] for match in matches if match}


@pytest.mark.parametrize("name", ["1080ti", "titan-xp", "p100", "v100"])
def test_the_constraints_serve_the_cards_they_are_for(name: str) -> None:
    runtimes = load_device(name).runtimes
    versions = pinned("pascal.txt")
    assert admits(runtimes["ort-cuda"].versions, versions["onnxruntime-gpu"])
    assert admits(runtimes["eager"].versions, versions["torch"])
    assert versions["torch"].endswith("+cu126")
    assert admits(runtimes["eager"].cuda, "12.6")
    assert admits(runtimes["tensorrt"].versions, pinned("pascal-tensorrt.txt")["tensorrt"])
