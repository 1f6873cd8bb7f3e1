"""What the runtimes of ONNX Runtime have in common."""

from __future__ import annotations

from dsonas_hw.runtime.base import Runtime
from dsonas_hw.runtime.libraries import Library, has_both_onnxruntimes, missing_shared_libraries
from dsonas_hw.runtime.ort.provider import Provider

ONE_WHEEL = (
    "both onnxruntime and onnxruntime-gpu are installed and overwrite each other: "
    "pip uninstall -y onnxruntime onnxruntime-gpu, then pip install onnxruntime-gpu"
)
CPU_ONLY = "onnxruntime"
"""The distribution without GPU providers."""


class OrtRuntime(Runtime):
    """ONNX Runtime with one of its providers."""

    distributions = ("onnxruntime-gpu", CPU_ONLY)
    module = "onnxruntime"
    cuda_file = "capi/build_and_package_info.py"

    def why_not(self, library: Library) -> str:
        return ONE_WHEEL if has_both_onnxruntimes() else ""

    def versions(self) -> dict[str, str]:
        from dsonas_hw.runtime.ort.session import import_onnxruntime, versions_of

        return versions_of(import_onnxruntime())

    def device_errors(self) -> tuple[type[Exception], ...]:
        from onnxruntime.capi.onnxruntime_pybind11_state import EPFail, Fail, RuntimeException

        return (*super().device_errors(), Fail, EPFail, RuntimeException)


class OrtGpuRuntime(OrtRuntime):
    """ONNX Runtime with a provider for GPUs."""

    provider: Provider

    def why_not_on_gpu(self, library: Library, install: str) -> str:
        if library.distribution == CPU_ONLY:
            have = f"{library.distribution} {library.version}"
            return f"the installed {have} has no GPU providers; pip uninstall onnxruntime, then {install}"
        return ""

    def versions(self) -> dict[str, str]:
        from dsonas_hw.runtime.ort.session import library_versions

        return super().versions() | library_versions(self.provider)

    def missing_libraries(self, library: Library) -> list[str]:
        return missing_shared_libraries(self.provider.library, library) if self.provider.library else []

    def why_not_here(self) -> str:
        from dsonas_hw.runtime.ort.session import why_no_gpu

        return why_no_gpu(self.provider) or ""
