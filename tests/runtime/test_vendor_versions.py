"""NVIDIA's libraries say their versions as numbers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from dsonas_hw.runtime.driver import cudnn_version, tensorrt_library_version, version_text


@pytest.mark.parametrize(
    ("number", "text"), [(8902, "8.9.2"), (91002, "9.10.2"), (8601, "8.6.1"), (101303, "10.13.3")]
)
def test_numbers_become_text(number: int, text: str) -> None:
    assert version_text(number) == text


def test_the_first_library_that_is_there_is_asked() -> None:
    def load(name: str) -> Any:
        if name == "libcudnn.so.8":
            return SimpleNamespace(cudnnGetVersion=lambda: 8902)
        if name == "libnvinfer.so.10":
            return SimpleNamespace(getInferLibVersion=lambda: 101303)
        raise OSError(f"{name}: cannot open shared object file")

    assert cudnn_version(load) == "8.9.2"
    assert tensorrt_library_version(load) == "10.13.3"


def test_without_one_there_is_no_version() -> None:
    def load(name: str) -> Any:
        raise OSError(name)

    assert cudnn_version(load) is None
