"""From an architecture to the kernels that run once it is deployed.

Law (tested): equal to the kernels read back from the exported ONNX file.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from dsonas_hw.architecture.architecture import Architecture
from dsonas_hw.architecture.graph import Node, Segment, list_segments
from dsonas_hw.kernel.spec import Kernel, Shape


def lower(architecture: Architecture, *, batch_size: int = 1, fuse: bool = True) -> tuple[Kernel, ...]:
    """Return the kernels of an architecture in the order they run.

    fuse: ReLU and what is left of batch norms inside kernels; False: each on its own, as an eager framework
        runs the exported file.
    """
    kernels: list[Kernel] = []
    for _, segment in list_segments(architecture):
        kernels.extend(lower_segment(segment, batch_size, fuse))
    return tuple(kernels)


@lru_cache(maxsize=65536)
def lower_segment(segment: Segment, batch_size: int, fuse: bool) -> tuple[Kernel, ...]:
    """Return the kernels of a stem, block, reduction or head; cached, since blocks repeat."""
    return tuple(
        kernel for node in segment.nodes("", "") for kernel in lower_node(node, batch_size, fuse=fuse)
    )


def lower_node(node: Node, batch_size: int, *, fuse: bool = True) -> Iterator[Kernel]:
    """Yield one kernel if fused; the layer, its batch norm and its ReLU otherwise.

    A convolution's batch norm is folded into its weights either way, as the export does it.
    """
    output: Shape = (batch_size, *node.output_shape)
    source: Shape = (batch_size, *node.input_shape)
    channels = node.output_shape[0]
    square = (node.kernel_size, node.kernel_size)
    stride, dilation = (node.stride, node.stride), (node.dilation, node.dilation)
    relu = ("relu",) if node.relu and fuse else ()
    match node.op:
        case "conv":
            yield Kernel(
                op="conv", inputs=(source,), output=output, kernel_size=square, stride=stride,
                dilation=dilation, groups=node.groups, epilogue=relu,
                num_weights=channels * (node.input_shape[0] // node.groups) * node.kernel_size**2,
                num_bias=channels if node.bn else 0,
            )  # fmt: skip
        case "maxpool" | "avgpool":
            yield Kernel(
                op=node.op, inputs=(source,), output=output, kernel_size=square, stride=stride,
                epilogue=(("bn",) if node.bn and fuse else ()) + relu,
                num_bias=2 * channels if node.bn and fuse else 0,
            )  # fmt: skip
        case "sum" | "concat":
            yield Kernel(op=node.op, inputs=(source,) * len(node.inputs), output=output)
        case "bn":
            yield Kernel(
                op="batchnorm", inputs=(source,), output=output, num_bias=2 * channels, epilogue=relu
            )
        case "global_avgpool":
            yield Kernel(op="global_avgpool", inputs=(source,), output=output)
        case "gemm":
            features = node.input_shape[0]
            yield Kernel(
                op="gemm", inputs=(source,), output=output, num_weights=features * channels,
                num_bias=channels,
            )  # fmt: skip
    if fuse:
        return
    if node.bn and node.op != "conv":
        yield Kernel(op="batchnorm", inputs=(output,), output=output, num_bias=2 * channels)
    if node.relu:
        yield Kernel(op="unary", function="relu", inputs=(output,), output=output)
