"""Calls into nvidia-ml-py: what a GPU does not report is `None`, everything else that fails is one line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from dsonas_hw.errors import DeviceError

NOT_TOLD = (
    "NVML_ERROR_NOT_SUPPORTED",
    "NVML_ERROR_FUNCTION_NOT_FOUND",
    "NVML_ERROR_NO_PERMISSION",
    "NVML_ERROR_NO_DATA",
    "NVML_ERROR_NOT_READY",  # the energy counter of an H100 PCIe, for a while
    "NVML_ERROR_DEPRECATED",
    "NVML_ERROR_UNKNOWN",  # what the driver of Windows' Subsystem for Linux says of most values
)
"""The errors that mean: there is no such value here. Old bindings lack some of them."""


class Calls:
    """The functions of the module `pynvml`, or of what stands in for it."""

    def __init__(self, nvml: Any) -> None:
        self.nvml = nvml
        self._not_told = {getattr(nvml, name) for name in NOT_TOLD if hasattr(nvml, name)}

    def must(self, function: Callable[..., Any], *args: Any) -> Any:
        """What the function says.

        Raises:
            DeviceError: it fails.
        """
        try:
            return function(*args)
        except self.nvml.NVMLError as error:
            raise DeviceError(f"the NVIDIA driver failed in {function.__name__}: {error}") from error

    def ask(self, name: str, *args: Any) -> Any:
        """What the function of this name says; `None` where binding, driver or GPU do not tell.

        Raises:
            DeviceError: it fails for another reason: the GPU is lost, say.
        """
        function = getattr(self.nvml, name, None)
        if function is None:
            return None
        try:
            return function(*args)
        except self.nvml.NVMLError as error:
            if error.value in self._not_told:
                return None
            raise DeviceError(f"the NVIDIA driver failed in {name}: {error}") from error

    def ask_first(self, names: Sequence[str], *args: Any) -> Any:
        """What the first of these functions that tells something says: names change over versions."""
        return next((value for name in names if (value := self.ask(name, *args)) is not None), None)
