"""TensorRT, as a runtime."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dsonas_hw.runtime.base import Progress, Runtime, Session
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
    distributions = ("tensorrt", "tensorrt-cu13", "tensorrt-cu12", "tensorrt-bindings")
    module = "tensorrt"

    def open_session(self, model: bytes, target: Target) -> Session:
        from dsonas_hw.runtime.tensorrt.session import open_tensorrt_session

        return open_tensorrt_session(model, precision=target.precision, batch_size=target.batch_size)

    def measure(
        self, session: Session, *, plan: Plan | None = None, progress: Progress = lambda done, total: None
    ) -> LatencyMeasurement:
        """Latency by CUDA events."""
        from dsonas_hw.measure.rounds import QUICK
        from dsonas_hw.runtime.tensorrt.session import TensorRTSession, measure_engine

        assert isinstance(session, TensorRTSession)
        return measure_engine(session, plan=plan or QUICK, progress=progress)

    def open_engine(self, engine_path: Path, model: bytes, target: Target) -> Session:
        from dsonas_hw.runtime.tensorrt.build import check_engine
        from dsonas_hw.runtime.tensorrt.session import open_engine

        check_engine(engine_path, model, target)
        return open_engine(engine_path)

    def build_engine(
        self,
        model_path: Path,
        engine_path: Path,
        *,
        precision: str,
        batch_size: int,
        timing_cache_path: Path | None = None,
    ) -> object:
        from dsonas_hw.runtime.tensorrt.build import build_engine

        return build_engine(
            model_path,
            engine_path,
            precision=precision,
            batch_size=batch_size,
            timing_cache_path=timing_cache_path,
        )
