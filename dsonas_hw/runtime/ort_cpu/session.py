"""Sessions of ONNX Runtime's CPU provider."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dsonas_hw.runtime.ort.provider import Provider
from dsonas_hw.runtime.ort.session import OrtSession, open_ort_session
from dsonas_hw.target import Target

CPU = Provider(name="CPUExecutionProvider", runtime="ort-cpu", device="cpu")


def open_cpu_session(
    data: bytes, target: Target, *, configure: Callable[[Any], None] | None = None
) -> OrtSession:
    """Load a model; `configure` may change the session's options.

    Raises:
        ModelFileError: ONNX Runtime does not take the model.
    """
    return open_ort_session(data, target, CPU, configure=configure)
