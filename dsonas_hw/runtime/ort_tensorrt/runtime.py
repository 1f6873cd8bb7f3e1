"""ONNX Runtime's TensorRT provider, as a runtime."""

from __future__ import annotations

from dsonas_hw.errors import ModelFileError
from dsonas_hw.runtime.base import Session
from dsonas_hw.runtime.model import is_quantised
from dsonas_hw.runtime.ort.family import OrtGpuRuntime
from dsonas_hw.runtime.ort.provider import Provider
from dsonas_hw.target import Target


class OrtTensorRT(OrtGpuRuntime):
    name = "ort-tensorrt"
    title = "ONNX Runtime with its TensorRT provider"
    precisions = ("fp32", "fp16", "int8")
    estimated_as = "tensorrt"
    adds_while_making = True
    provider = Provider(
        name="TensorrtExecutionProvider",
        runtime=name,
        library="libonnxruntime_providers_tensorrt.so",
        brought_by="tensorrt_libs",
    )

    def open_session(self, model: bytes, target: Target) -> Session:
        """The provider makes fp16 of an fp32 model itself; int8 takes one that is quantised."""
        from dsonas_hw.runtime.ort.session import open_ort_session, require_gpu

        require_gpu(self.provider)
        if target.precision == "int8" and not is_quantised(model):
            raise ModelFileError(
                f"runtime {self.name} would run this model in fp16 for int8: it has no Q/DQ nodes; "
                "quantise it first (onnxruntime.quantization.quantize_static, format QDQ)"
            )
        options = {
            "trt_fp16_enable": str(target.precision in ("fp16", "int8")),
            "trt_int8_enable": str(target.precision == "int8"),
        }
        return open_ort_session(model, target, self.provider, provider_options=options)
