"""What the time model needs to know of a kernel: one row of numbers, the same for every device.

Columns are named in `COLUMNS`; sizes are counts (elements, outputs, channels), never bytes, so that one row
serves every precision.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
from numpy.typing import NDArray

from dsonas_hw.kernel.spec import Kernel

#: How the time of a kernel is modelled.
CATEGORIES = ("matrix", "depthwise", "grouped", "pool", "elementwise", "norm", "move", "reduce", "softmax")

COLUMNS = (
    "category",  # index into CATEGORIES
    "m",  # matrix rows: images × output pixels, or rows of a linear layer
    "n",  # matrix columns: output channels per group
    "k",  # depth of the inner product: input channels per group × taps
    "groups",
    "taps",  # window or filter positions
    "is_convolution",  # 0 for linear layers and matrix products
    "can_winograd",  # 3×3, stride 1, not grouped
    "images",
    "height",  # of the output
    "width",
    "stride",
    "input_channels",
    "inputs",  # elements read, weights not included
    "outputs",  # elements written
    "weights",
    "largest",  # elements of the largest input
    "is_linear_rank",  # 1 where k is contracted by a plain matrix product
)
COLUMN = {name: index for index, name in enumerate(COLUMNS)}

_CATEGORY_OF_KIND = {
    "gemm": "matrix",
    "pool": "pool",
    "elementwise": "elementwise",
    "norm": "norm",
    "move": "move",
    "reduce": "reduce",
    "softmax": "softmax",
}


def category_of(kernel: Kernel) -> str:
    """Which of `CATEGORIES` a kernel is."""
    if kernel.kind != "conv":
        return _CATEGORY_OF_KIND[kernel.kind]
    if kernel.groups == 1:
        return "matrix"
    return "depthwise" if kernel.is_depthwise else "grouped"


def kernel_row(kernel: Kernel) -> tuple[float, ...]:
    """One kernel as numbers, in the order of `COLUMNS`."""
    output = kernel.output
    spatial = output[2:] if len(output) > 2 else ()
    height = spatial[0] if len(spatial) == 2 else 1
    width = spatial[-1] if len(spatial) == 2 else 1
    taps = prod(kernel.kernel_size)
    outputs = prod(output)
    if kernel.kind == "conv":
        groups = kernel.groups
        if kernel.op == "conv_transpose":
            m, n = prod(kernel.inputs[0]) // kernel.inputs[0][1], output[1] // groups * taps
            k = kernel.inputs[0][1] // groups
        else:
            m, n = outputs // max(output[1], 1), output[1] // groups
            k = kernel.inputs[0][1] // groups * taps
        channels = kernel.inputs[0][1]
    elif kernel.kind == "gemm":
        groups, n, k = 1, output[-1], kernel.inputs[0][-1]
        m, channels = outputs // max(n, 1), k
        if kernel.op == "matmul" and len(kernel.inputs) > 1 and len(output) > 2:
            groups = prod(output[:-2])
            m //= max(groups, 1)
    else:
        groups, m, n, k, channels = 1, outputs, 1, 1, output[1] if len(output) > 1 else 1
    winograd = (
        kernel.op == "conv"
        and kernel.kernel_size == (3, 3)
        and kernel.stride == (1, 1)
        and kernel.dilation == (1, 1)
        and kernel.groups == 1
    )
    inputs = [prod(shape) for shape in kernel.inputs]
    return (
        float(CATEGORIES.index(category_of(kernel))),
        float(m),
        float(n),
        float(k),
        float(groups),
        float(taps),
        float(kernel.kind == "conv"),
        float(winograd),
        float(output[0]),
        float(height),
        float(width),
        float(max(kernel.stride)),
        float(channels),
        float(sum(inputs)),
        float(outputs),
        float(kernel.num_weights),
        float(max(inputs, default=0)),
        float(kernel.kind == "gemm"),
    )


def kernel_rows(kernels: Sequence[Kernel]) -> NDArray[np.float64]:
    """Kernels as an array of shape (len(kernels), len(COLUMNS))."""
    return np.array([kernel_row(kernel) for kernel in kernels], dtype=np.float64).reshape(-1, len(COLUMNS))


def halved(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """The same kernels on half of their images; a batch of matrix products has half as many products."""
    half = rows.copy()
    products = (rows[:, COLUMN["is_convolution"]] == 0) & (rows[:, COLUMN["groups"]] > 1)
    half[products, COLUMN["groups"]] /= 2
    half[~products, COLUMN["m"]] /= 2
    half[:, [COLUMN[name] for name in ("images", "inputs", "outputs", "largest")]] /= 2
    return half
