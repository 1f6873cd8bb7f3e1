"""The little of CUDA that TensorRT needs: memory, a stream, events. PyTorch brings it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from dsonas_hw.errors import DeviceError


class Cuda(Protocol):
    """A GPU with one stream; `TorchCuda` is the real one."""

    name: str
    """As the driver calls the GPU."""
    stream_handle: int
    versions: dict[str, str]
    """That of CUDA, as PyTorch brings it."""

    def buffer(self, shape: Sequence[int], dtype: str, *, random: bool) -> tuple[object, int]:
        """Memory for a tensor (kept alive by the object) and its address."""
        ...

    def synchronize(self) -> None:
        """Wait until the stream is empty."""
        ...

    def elapsed_ms(self, run: Callable[[], object]) -> float:
        """Time between two events of the stream around `run`, once both have passed."""
        ...

    def capture(self, run: Callable[[], object]) -> Callable[[], object]:
        """What replays, as one CUDA graph, all that `run` starts on the stream."""
        ...


class TorchCuda:
    """The current GPU of PyTorch."""

    def __init__(self) -> None:
        import torch

        if not torch.cuda.is_available():
            raise DeviceError(
                f"PyTorch {torch.__version__} cannot use the GPU; its own reason: "
                f"{_why_not(torch) or 'none given'}"
            )
        self._torch: Any = torch
        self._stream = self._torch.cuda.Stream()
        self.name = str(torch.cuda.get_device_name())
        self.stream_handle = int(self._stream.cuda_stream)
        self.versions = {"cuda": str(torch.version.cuda)}

    def buffer(self, shape: Sequence[int], dtype: str, *, random: bool) -> tuple[object, int]:
        kind = getattr(self._torch, dtype)
        if random and kind.is_floating_point:
            generator = self._torch.Generator(device="cuda").manual_seed(0)
            tensor = self._torch.randn(tuple(shape), device="cuda", generator=generator).to(kind)
        else:
            tensor = self._torch.zeros(tuple(shape), device="cuda", dtype=kind)
        self._torch.cuda.synchronize()  # it was filled on another stream
        return tensor, int(tensor.data_ptr())

    def synchronize(self) -> None:
        self._stream.synchronize()

    def elapsed_ms(self, run: Callable[[], object]) -> float:
        start = self._torch.cuda.Event(enable_timing=True)
        end = self._torch.cuda.Event(enable_timing=True)
        start.record(self._stream)
        run()
        end.record(self._stream)
        end.synchronize()
        return float(start.elapsed_time(end))

    def capture(self, run: Callable[[], object]) -> Callable[[], object]:
        graph = self._torch.cuda.CUDAGraph()
        with self._torch.cuda.graph(graph, stream=self._stream):
            run()

        def replay() -> None:
            with self._torch.cuda.stream(self._stream):
                graph.replay()

        return replay


def _why_not(torch: Any) -> str:
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        return " ".join(str(error).split())
    return ""
