"""Which engine may be timed for a network."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from dsonas_hw.deploy import measure
from dsonas_hw.errors import DeviceError
from dsonas_hw.files import write_json
from dsonas_hw.runtime.detect import DetectedDevice
from dsonas_hw.runtime.tensorrt import session as tensorrt
from dsonas_hw.runtime.tensorrt.engine_info import description_path
from dsonas_hw.target import Target

MODEL = b"a network"
GPU = DetectedDevice(
    name="t4", title="Tesla T4", fingerprint="f", device=None, index=0, uuid=None, driver_version=None,
    compute_capability=(7, 5), runtimes=(),
)  # fmt: skip


def open_for(path: Path, target: Target, **changes: Any) -> object:
    """What is opened for MODEL where `path` is its engine in fp32 at batch 1, but for `changes`."""
    path.write_bytes(b"an engine")
    info = {
        "sha256": hashlib.sha256(b"an engine").hexdigest(),
        "model_sha256": hashlib.sha256(MODEL).hexdigest(),
        "precision": "fp32",
        "batch_size": 1,
        "tensorrt_version": "10.13.3.9",
        "gpu": "Tesla T4",
        "timing_cache": None,
        "build_seconds": 1.0,
        "remarks": [],
        "schema": 1,
    }
    write_json(description_path(path), info | changes)
    return measure.open_deployed(MODEL, target, path)


def test_an_engine_of_the_network_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt, "open_engine", lambda path: f"session of {path.name}")
    assert open_for(tmp_path / "model.engine", Target(runtime="tensorrt")) == "session of model.engine"


@pytest.mark.parametrize(
    ("target", "changes", "reason"),
    [
        ({}, {"model_sha256": "0" * 64}, "is of another model"),
        ({"precision": "fp16"}, {}, "is of fp32 at batch 1, not fp16 at 1"),
        (
            {"precision": "fp16", "batch_size": 8},
            {"precision": "fp16"},
            "is of fp16 at batch 1, not fp16 at 8",
        ),
    ],
)
def test_another_s_engine_is_not_timed_for_it(
    tmp_path: Path, target: dict[str, Any], changes: dict[str, Any], reason: str
) -> None:
    """The network was trained again since, or `validate` was asked for another precision."""
    with pytest.raises(DeviceError, match=f"{reason}; build it again: dsonas-hw export"):
        open_for(tmp_path / "model.engine", Target(runtime="tensorrt", **target), **changes)
