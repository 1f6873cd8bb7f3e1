"""Native TensorRT: an engine is built from an ONNX model, run, and timed with CUDA events.

open_tensorrt_session(model)      build for timing, in a temporary folder, and open
build_engine(model, path)         build to keep (`build`)
open_engine(path)                 open an engine that was built before
measure_engine(session)           latency by CUDA events, in rounds
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from dsonas_hw.errors import DeviceError
from dsonas_hw.measure.loaded import judge_drift, keep_at_work, with_graph, with_host_fraction
from dsonas_hw.measure.measurement import LatencyMeasurement
from dsonas_hw.measure.rounds import GPU, Plan, measure_rounds
from dsonas_hw.runtime.base import Session
from dsonas_hw.runtime.cuda import Cuda
from dsonas_hw.runtime.tensorrt.build import build_engine
from dsonas_hw.runtime.tensorrt.engine_info import EngineInfo, load_engine_info
from dsonas_hw.runtime.tensorrt.library import (
    first_of,
    new_log,
    or_none,
    require_tensorrt,
    sizes,
    started,
    tensorrt_version,
)
from dsonas_hw.target import Target

if TYPE_CHECKING:
    import tensorrt as trt

TORCH_TYPES: dict[str, str] = {
    "FLOAT": "float32",
    "HALF": "float16",
    "BF16": "bfloat16",
    "INT8": "int8",
    "UINT8": "uint8",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
}
"""TensorRT's DataType → the name of PyTorch's."""


class TensorRTSession(Session):
    """An engine with its inputs and outputs bound."""

    runtime = "tensorrt"

    def __init__(self, engine: trt.ICudaEngine, info: EngineInfo, cuda: Cuda) -> None:
        self.info = info
        self.cuda = cuda
        self.versions: dict[str, str] = {"tensorrt": info.tensorrt_version, **cuda.versions}
        self.engine: trt.ICudaEngine | None = engine
        self.context = or_none(engine.create_execution_context())
        if self.context is None:
            raise DeviceError("the GPU has not enough memory to run this engine")
        self._buffers: list[object] = []
        self._bind(engine, self.context)

    def _bind(self, engine: trt.ICudaEngine, context: trt.IExecutionContext) -> None:
        import tensorrt as trt

        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        for name in inputs:
            shape = sizes(engine.get_tensor_shape(name))
            fixed = (self.info.batch_size, *shape[1:])
            if min(shape, default=1) < 0 and not context.set_input_shape(name, fixed):
                raise DeviceError(f"TensorRT refused {fixed} as the shape of input {name!r}")
        for name in names:
            kind = engine.get_tensor_dtype(name).name
            if kind not in TORCH_TYPES:
                raise DeviceError(f"tensor {name!r} of the engine has type {kind}, which cannot be fed")
            shape = sizes(context.get_tensor_shape(name))
            buffer, address = self.cuda.buffer(shape, TORCH_TYPES[kind], random=name in inputs)
            self._buffers.append(buffer)
            if not context.set_tensor_address(name, address):
                raise DeviceError(f"TensorRT refused the memory of tensor {name!r}")

    def run(self) -> object:
        """Enqueue one inference."""
        if self.context is None or not self.context.execute_async_v3(self.cuda.stream_handle):
            raise DeviceError("TensorRT could not start an inference")
        return None

    def synchronize(self) -> None:
        self.cuda.synchronize()

    def close(self) -> None:
        self.context = None
        self.engine = None
        self._buffers.clear()


def open_tensorrt_session(data: bytes, target: Target, *, cuda: Cuda | None = None) -> TensorRTSession:
    """Build an engine for timing and open it; int8 gets placeholder ranges where the model brings none.

    Raises:
        DeviceError, ModelFileError: see `build_engine`.
    """
    cuda = cuda if cuda is not None else require_tensorrt()
    with tempfile.TemporaryDirectory(prefix="dsonas-hw-") as folder:
        path = Path(folder) / "model.engine"
        build_engine(data, path, target, placeholder_ranges=True, cuda=cuda)
        return open_engine(path, cuda=cuda)


def open_engine(engine_path: Path, *, cuda: Cuda | None = None) -> TensorRTSession:
    """Open an engine that `build_engine` wrote.

    Raises:
        DeviceError: it belongs to another GPU or TensorRT, or was changed since.
    """
    cuda = cuda if cuda is not None else require_tensorrt()
    import tensorrt as trt

    info = load_engine_info(engine_path)
    try:
        plan = engine_path.read_bytes()
    except OSError as error:
        raise DeviceError(f"cannot read the engine {engine_path}: {error.strerror or error}") from error
    if hashlib.sha256(plan).hexdigest() != info.sha256:
        raise DeviceError(f"{engine_path} is not the engine that its description is about; build it again")
    for what, built, here in (
        ("TensorRT", info.tensorrt_version, tensorrt_version()),
        ("GPU", info.gpu, cuda.name),
    ):
        if built != here:
            raise DeviceError(
                f"{engine_path} was built for {what} {built}, here is {here}: engines do not move; "
                "build it again from the ONNX model"
            )
    log, errors = new_log()
    engine = or_none(started(trt.Runtime, log, errors).deserialize_cuda_engine(plan))
    if engine is None:
        raise DeviceError(
            f"TensorRT cannot load {engine_path}: {first_of(errors, 'it gave no reason')}; build it again"
        )
    return TensorRTSession(engine, info, cuda)


def measure_engine(
    session: TensorRTSession,
    *,
    plan: Plan = GPU,
    with_cuda_graph: bool = False,
    look: Callable[[], None] = lambda: None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    clock_s: Callable[[], float] = time.perf_counter,
) -> LatencyMeasurement:
    """Latency of one inference by CUDA events: the GPU's time, the gaps between its launches included.

    The plan's times are GPU time, and the GPU stays at work between the turns.

    with_cuda_graph: also time the engine as one CUDA graph, which has no such gaps.
    look: called after every turn, while the GPU works.
    clock_s: times the host, to remark when it is what limits.
    """
    timed = _EventTimed(session, clock_s)

    def after_turn(done: int, total: int) -> None:
        keep_at_work(session, look, clock_s=clock_s)
        progress(done, total)

    measured = measure_rounds(
        lambda: nullcontext(timed),
        plan=plan,
        rest=lambda seconds: timed.run(),
        progress=after_turn,
        clock_s=lambda: timed.gpu_s,  # its difference around `run` is what the events say
    )
    measured = with_host_fraction(measured, median(timed.host_fractions))
    if with_cuda_graph:
        captured = _EventTimed(session, clock_s)
        measured = with_graph(measured, captured.as_graph, clock_s=lambda: captured.gpu_s)
    measured = replace(measured, remarks=(*measured.remarks, *session.info.remarks))
    return judge_drift(measured)


class _EventTimed:
    """An engine whose runs are timed by CUDA events."""

    def __init__(self, session: TensorRTSession, clock_s: Callable[[], float]) -> None:
        self._session = session
        self._clock_s = clock_s
        self._run: Callable[[], object] = session.run
        self.gpu_s = 0.0
        self.host_fractions: list[float] = []
        """The start of each run, as a fraction of the GPU's time; first runs load kernels and take long."""

    def run(self) -> None:
        begin_s = self._clock_s()
        started_s = begin_s

        def start() -> None:
            nonlocal begin_s, started_s
            begin_s = self._clock_s()
            self._run()
            started_s = self._clock_s()

        gpu_s = self._session.cuda.elapsed_ms(start) / 1e3
        self.gpu_s += gpu_s
        self.host_fractions.append((started_s - begin_s) / gpu_s if gpu_s > 0 else 0.0)

    def synchronize(self) -> None:
        self._session.synchronize()

    @contextmanager
    def as_graph(self) -> Iterator[_EventTimed]:
        """Inside, a run replays the launches of an inference as one CUDA graph."""
        self._session.run()
        self._session.synchronize()  # what the first inference does must not be captured
        self._run = self._session.cuda.capture(self._session.run)
        yield self
