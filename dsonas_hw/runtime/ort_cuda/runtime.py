"""ONNX Runtime's CUDA provider, as a runtime."""

from __future__ import annotations

from dsonas_hw.runtime.base import ProfiledSession, Session
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
        name="CUDAExecutionProvider",
        runtime=name,
        library="libonnxruntime_providers_cuda.so",
        graph_options=(("enable_cuda_graph", "1"),),
        switches=("use_tf32", "cudnn_conv_algo_search", "prefer_nhwc"),
    )

    def open_session(self, model: bytes, target: Target) -> Session:
        """fp16 is made of an fp32 model."""
        from dsonas_hw.runtime.ort.session import open_ort_session, require_gpu

        require_gpu(self.provider)
        return open_ort_session(_typed(model, target), target, self.provider)

    def why_untimed(self, target: Target) -> str:
        from dsonas_hw.runtime.cupti import why_no_records

        return why_no_records()

    def open_profiled(self, model: bytes, target: Target, plain: Session) -> ProfiledSession:
        from dsonas_hw.runtime.attribution import schedule_of
        from dsonas_hw.runtime.model import name_nodes
        from dsonas_hw.runtime.ort_cuda.in_situ import CudaProfiledSession

        data = name_nodes(_typed(model, target))
        return CudaProfiledSession(data, schedule_of(model, target, self.fuses), target, self.provider)


def _typed(model: bytes, target: Target) -> bytes:
    from dsonas_hw.runtime.model import to_fp16

    return to_fp16(model) if target.precision == "fp16" else model
