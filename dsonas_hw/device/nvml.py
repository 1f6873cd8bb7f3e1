"""What the NVIDIA driver says about its GPUs, through nvidia-ml-py (the module `pynvml`).

    with open_nvml() as nvml:
        gpu = nvml.gpus()[0]
        with gpu.locked_clocks(1400) as lock:     # always restored; lock.locked says whether it was permitted
            state = gpu.state()

One that does not answer (lost, or kept from this user) hides no other: `nvml.remarks` names it.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dsonas_hw.device.gpu import Gpu
from dsonas_hw.device.nvml_calls import Calls
from dsonas_hw.errors import DeviceError, MissingDependencyError


class Nvml:
    """An initialised NVML; made by `open_nvml`."""

    def __init__(self, library: Any) -> None:
        self._calls = Calls(library)
        self._library = library
        self.remarks: tuple[str, ...] = ()
        """A line for each GPU that the last call of `gpus` left out, with the driver's reason."""

    @property
    def driver_version(self) -> str:
        return str(self._calls.must(self._library.nvmlSystemGetDriverVersion))

    @property
    def cuda_version(self) -> tuple[int, int] | None:
        """The newest CUDA that the driver can serve: (12, 4)."""
        value = self._calls.ask("nvmlSystemGetCudaDriverVersion")
        return None if value is None else (value // 1000, value % 1000 // 10)

    def gpus(self) -> list[Gpu]:
        """Every GPU that the driver knows and that answers.

        Raises:
            DeviceError: the driver cannot count them.
        """
        found, failures = [], []
        for index in range(self._calls.must(self._library.nvmlDeviceGetCount)):
            try:
                found.append(self.gpu(index))
            except DeviceError as error:
                failures.append(f"GPU {index} is left out: {error}")
        self.remarks = tuple(failures)
        return found

    def gpu(self, index: int) -> Gpu:
        """The GPU that the driver counts as this number.

        Raises:
            DeviceError: there is none, or it does not answer.
        """
        return Gpu(self._calls, index, self._calls.must(self._library.nvmlDeviceGetHandleByIndex, index))


@contextmanager
def open_nvml(library: Any = None) -> Iterator[Nvml]:
    """Initialise NVML, and shut it down afterwards. `library` stands in for the module `pynvml`.

    Raises:
        DeviceError: no driver, or it does not answer; the message gives its reason.
        MissingDependencyError: nvidia-ml-py is not installed.
    """
    if library is None:
        try:
            library = importlib.import_module("pynvml")
        except ImportError as error:
            raise MissingDependencyError(
                f"looking at NVIDIA GPUs needs the module pynvml ({error}); pip install nvidia-ml-py"
            ) from error
    try:
        library.nvmlInit()
    except library.NVMLError as error:
        if error.value == library.NVML_ERROR_LIBRARY_NOT_FOUND:
            reason = (
                "no NVIDIA driver: its library libnvidia-ml.so.1 (Windows: nvml.dll) is not on this machine"
            )
        elif error.value == library.NVML_ERROR_DRIVER_NOT_LOADED:
            reason = "the NVIDIA driver is installed but not loaded (try `nvidia-smi`, or reboot)"
        elif error.value == library.NVML_ERROR_NO_PERMISSION:
            reason = "no permission to talk to the NVIDIA driver (in a container: is the GPU passed in?)"
        elif error.value == library.NVML_ERROR_LIB_RM_VERSION_MISMATCH:
            reason = "the NVIDIA driver and its library have different versions: reboot"
        else:
            reason = f"the NVIDIA driver does not start: {error}"
        raise DeviceError(reason) from error
    try:
        yield Nvml(library)
    finally:
        library.nvmlShutdown()
