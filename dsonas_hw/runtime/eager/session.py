"""PyTorch eager: an ONNX network run layer by layer, as an eager framework does, on the GPU or the CPU.

Every node of the file is one call into PyTorch; nothing is fused. Operations that are not listed are refused
by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dsonas_hw.device.spec import LOCAL
from dsonas_hw.errors import DeviceError, ModelFileError
from dsonas_hw.runtime.base import Session
from dsonas_hw.runtime.driver import version_text, why_no_driver
from dsonas_hw.runtime.eager.operations import OPERATIONS, Attributes, Operation
from dsonas_hw.runtime.model import onnx_graph
from dsonas_hw.target import Target

if TYPE_CHECKING:
    import torch

Node = tuple[Operation, tuple[str, ...], str, Attributes]
"""What is called, the tensors it reads ("" for one that is left out), the tensor it makes, and how."""


class EagerSession(Session):
    """A network whose nodes are called one after the other.

    While it is open, PyTorch may choose kernels that are not deterministic, also in a process that trains:
    what is timed is what runs where nobody trains.
    """

    runtime = "eager"

    def __init__(
        self,
        nodes: list[Node],
        tensors: dict[str, Any],
        outputs: tuple[str, ...],
        versions: dict[str, str],
        device: torch.device,
    ) -> None:
        self.versions = versions
        self._nodes = nodes
        self._tensors = tensors
        self._outputs = outputs
        self._device = device
        self._dead = _last_uses(nodes, outputs)
        self._choice = ExitStack()
        self._choice.enter_context(free_choice_of_kernels())

    def run(self) -> object:
        import torch

        values = dict(self._tensors)
        with torch.inference_mode():
            for (operation, reads, writes, attributes), dead in zip(self._nodes, self._dead, strict=True):
                values[writes] = operation([values[name] if name else None for name in reads], attributes)
                for name in dead:  # their memory is used again, as in a framework's own modules
                    del values[name]
        return [values[name] for name in self._outputs]

    def watched(self, span: Callable[[str], AbstractContextManager[None]]) -> EagerSession:
        """The same network on the same tensors, each call inside of `span(the tensor that it makes)`."""

        def watch(operation: Operation, writes: str) -> Operation:
            def call(inputs: Sequence[Any], attributes: Attributes) -> Any:
                with span(writes):
                    return operation(inputs, attributes)

            return call

        nodes = [(watch(operation, writes), reads, writes, a) for operation, reads, writes, a in self._nodes]
        return EagerSession(nodes, self._tensors, self._outputs, self.versions, self._device)

    @contextmanager
    def as_graph(self) -> Iterator[CapturedNetwork]:
        """The network with all its launches captured as one CUDA graph.

        Raises:
            DeviceError: it runs on the CPU, where nothing is launched.
        """
        import torch

        if self._device.type != "cuda":
            raise DeviceError("on the CPU nothing is launched")
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # libraries set themselves up, which must not be captured
            for _ in range(3):
                self.run()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            outputs = self.run()
        yield CapturedNetwork(run=graph.replay, synchronize=self.synchronize, outputs=outputs)

    def synchronize(self) -> None:
        if self._device.type == "cuda":
            import torch

            torch.cuda.synchronize(self._device)

    def close(self) -> None:
        self._nodes, self._tensors, self._dead = [], {}, []
        self._choice.close()


@dataclass(frozen=True, kw_only=True)
class CapturedNetwork:
    """A network whose run replays a CUDA graph."""

    run: Callable[[], object]
    synchronize: Callable[[], None]
    outputs: object
    """Where the graph writes; kept, since it goes on writing there."""


def _last_uses(nodes: Sequence[Node], outputs: Sequence[str]) -> list[tuple[str, ...]]:
    """After each node, the intermediate tensors that nothing reads any more."""
    last = {writes: index for index, (_, _, writes, _) in enumerate(nodes)}
    for index, (_, reads, _, _) in enumerate(nodes):
        last.update((name, index) for name in reads if name in last)
    ends: list[list[str]] = [[] for _ in nodes]
    for name, index in last.items():
        if name not in outputs:
            ends[index].append(name)
    return [tuple(names) for names in ends]


def open_eager_session(data: bytes, target: Target) -> EagerSession:
    """Load an ONNX network into PyTorch; see `runtime.registry.open_session`.

    Raises:
        DeviceError: there is no GPU that PyTorch can use.
        ModelFileError: not a model, or an operation that is not known here.
    """
    import onnx
    import torch

    on_cpu = target.device == LOCAL
    device = _device(on_cpu)
    if on_cpu:
        torch.set_num_threads(target.threads)
    dtype = torch.float16 if target.precision == "fp16" else torch.float32
    graph = onnx_graph(data)
    tensors: dict[str, Any] = {}
    for tensor in graph.initializer:
        tensors[tensor.name] = _constant(tensor, device, dtype)
    generator = torch.Generator().manual_seed(0)
    for info in graph.input:
        if info.name not in tensors:
            shape = _shape(info, target.batch_size)
            tensors[info.name] = torch.randn(shape, generator=generator).to(device, dtype)
    nodes: list[Node] = []
    for node in graph.node:
        attributes = {a.name: _value(onnx.helper.get_attribute_value(a)) for a in node.attribute}
        if node.op_type == "Constant":
            tensors[node.output[0]] = _constant(attributes["value"], device, dtype)
            continue
        if node.op_type not in OPERATIONS or len(node.output) > 1:
            raise ModelFileError(f"runtime eager does not know the operation {node.op_type} ({node.name})")
        nodes.append((OPERATIONS[node.op_type], tuple(node.input), node.output[0], attributes))
    versions = {"torch": str(torch.__version__)}
    if device.type == "cuda":
        versions |= gpu_versions()
    return EagerSession(nodes, tensors, tuple(info.name for info in graph.output), versions, device)


def _device(on_cpu: bool) -> torch.device:
    import torch

    if not on_cpu and not torch.cuda.is_available():
        raise DeviceError(f"runtime eager cannot run here: {_why_no_cuda()}")
    return torch.device("cpu" if on_cpu else "cuda")


def _constant(tensor: Any, device: torch.device, dtype: torch.dtype) -> Any:
    """Weights on the device; whole numbers are sizes and axes: reading them there would wait for it."""
    import torch
    from onnx import numpy_helper

    value = torch.from_numpy(np.array(numpy_helper.to_array(tensor)))
    return value.to(device, dtype) if value.is_floating_point() else value


def _why_no_cuda() -> str:
    import torch

    if torch.version.cuda is None:
        return "the installed torch is built for the CPU only"
    return why_no_driver() or f"torch {torch.__version__} (CUDA {torch.version.cuda}) finds no usable GPU"


def _shape(info: Any, batch_size: int) -> tuple[int, ...]:
    sizes = [dim.dim_value if dim.HasField("dim_value") else 0 for dim in info.type.tensor_type.shape.dim]
    if sizes and sizes[0] == 0:
        sizes[0] = batch_size
    if not sizes or min(sizes) < 1:
        raise ModelFileError(f"input {info.name!r} has a symbolic size apart from the batch")
    if sizes[0] != batch_size:
        raise ModelFileError(f"input {info.name!r} is fixed to a batch of {sizes[0]}, asked for {batch_size}")
    return tuple(sizes)


def _value(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value


# -- what of PyTorch's global state decides which kernels run ------------------------------------------------

_num_open = 0
_was_deterministic = False


@contextmanager
def free_choice_of_kernels() -> Iterator[None]:
    """Inside, PyTorch is not asked for deterministic algorithms, as training does; contexts may overlap."""
    global _num_open, _was_deterministic
    import torch

    if _num_open == 0:
        _was_deterministic = torch.are_deterministic_algorithms_enabled()
        torch.use_deterministic_algorithms(False)
    _num_open += 1
    try:
        yield
    finally:
        _num_open -= 1
        if _num_open == 0:
            torch.use_deterministic_algorithms(_was_deterministic, warn_only=True)


def gpu_versions() -> dict[str, str]:
    """CUDA and cuDNN of PyTorch, and the switches that decide which kernels run."""
    import torch

    cudnn: Any = torch.backends.cudnn
    return {
        "cuda": str(torch.version.cuda),
        "cudnn": version_text(cudnn.version() or 0),
        "tf32 of convolutions": str(cudnn.allow_tf32),
        "tf32 of matrix products": str(torch.backends.cuda.matmul.allow_tf32),
        "cudnn.benchmark": str(cudnn.benchmark),
    }
