"""ONNX Runtime's CUDA provider, as a runtime."""

from __future__ import annotations

from dsonas_hw.runtime.base import Session
from dsonas_hw.runtime.ort.family import OrtGpuRuntime
from dsonas_hw.runtime.ort.provider import Provider
from dsonas_hw.target import Target


class OrtCuda(OrtGpuRuntime):
    name = "ort-cuda"
    title = "ONNX Runtime with its CUDA provider"
    precisions = ("fp32", "fp16")
    estimated_as = "eager"
    reorders_for_tensor_cores = True
    provider = Provider(
        name="CUDAExecutionProvider", runtime=name, library="libonnxruntime_providers_cuda.so"
    )

    def open_session(self, model: bytes, target: Target) -> Session:
        """fp16 is made of an fp32 model."""
        from dsonas_hw.runtime.ort.session import open_ort_session, require_gpu
        from dsonas_hw.runtime.ort_cuda.half import to_fp16

        require_gpu(self.provider)
        data = to_fp16(model) if target.precision == "fp16" else model
        return open_ort_session(data, target, self.provider)
