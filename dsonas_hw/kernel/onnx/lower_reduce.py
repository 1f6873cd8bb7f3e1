"""Operations that summarise: pools, reductions, norms, softmax."""

from __future__ import annotations

from dsonas_hw.kernel.onnx.graph import Node
from dsonas_hw.kernel.onnx.lower import Lowering, LowerNode, image, lower_as, window
from dsonas_hw.kernel.onnx.values import axes_of

CEILED_AVERAGE = "AveragePool(ceil_mode, count_include_pad)"
"""An average that counts padding and rounds its size up, which a window at the border sees differently."""


def lower_pool(op: str) -> LowerNode:
    """Return what lowers a pool by windows."""

    def lower(lowering: Lowering, node: Node) -> None:
        ceiled = node.attributes.get("ceil_mode", 0) and node.attributes.get("count_include_pad", 0)
        source = node.channels_first(lowering.shape(node.inputs[0]))
        lowering.emit(
            op,
            [node.inputs[0]],
            node.outputs[0],
            inputs=(image(source),),
            output=image(node.channels_first(lowering.shape(node.outputs[0]))),
            kernel_size=window(node.attributes["kernel_shape"], len(source)),
            stride=window(node.attributes.get("strides"), len(source)),
            dilation=window(node.attributes.get("dilations"), len(source)),
            written_as=CEILED_AVERAGE if ceiled else "",
        )

    return lower


def lower_global_pool(op: str) -> LowerNode:
    """Return what lowers a pool over all rows and columns."""

    def lower(lowering: Lowering, node: Node) -> None:
        source = image(node.channels_first(lowering.shape(node.inputs[0])))
        lowering.emit(
            op,
            [node.inputs[0]],
            node.outputs[0],
            inputs=(source,),
            output=(*source[:2], *(1,) * (len(source) - 2)),
            written_as=node.op if node.op.startswith("Reduce") else "",
        )

    return lower


def _reduce(function: str) -> LowerNode:
    """A reduction; over the rows and columns of an image, mean and max are global pools."""

    def lower(lowering: Lowering, node: Node) -> None:
        source = lowering.shape(node.inputs[0])
        constant = lowering.graph.constants.get(node.input(1))
        axes = axes_of([None, constant.values if constant else None], node.attributes)
        if node.op in ("ArgMax", "ArgMin"):
            axes = [int(node.attributes.get("axis", 0))]
        if not axes and node.attributes.get("noop_with_empty_axes", 0):
            lowering.view(node.outputs[0], node.inputs[0])
            return
        pool = {"mean": "global_avgpool", "max": "global_maxpool"}.get(function)
        rank = len(source)
        if pool and rank in (4, 5) and axes and {axis % rank for axis in axes} == set(range(2, rank)):
            lower_global_pool(pool)(lowering, node)
            return
        lowering.emit("reduce", [node.inputs[0]], node.outputs[0], function=function)

    return lower


def _batchnorm(lowering: Lowering, node: Node) -> None:
    shape = lowering.shape(node.inputs[0])
    lowering.emit(
        "batchnorm",
        [node.inputs[0]],
        node.outputs[0],
        biases=dict.fromkeys(node.inputs[1:3], shape[1]),
        channel_axes=frozenset([1]),
    )


def lower_norm(op: str, function: str = "") -> LowerNode:
    """Return what lowers a norm by statistics of the input itself, whose scale and shift are stored."""
    return lower_as(op, function, stored=slice(1, None))


REDUCE_LOWERINGS: dict[str, LowerNode] = {
    "MaxPool": lower_pool("maxpool"),
    "AveragePool": lower_pool("avgpool"),
    "GlobalAveragePool": lower_global_pool("global_avgpool"),
    "GlobalMaxPool": lower_global_pool("global_maxpool"),
    **{
        f"Reduce{name}": _reduce(name.lower())
        for name in ("Mean", "Max", "Min", "Sum", "Prod", "L1", "L2", "SumSquare", "LogSum", "LogSumExp")
    },
    "ArgMax": _reduce("argmax"),
    "ArgMin": _reduce("argmin"),
    "BatchNormalization": _batchnorm,
    "LayerNormalization": lower_norm("layernorm"),
    "RMSNormalization": lower_norm("layernorm", "rms"),
    "InstanceNormalization": lower_norm("instancenorm"),
    "MeanVarianceNormalization": lower_norm("instancenorm"),
    "GroupNormalization": lower_norm("groupnorm"),
    "LRN": lower_norm("lrn"),
    "LpNormalization": lower_norm("layernorm", "lp"),
    "LpPool": lower_pool("avgpool"),
    "GlobalLpPool": lower_global_pool("global_avgpool"),
    "Hardmax": lower_as("softmax", "hard"),
    "Softmax": lower_as("softmax"),
    "LogSoftmax": lower_as("softmax", "log"),
}
