"""PyTorch, layer by layer, as a runtime."""

from __future__ import annotations

from dsonas_hw.device.spec import LOCAL
from dsonas_hw.runtime.base import ProfiledSession, Runtime, Session
from dsonas_hw.runtime.libraries import Library
from dsonas_hw.target import Target


class Eager(Runtime):
    name = "eager"
    title = "PyTorch, layer by layer"
    precisions = ("fp32", "fp16")
    on_cpu = True
    fuses = False
    returns_early = True
    estimated_as = "eager"
    views_are_free = True
    uses_tf32_in_products = False
    reorders_for_tensor_cores = True
    distributions = ("torch",)
    module = "torch"
    cuda_file = "version.py"

    def why_not_on_gpu(self, library: Library, install: str) -> str:
        if library.cuda is None:
            have = f"{library.distribution} {library.version}"
            return f"the installed {have} is built without CUDA; {install}"
        return ""

    def versions(self) -> dict[str, str]:
        import torch

        from dsonas_hw.runtime.eager.session import gpu_versions

        return super().versions() | (gpu_versions() if torch.cuda.is_available() else {})

    def open_session(self, model: bytes, target: Target) -> Session:
        from dsonas_hw.runtime.eager.session import open_eager_session

        return open_eager_session(model, target)

    def why_untimed(self, target: Target) -> str:
        from dsonas_hw.runtime.cupti import why_no_records

        return "PyTorch's kernels are timed on GPUs only" if target.device == LOCAL else why_no_records()

    def open_profiled(self, model: bytes, target: Target, plain: Session) -> ProfiledSession:
        from dsonas_hw.runtime.eager.in_situ import EagerProfiledSession
        from dsonas_hw.runtime.eager.session import EagerSession

        assert isinstance(plain, EagerSession)
        return EagerProfiledSession(model, target, plain)
