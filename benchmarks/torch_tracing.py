"""The kernels that eager PyTorch runs for a module, found by running it on shapes alone (meta tensors)."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

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


class KernelTracer(TorchDispatchMode):
    """Collects a kernel per dispatched operation; what it does not know goes to `unknown`."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels: Counter[Kernel] = Counter()
        self.unknown: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func._schema.name.split("::")[1].rstrip("_") or func._schema.name
        kernel = _kernel(name, args, result[0] if isinstance(result, tuple | list) else result)
        if isinstance(kernel, Kernel):
            self.kernels[kernel] += 1
        elif kernel is None:
            self.unknown.add(name)
        return result


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
        return Kernel(op="unary", inputs=(x,), output=out, function=name)
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


def trace_kernels(module: torch.nn.Module, batch_size: int, size: int) -> tuple[Counter[Kernel], set[str]]:
    """Kernels of one inference, and the operations that no kernel stands for."""
    module = module.eval().to("meta")
    with torch.no_grad(), KernelTracer() as tracer:
        module(torch.empty(batch_size, 3, size, size, device="meta"))
    return tracer.kernels, tracer.unknown


@functools.cache
def torchvision_kernels(name: str, batch_size: int, size: int) -> Mapping[Kernel, int]:
    import torchvision

    with torch.device("meta"):
        module = getattr(torchvision.models, name)(weights=None)
    kernels, unknown = trace_kernels(module, batch_size, size)
    if unknown:
        raise RuntimeError(f"{name} runs operations without a kernel: {sorted(unknown)}")
    return kernels


@functools.cache
def timm_kernels(name: str, batch_size: int, size: int) -> Mapping[Kernel, int] | None:
    """None: today's timm does not have the model, or it runs operations that no kernel stands for."""
    import timm

    try:
        with torch.device("meta"):
            module = timm.create_model(name)
        kernels, unknown = trace_kernels(module, batch_size, size)
    except Exception:  # any model may fail on shapes alone, each in its own way
        return None
    return None if unknown else kernels
