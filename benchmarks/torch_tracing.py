"""The kernels that a module runs, found by running it on shapes alone (meta tensors).

An eager framework runs the traced operations one by one; for a runtime that fuses (TensorRT, ONNX Runtime)
the trace goes through `kernel.fuse`, as a network that is read from an ONNX file does.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from dsonas_hw.kernel.fuse import fuse_kernels
from dsonas_hw.kernel.network import Schedule, ScheduledKernel
from dsonas_hw.kernel.spec import Kernel, Shape

UNARY = {
    "relu", "hardswish", "silu", "sigmoid", "hardsigmoid", "hardtanh", "gelu", "leaky_relu", "tanh", "elu",
    "exp", "softplus", "mish", "clamp", "pow", "rsqrt", "sqrt",
}  # fmt: skip
ARITHMETIC = {"add": "sum", "sub": "sub", "rsub": "sub", "mul": "mul", "div": "div"}
REDUCTIONS = {"mean", "sum", "amax", "amin", "var_mean", "var", "max"}
COPIES = {
    "clone", "copy", "contiguous", "_to_copy", "roll", "constant_pad_nd", "index", "gather", "pixel_shuffle",
    "pixel_unshuffle", "repeat", "im2col", "stack",
}  # fmt: skip
#: Operations without a kernel worth the name: views, allocations, numbers.
FREE = {
    "view", "_unsafe_view", "reshape", "t", "transpose", "permute", "expand", "slice", "select", "unsqueeze",
    "squeeze", "flatten", "split", "chunk", "detach", "alias", "split_with_sizes", "unbind", "as_strided",
    "unfold", "empty", "empty_like", "zeros", "ones", "arange", "view_as", "_reshape_alias", "lift_fresh",
    "narrow", "unsafe_split", "zeros_like", "full", "new_zeros", "new_ones", "scalar_tensor", "diagonal",
}  # fmt: skip


#: PyTorch's names of activations → those that ONNX files have.
_ONNX_NAMES = {"hardtanh": "clip", "leaky_relu": "leakyrelu"}


class KernelTracer(TorchDispatchMode):
    """Collects a kernel per dispatched operation; what it does not know goes to `unknown`."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[ScheduledKernel] = []
        self.unknown: set[str] = set()
        self._writers: dict[int, str] = {}
        self._kept: list[Any] = []

    @property
    def kernels(self) -> Counter[Kernel]:
        """What an eager framework runs: parts of a tensor are views."""
        return Counter(step.kernel for step in self.steps if step.kernel.function not in ("split", "slice"))

    def fused_kernels(self, output: torch.Tensor) -> Counter[Kernel]:
        """What an inference runtime runs."""
        schedule = Schedule(kernels=tuple(self.steps), inputs={}, outputs=frozenset([self._buffer(output)]))
        return Counter(step.kernel for step in fuse_kernels(schedule).kernels)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func._schema.name.split("::")[1].rstrip("_") or func._schema.name
        first = result[0] if isinstance(result, tuple | list) else result
        kernel = _kernel(name, args, first)
        if isinstance(kernel, Kernel):
            self._add(kernel, name, args, first)
        elif kernel is None:
            self.unknown.add(name)
        elif name in ("split", "split_with_sizes", "unsafe_split", "chunk", "slice", "narrow"):
            self._add_part(name, args, result)
        return result

    def _add(self, kernel: Kernel, name: str, args: Any, output: torch.Tensor) -> None:
        tensors = [arg for arg in args if isinstance(arg, torch.Tensor)]
        if name == "cat":
            tensors = list(args[0])
        elif name in ("addmm", "baddbmm"):
            tensors = tensors[1:]
        reads = tuple(self._buffer(tensor) for tensor in tensors[: len(kernel.inputs)])
        self._write(kernel, reads, output)

    def _add_part(self, name: str, args: Any, result: Any) -> None:
        """Parts of a tensor: nothing in an eager framework, a copy elsewhere (`lower_move`)."""
        source = args[0]
        if isinstance(result, torch.Tensor):
            if result.shape != source.shape:
                shape = _shape(result)
                kernel = Kernel(op="copy", inputs=(shape,), output=shape, function="slice")
                self._write(kernel, (self._buffer(source),), None)
        elif len(result) > 1:
            shape = _shape(source)
            kernel = Kernel(op="copy", inputs=(shape,), output=shape, function="split")
            self._write(kernel, (self._buffer(source),), None)

    def _write(self, kernel: Kernel, reads: tuple[str, ...], output: torch.Tensor | None) -> None:
        writes = f"t{len(self.steps)}"
        if output is not None:
            # A tensor is known by its storage, so that views and operations in place find it again.
            self._writers[output.untyped_storage()._cdata] = writes
            self._kept.append(output)
        axes = frozenset([1]) if kernel.op == "batchnorm" else frozenset[int]()
        self.steps.append(ScheduledKernel(kernel=kernel, reads=reads, writes=writes, channel_axes=axes))

    def _buffer(self, tensor: torch.Tensor) -> str:
        key = tensor.untyped_storage()._cdata
        self._kept.append(tensor)
        return self._writers.get(key, f"s{key}")


def _kernel(name: str, args: Any, output: Any) -> Kernel | bool | None:
    """The kernel of one operation; False: none is needed; None: not known."""
    if name in FREE:
        return False
    tensors = [arg for arg in args if isinstance(arg, torch.Tensor)]
    if name == "cat":
        return Kernel(op="concat", inputs=tuple(_shape(part) for part in args[0]), output=_shape(output))
    if not tensors or not isinstance(output, torch.Tensor):
        return None
    x, out = _shape(tensors[0]), _shape(output)
    if name == "convolution":
        return _convolution(args, x, out)
    if name in ("addmm", "mm"):
        first, weights = (args[1], args[2]) if name == "addmm" else (args[0], args[1])
        bias = out[-1] if name == "addmm" else 0
        return Kernel(
            op="gemm", inputs=(_shape(first),), output=out, num_weights=weights.numel(), num_bias=bias
        )
    if name in ("bmm", "baddbmm"):
        pair = args[:2] if name == "bmm" else args[1:3]
        return Kernel(op="matmul", inputs=(_shape(pair[0]), _shape(pair[1])), output=out)
    if "batch_norm" in name:
        return Kernel(op="batchnorm", inputs=(x,), output=x, num_weights=2 * x[1], num_bias=2 * x[1])
    if "layer_norm" in name or "group_norm" in name:
        op = "layernorm" if "layer_norm" in name else "groupnorm"
        return Kernel(op=op, inputs=(x,), output=x, num_weights=x[-1] if op == "layernorm" else x[1])
    if name in ARITHMETIC:
        return Kernel(op=ARITHMETIC[name], inputs=tuple(map(_shape, tensors)), output=out)
    if name in UNARY:
        return Kernel(op="unary", inputs=(x,), output=out, function=_ONNX_NAMES.get(name, name))
    if name in ("max_pool2d_with_indices", "avg_pool2d"):
        k = tuple(args[1]) * (2 // len(args[1]))
        stride = tuple(args[2]) * (2 // len(args[2])) if len(args) > 2 and args[2] else k
        op = "maxpool" if name.startswith("max") else "avgpool"
        return Kernel(op=op, inputs=(x,), output=out, kernel_size=k, stride=stride)
    if "adaptive_avg_pool2d" in name:
        return Kernel(op="global_avgpool", inputs=(x,), output=out)
    if name in REDUCTIONS:
        return Kernel(op="reduce", inputs=(x,), output=out or (1,), function=name)
    if name in COPIES:
        return Kernel(op="copy", inputs=(x,), output=out, function=name)
    if name in ("_softmax", "softmax"):
        return Kernel(op="softmax", inputs=(x,), output=out)
    if "upsample" in name:
        return Kernel(op="resize", inputs=(x,), output=out)
    return None


def _convolution(args: Any, x: Shape, out: Shape) -> Kernel | None:
    weight, bias, stride, _, dilation, transposed, _, groups = args[1:9]
    if len(x) != 4:
        return None
    return Kernel(
        op="conv_transpose" if transposed else "conv",
        inputs=(x,),
        output=out,
        kernel_size=(weight.shape[2], weight.shape[3]),
        stride=(stride[0], stride[-1]),
        dilation=(dilation[0], dilation[-1]),
        groups=groups,
        num_weights=weight.numel(),
        num_bias=0 if bias is None else bias.numel(),
    )


def _shape(tensor: torch.Tensor) -> Shape:
    return tuple(tensor.shape)


@dataclass(frozen=True)
class Trace:
    """Kernels of one inference: as they are, and fused; and the operations that no kernel stands for."""

    eager: Mapping[Kernel, int]
    fused: Mapping[Kernel, int]
    unknown: frozenset[str]


def trace_kernels(module: torch.nn.Module, batch_size: int, height: int, width: int) -> Trace:
    module = module.eval().to("meta")
    with torch.no_grad(), KernelTracer() as tracer:
        output = module(torch.empty(batch_size, 3, height, width, device="meta"))
    return Trace(tracer.kernels, tracer.fused_kernels(output), frozenset(tracer.unknown))


_PROBE = 9973
"""A batch size that no other dimension is a multiple of."""


def network_kernels(
    name: str, batch_size: int, height: int, width: int, *, fuse: bool = False
) -> Mapping[Kernel, int] | None:
    """Kernels of `torchvision:NAME` or `timm:NAME`.

    None: today's library does not have the model, or it runs operations that no kernel stands for.
    """
    trace = _trace(name, height, width)
    if trace is None or trace.unknown:
        return None
    kernels: Counter[Kernel] = Counter()
    for kernel, count in (trace.fused if fuse else trace.eager).items():
        inputs = tuple(_batched(shape, batch_size) for shape in kernel.inputs)
        kernels[replace(kernel, inputs=inputs, output=_batched(kernel.output, batch_size))] += count
    return kernels


def _batched(shape: Shape, batch_size: int) -> Shape:
    """The shape at another batch size than the probe's."""
    return (shape[0] // _PROBE * batch_size, *shape[1:]) if shape and shape[0] % _PROBE == 0 else shape


@functools.cache
def _trace(name: str, height: int, width: int) -> Trace | None:
    library, _, model = name.partition(":")
    try:
        with torch.device("meta"):
            if library == "torchvision":
                import torchvision

                module: torch.nn.Module = getattr(torchvision.models, model)(weights=None)
            else:
                import timm

                module = timm.create_model(model)
        return trace_kernels(module, _PROBE, height, width)
    except Exception:  # any model may fail on shapes alone, each in its own way
        return None
