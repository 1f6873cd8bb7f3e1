"""Operations of ONNX, each as one call into PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dsonas_hw.errors import ModelFileError

Attributes = Mapping[str, Any]
Operation = Callable[[Sequence[Any], Attributes], Any]


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
