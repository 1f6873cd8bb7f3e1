"""PyTorch, layer by layer, as a runtime."""

from __future__ import annotations

from dsonas_hw.runtime.base import Runtime, Session
from dsonas_hw.runtime.libraries import Library
from dsonas_hw.target import Target


class Eager(Runtime):
    name = "eager"
    title = "PyTorch, layer by layer"
    precisions = ("fp32", "fp16")
    on_cpu = True
    fuses = False
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

    def open_session(self, model: bytes, target: Target) -> Session:
        from dsonas_hw.runtime.eager.session import open_eager_session

        return open_eager_session(
            model,
            precision=target.precision,
            batch_size=target.batch_size,
            threads=target.threads,
            on_cpu=target.device == "local",
        )
