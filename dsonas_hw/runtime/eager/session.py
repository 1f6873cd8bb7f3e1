"""PyTorch eager: an ONNX network run layer by layer, as an eager framework does, on the GPU or the CPU.

Every node of the file is one call into PyTorch; nothing is fused. Operations that are not listed are refused
by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from dsonas_hw.errors import DeviceError, ModelFileError
from dsonas_hw.runtime.model import onnx_graph

if TYPE_CHECKING:
    from typing import Self

    import torch

Attributes = Mapping[str, Any]
Operation = Callable[[Sequence[Any], Attributes], Any]


class EagerSession:
    """A network whose nodes are called one after the other."""

    def __init__(
        self,
        nodes: list[tuple[Operation, tuple[str, ...], str, Attributes]],
        tensors: dict[str, Any],
        outputs: tuple[str, ...],
        versions: dict[str, str],
        device: torch.device,
    ) -> None:
        self.runtime = "eager"
        self.versions = versions
        self._nodes = nodes
        self._tensors = tensors
        self._outputs = outputs
        self._device = device

    def run(self) -> object:
        import torch

        values = dict(self._tensors)
        with torch.inference_mode():
            for operation, reads, writes, attributes in self._nodes:
                values[writes] = operation([values[name] if name else None for name in reads], attributes)
        return [values[name] for name in self._outputs]

    def synchronize(self) -> None:
        if self._device.type == "cuda":
            import torch

            torch.cuda.synchronize(self._device)

    def close(self) -> None:
        self._nodes, self._tensors = [], {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_eager_session(
    data: bytes,
    *,
    precision: str = "fp32",
    batch_size: int = 1,
    threads: int = 1,
    on_cpu: bool = False,
) -> EagerSession:
    """Load an ONNX network into PyTorch; see `runtime.registry.open_session`.

    Raises:
        DeviceError: there is no GPU that PyTorch can use.
        ModelFileError: not a model, or an operation that is not known here.
    """
    import onnx
    import torch

    device = _device(on_cpu)
    if on_cpu:
        torch.set_num_threads(threads)
    dtype = torch.float16 if precision == "fp16" else torch.float32
    graph = onnx_graph(data)
    tensors: dict[str, Any] = {}
    for tensor in graph.initializer:
        tensors[tensor.name] = _constant(tensor, device, dtype)
    generator = torch.Generator().manual_seed(0)
    for info in graph.input:
        if info.name not in tensors:
            shape = _shape(info, batch_size)
            tensors[info.name] = torch.randn(shape, generator=generator).to(device, dtype)
    nodes: list[tuple[Operation, tuple[str, ...], str, Attributes]] = []
    for node in graph.node:
        attributes = {a.name: _value(onnx.helper.get_attribute_value(a)) for a in node.attribute}
        if node.op_type == "Constant":
            tensors[node.output[0]] = _constant(attributes["value"], device, dtype)
            continue
        if node.op_type not in OPERATIONS or len(node.output) > 1:
            raise ModelFileError(f"runtime eager does not know the operation {node.op_type} ({node.name})")
        nodes.append((OPERATIONS[node.op_type], tuple(node.input), node.output[0], attributes))
    versions = {"torch": str(torch.__version__)}
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

    from dsonas_hw.runtime.driver import why_no_driver

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


def _pad(x: Any, attributes: Attributes, fill: float = 0.0) -> tuple[Any, tuple[int, ...]]:
    """(input, symmetric padding): padding that differs between the sides is applied here."""
    import torch.nn.functional as F

    if attributes.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        raise ModelFileError("runtime eager does not know auto_pad; export the network with explicit pads")
    pads = list(attributes.get("pads", [0, 0, 0, 0]))
    top, left, bottom, right = pads if len(pads) == 4 else [0, 0, 0, 0]
    if (top, left) == (bottom, right):
        return x, (top, left)
    return F.pad(x, (left, right, top, bottom), value=fill), (0, 0)


def _conv(inputs: Sequence[Any], a: Attributes) -> Any:
    import torch.nn.functional as F

    x, padding = _pad(inputs[0], a)
    bias = inputs[2] if len(inputs) > 2 else None
    return F.conv2d(
        x, inputs[1], bias, tuple(a.get("strides", (1, 1))), padding, tuple(a.get("dilations", (1, 1))),
        a.get("group", 1),
    )  # fmt: skip


def _max_pool(inputs: Sequence[Any], a: Attributes) -> Any:
    import torch.nn.functional as F

    x, padding = _pad(inputs[0], a, fill=float("-inf"))
    return F.max_pool2d(
        x, tuple(a["kernel_shape"]), tuple(a.get("strides", (1, 1))), padding,
        tuple(a.get("dilations", (1, 1))), bool(a.get("ceil_mode", 0)),
    )  # fmt: skip


def _average_pool(inputs: Sequence[Any], a: Attributes) -> Any:
    import torch.nn.functional as F

    x, padding = _pad(inputs[0], a)
    counted = bool(a.get("count_include_pad", 0))
    return F.avg_pool2d(
        x, tuple(a["kernel_shape"]), tuple(a.get("strides", (1, 1))), padding, bool(a.get("ceil_mode", 0)),
        counted,
    )  # fmt: skip


def _batch_norm(inputs: Sequence[Any], a: Attributes) -> Any:
    import torch.nn.functional as F

    x, weight, bias, mean, variance = inputs[:5]
    return F.batch_norm(x, mean, variance, weight, bias, eps=a.get("epsilon", 1e-5))


def _gemm(inputs: Sequence[Any], a: Attributes) -> Any:
    x = inputs[0].T if a.get("transA", 0) else inputs[0]
    weight = inputs[1].T if a.get("transB", 0) else inputs[1]
    result = a.get("alpha", 1.0) * (x @ weight) if a.get("alpha", 1.0) != 1.0 else x @ weight
    return result + a.get("beta", 1.0) * inputs[2] if len(inputs) > 2 else result


def _sum(inputs: Sequence[Any], a: Attributes) -> Any:
    total = inputs[0]
    for value in inputs[1:]:
        total = total + value
    return total


def _concat(inputs: Sequence[Any], a: Attributes) -> Any:
    import torch

    return torch.cat(list(inputs), dim=a["axis"])


def _reduce_mean(inputs: Sequence[Any], a: Attributes) -> Any:
    axes = a["axes"] if "axes" in a else inputs[1].tolist()
    return inputs[0].mean(dim=tuple(axes), keepdim=bool(a.get("keepdims", 1)))


def _clip(inputs: Sequence[Any], a: Attributes) -> Any:
    low = inputs[1] if len(inputs) > 1 else a.get("min")
    high = inputs[2] if len(inputs) > 2 else a.get("max")
    return inputs[0].clamp(low, high)


def _reshape(inputs: Sequence[Any], a: Attributes) -> Any:
    sizes = [inputs[0].shape[i] if size == 0 else int(size) for i, size in enumerate(inputs[1].tolist())]
    return inputs[0].reshape(sizes)


def _functional(name: str) -> Operation:
    def call(inputs: Sequence[Any], a: Attributes) -> Any:
        import torch.nn.functional as F

        return getattr(F, name)(inputs[0])

    return call


OPERATIONS: dict[str, Operation] = {
    "Conv": _conv,
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "GlobalAveragePool": lambda inputs, a: inputs[0].mean(dim=(2, 3), keepdim=True),
    "BatchNormalization": _batch_norm,
    "Relu": _functional("relu"),
    "Sigmoid": lambda inputs, a: inputs[0].sigmoid(),
    "Tanh": lambda inputs, a: inputs[0].tanh(),
    "HardSwish": _functional("hardswish"),
    "HardSigmoid": lambda inputs, a: (inputs[0] * a.get("alpha", 0.2) + a.get("beta", 0.5)).clamp(0, 1),
    "Clip": _clip,
    "Add": _sum,
    "Sum": _sum,
    "Mul": lambda inputs, a: inputs[0] * inputs[1],
    "Concat": _concat,
    "ReduceMean": _reduce_mean,
    "Flatten": lambda inputs, a: inputs[0].flatten(a.get("axis", 1)),
    "Reshape": _reshape,
    "Transpose": lambda inputs, a: inputs[0].permute(*a["perm"]),
    "Gemm": _gemm,
    "MatMul": lambda inputs, a: inputs[0] @ inputs[1],
    "Softmax": lambda inputs, a: inputs[0].softmax(dim=a.get("axis", -1)),
    "Identity": lambda inputs, a: inputs[0],
    "Dropout": lambda inputs, a: inputs[0],
}
