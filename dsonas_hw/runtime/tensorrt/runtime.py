"""TensorRT, as a runtime."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from dsonas_hw.runtime.base import ProfiledSession, Progress, Runtime, Session
from dsonas_hw.runtime.libraries import Library, cuda_in_names
from dsonas_hw.target import Target

if TYPE_CHECKING:
    from dsonas_hw.measure.measurement import LatencyMeasurement
    from dsonas_hw.measure.rounds import Plan


class TensorRT(Runtime):
    name = "tensorrt"
    title = "an engine that TensorRT builds"
    precisions = ("fp32", "fp16", "int8")
    estimated_as = "tensorrt"
    adds_while_making = True
    invents_int8 = True
    makes_engines = True
    returns_early = True
    profiler_overhead_ms = 0.006  # it makes layers wait for each other
    distributions = ("tensorrt", "tensorrt-cu13", "tensorrt-cu12", "tensorrt-bindings")
    module = "tensorrt"

    def open_session(self, model: bytes, target: Target) -> Session:
        from dsonas_hw.runtime.tensorrt.session import open_tensorrt_session

        return open_tensorrt_session(model, target)

    def library(self) -> Library | None:
        found = super().library()
        return found and replace(found, cuda=cuda_in_names("tensorrt", found.distribution))

    def measure(
        self,
        session: Session,
        *,
        plan: Plan | None = None,
        with_cuda_graph: bool = False,
        look: Callable[[], None] = lambda: None,
        progress: Progress = lambda done, total: None,
    ) -> LatencyMeasurement:
        """Latency by CUDA events."""
        from dsonas_hw.measure.rounds import GPU
        from dsonas_hw.runtime.tensorrt.session import TensorRTSession, measure_engine

        assert isinstance(session, TensorRTSession)
        return measure_engine(
            session, plan=plan or GPU, with_cuda_graph=with_cuda_graph, look=look, progress=progress
        )

    def why_untimed(self, target: Target) -> str:
        return ""

    def open_profiled(self, model: bytes, target: Target, plain: Session) -> ProfiledSession:
        """Of the engine that is open already: another build might choose other kernels."""
        from dsonas_hw.runtime.tensorrt.in_situ import TensorRTProfiledSession
        from dsonas_hw.runtime.tensorrt.session import TensorRTSession

        assert isinstance(plain, TensorRTSession)
        return TensorRTProfiledSession(model, target, plain)

    def open_engine(self, engine_path: Path, model: bytes, target: Target) -> Session:
        from dsonas_hw.runtime.tensorrt.engine_info import check_engine
        from dsonas_hw.runtime.tensorrt.session import open_engine

        check_engine(engine_path, model, target)
        return open_engine(engine_path)

    def build_engine(
        self, model_path: Path, engine_path: Path, target: Target, *, timing_cache_path: Path | None = None
    ) -> object:
        from dsonas_hw.runtime.tensorrt.build import build_engine

        return build_engine(model_path, engine_path, target, timing_cache_path=timing_cache_path)
