"""One interface to whatever runs a network: open a session for an ONNX model, run it, wait, close.

| runtime        | what runs                                             | folder        |
|----------------|-------------------------------------------------------|---------------|
| `ort-cpu`      | ONNX Runtime, CPU provider                            | ort           |
| `ort-cuda`     | ONNX Runtime, CUDA provider                           | ort           |
| `ort-tensorrt` | ONNX Runtime, TensorRT provider                       | ort           |
| `tensorrt`     | an engine that TensorRT builds from the model         | tensorrt      |
| `eager`        | PyTorch, layer by layer, on the GPU (or on `local`)   | eager         |
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

from dsonas_hw.errors import DeviceError, ModelFileError, closest
from dsonas_hw.files import read_regular

if TYPE_CHECKING:
    from typing import Self

    import onnx

    from dsonas_hw.measure.measurement import LatencyMeasurement
    from dsonas_hw.measure.rounds import Plan

RUNTIMES: tuple[str, ...] = ("ort-cpu", "ort-cuda", "ort-tensorrt", "tensorrt", "eager")
PRECISIONS: dict[str, tuple[str, ...]] = {
    "ort-cpu": ("fp32",),
    "ort-cuda": ("fp32", "fp16"),
    "ort-tensorrt": ("fp32", "fp16", "int8"),
    "tensorrt": ("fp32", "fp16", "int8"),
    "eager": ("fp32", "fp16"),
}
"""What each runtime can run a model in; int8 needs a quantised one (TensorRT may time others too).

fp32 is what the runtime makes of an fp32 model: from Ampere on convolutions use TF32, and matrix products but
for `eager`'s. That is how the model will run, and what the estimate of a GPU is of.
"""

MAX_MODEL_BYTES = 2**31 - 1


class Session(Protocol):
    """A network, loaded and ready to run on inputs it made itself."""

    runtime: str
    versions: dict[str, str]
    """Library → version, of everything the timing depends on."""

    def run(self) -> object:
        """Start one inference; it may still be running on the device when this returns."""
        ...

    def synchronize(self) -> None:
        """Wait until the device has finished."""
        ...

    def close(self) -> None:
        """Give the device's memory back."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def open_session(
    model: bytes | Path,
    *,
    runtime: str = "ort-cpu",
    precision: str = "fp32",
    batch_size: int = 1,
    threads: int = 1,
    on_cpu: bool = False,
) -> Session:
    """Load an ONNX model into a runtime.

    batch_size: for a model whose batch is symbolic; a fixed one must agree.
    on_cpu: `eager` on the CPU instead of the GPU; the other runtimes say by name where they run.

    Raises:
        DeviceError: unknown runtime or precision, or the runtime cannot run here (one line with the reason).
        ModelFileError: not a model, or one that the runtime does not take.
    """
    check_runtime(runtime, precision)
    data = read_model(model)
    if runtime.startswith("ort-"):
        from dsonas_hw.runtime.ort.session import open_ort_session

        return open_ort_session(
            data, runtime=runtime, precision=precision, batch_size=batch_size, threads=threads
        )
    if runtime == "eager":
        from dsonas_hw.runtime.eager.session import open_eager_session

        return open_eager_session(
            data, precision=precision, batch_size=batch_size, threads=threads, on_cpu=on_cpu
        )
    from dsonas_hw.runtime.tensorrt.session import open_tensorrt_session

    return open_tensorrt_session(data, precision=precision, batch_size=batch_size)


def measure_session(
    session: Session,
    *,
    plan: Plan | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> LatencyMeasurement:
    """Latency of one inference on a GPU, which stays at work between the turns; TensorRT's by CUDA events.

    plan: `rounds.QUICK` if none is given.
    progress: called after every turn with the turns done and those there are.
    """
    from contextlib import nullcontext

    from dsonas_hw.measure.rounds import QUICK, measure_rounds

    plan = plan or QUICK
    if session.runtime == "tensorrt":
        from dsonas_hw.runtime.tensorrt.session import TensorRTSession, measure_engine

        assert isinstance(session, TensorRTSession)
        return measure_engine(session, plan=plan, progress=progress)

    def keep_busy(seconds: float) -> None:
        session.run()
        session.synchronize()

    return measure_rounds(lambda: nullcontext(session), plan=plan, rest=keep_busy, progress=progress)


def check_runtime(runtime: str, precision: str = "fp32") -> None:
    """Refuse a runtime or precision that does not exist.

    Raises:
        DeviceError: with what there is.
    """
    if runtime not in RUNTIMES:
        raise DeviceError(f"unknown runtime {runtime!r}. {closest(runtime, list(RUNTIMES))}")
    if precision not in PRECISIONS[runtime]:
        raise DeviceError(
            f"runtime {runtime} does not run precision {precision!r}; it has: "
            f"{', '.join(PRECISIONS[runtime])}"
        )


def is_quantised(data: bytes) -> bool:
    """Whether an ONNX model says itself what is int8, with Q/DQ nodes.

    Raises:
        ModelFileError: not a model.
    """
    return any(node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in onnx_graph(data).node)


def onnx_graph(data: bytes) -> onnx.GraphProto:
    """The graph of a serialised model.

    Raises:
        ModelFileError: not a model.
    """
    import onnx

    try:
        return onnx.load_model_from_string(data).graph
    except Exception as error:  # protobuf's own error class differs between its versions
        raise ModelFileError(f"not an ONNX model: {error}") from error


def read_model(model: bytes | Path) -> bytes:
    """The bytes of a model.

    Raises:
        ModelFileError: missing, unreadable, empty or too large.
    """
    if isinstance(model, bytes):
        return model
    try:
        data = read_regular(model, max_bytes=MAX_MODEL_BYTES)
    except OSError as error:
        raise ModelFileError(f"cannot read {model}: {error.strerror or error}") from error
    if not data:
        raise ModelFileError(f"{model} is empty, not an ONNX model")
    return data
