"""The providers of ONNX Runtime: how they are asked to run, and what decides which kernels they run."""

from __future__ import annotations

from typing import Any

from dsonas_hw.device.paths import data_directory
from dsonas_hw.runtime.vendor_versions import cudnn_version, tensorrt_library_version

PROVIDERS: dict[str, str] = {
    "ort-cpu": "CPUExecutionProvider",
    "ort-cuda": "CUDAExecutionProvider",
    "ort-tensorrt": "TensorrtExecutionProvider",
}
SWITCHES = ("use_tf32", "cudnn_conv_algo_search", "prefer_nhwc", "trt_fp16_enable", "trt_int8_enable")
"""Options of the GPU providers that decide which kernels run; noted beside the versions."""


def provider_options(runtime: str, precision: str, cuda_graph: bool) -> dict[str, str]:
    """What a GPU provider is asked for; everything else is the library's default."""
    if runtime == "ort-tensorrt":
        cache = data_directory() / "tensorrt"
        cache.mkdir(parents=True, exist_ok=True)
        return {
            "trt_fp16_enable": str(precision in ("fp16", "int8")),
            "trt_int8_enable": str(precision == "int8"),
            "trt_timing_cache_enable": "True",  # else every session times all of TensorRT's kernels again
            "trt_timing_cache_path": str(cache),
            **({"trt_cuda_graph_enable": "True"} if cuda_graph else {}),
        }
    return {"enable_cuda_graph": "1"} if cuda_graph else {}


def session_versions(ort: Any, runtime: str, session: Any) -> dict[str, str]:
    """Versions, and the provider's switches that decide which kernels run, its defaults included."""
    versions = {"onnxruntime": str(ort.__version__)}
    if runtime == "ort-cpu":
        return versions
    options = session.get_provider_options().get(PROVIDERS[runtime], {})
    switches = {name: str(options[name]) for name in SWITCHES if name in options}
    return versions | library_versions(runtime) | switches


def library_versions(runtime: str) -> dict[str, str]:
    """NVIDIA's libraries that a GPU provider uses."""
    found = {"cudnn": cudnn_version()}
    if runtime == "ort-tensorrt":
        found["tensorrt"] = tensorrt_library_version()
    return {name: version for name, version in found.items() if version is not None}
