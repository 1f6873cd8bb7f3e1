"""ONNX Runtime on the CPU, as a runtime."""

from __future__ import annotations

from collections.abc import Mapping

from dsonas_hw.runtime.base import ProfiledSession, Session
from dsonas_hw.runtime.ort.family import OrtRuntime
from dsonas_hw.runtime.ort_cpu.layout import Blocks
from dsonas_hw.target import Target


class OrtCpu(OrtRuntime):
    name = "ort-cpu"
    title = "ONNX Runtime on the CPU"
    on_cpu = True
    on_gpu = False
    profiler_overhead_ms = 0.006  # 3 to 5 µs on a virtual server core
    runs_in_caller = True

    def open_session(self, model: bytes, target: Target) -> Session:
        from dsonas_hw.runtime.ort_cpu.session import open_cpu_session

        return open_cpu_session(model, target)

    def why_untimed(self, target: Target) -> str:
        return ""

    def open_profiled(self, model: bytes, target: Target, plain: Session) -> ProfiledSession:
        from dsonas_hw.runtime.ort_cpu.in_situ import OrtProfiledSession

        return OrtProfiledSession(model, target)

    def settings_here(self) -> dict[str, int]:
        from dsonas_hw.runtime.ort_cpu.in_situ import native_block_size

        return {"block_size": native_block_size()}

    def deployment(self, settings: Mapping[str, object]) -> Blocks:
        block_size = settings.get("block_size")
        return Blocks(block_size=block_size if isinstance(block_size, int) else 0)
