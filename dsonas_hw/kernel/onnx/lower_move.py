"""Operations that move data, or that only look at it differently."""

from __future__ import annotations

from dsonas_hw.kernel.onnx.graph import Node
from dsonas_hw.kernel.onnx.lower import ALL, Lowering, LowerNode, lower_as


def _view(lowering: Lowering, node: Node) -> None:
    lowering.view(node.outputs[0], node.inputs[0])


def _copy(function: str, *, reads_region: bool = False) -> LowerNode:
    """Elements go to another place; with `reads_region` only those are read that arrive."""

    def lower(lowering: Lowering, node: Node) -> None:
        source, output = node.inputs[0], node.outputs[0]
        if lowering.shape(source) == lowering.shape(output):
            lowering.view(output, source)
            return
        inputs = (lowering.shape(output if reads_region else source),)
        lowering.emit("copy", [source], output, inputs=inputs, function=function)

    return lower


def _slice(lowering: Lowering, node: Node) -> None:
    """A part of a tensor, or all of it backwards."""
    steps = lowering.graph.constants.get(node.input(4))
    backwards = node.input(4) and (steps is None or steps.values is None or bool((steps.values < 0).any()))
    if backwards:
        lowering.emit("copy", [node.inputs[0]], node.outputs[0], function="slice")
    else:
        _copy("slice", reads_region=True)(lowering, node)


def _transpose(lowering: Lowering, node: Node) -> None:
    shape = lowering.shape(node.inputs[0])
    perm = list(node.attributes.get("perm", range(len(shape))[::-1]))
    moved = [axis for axis in perm if shape[axis] != 1]
    if moved == sorted(moved):
        lowering.view(node.outputs[0], node.inputs[0])
        return
    lowering.emit("copy", [node.inputs[0]], node.outputs[0], function="transpose")


def _pad(lowering: Lowering, node: Node) -> None:
    """Padding with zeros, which a convolution could do itself, or with something else."""
    mode = str(node.attributes.get("mode", "constant"))
    constant = lowering.graph.constants.get(node.input(2))
    value = node.attributes.get("value", 0) if not node.input(2) else constant.scalar if constant else None
    function = "pad" if mode == "constant" and value == 0 else f"pad_{mode}"
    _copy(function)(lowering, node)


def _split(lowering: Lowering, node: Node) -> None:
    """One kernel writes all parts, which lie in one buffer."""
    parts = [name for name in node.outputs if name]
    if len(parts) == 1:
        lowering.view(parts[0], node.inputs[0])
        return
    shape = lowering.shape(node.inputs[0])
    lowering.emit("copy", [node.inputs[0]], parts[0], inputs=(shape,), output=shape, function="split")
    for part in parts[1:]:
        lowering.view(part, parts[0])


def _gather(function: str) -> LowerNode:
    """Only the elements that arrive are read, so a stored table counts as params, not as mac."""

    def lower(lowering: Lowering, node: Node) -> None:
        data, indices = node.inputs[:2]
        output = lowering.shape(node.outputs[0])
        reads = [name for name in (data, indices) if lowering.graph.is_activation(name)]
        shapes = [output if name == data else lowering.shape(name) for name in reads]
        if data in lowering.graph.constants:
            shapes = [output, *shapes]
        lowering.emit(
            "copy",
            reads,
            node.outputs[0],
            inputs=tuple(shapes),
            function=function,
            biases=lowering.constants([data]),
        )

    return lower


def _resize(lowering: Lowering, node: Node) -> None:
    if lowering.shape(node.inputs[0]) == lowering.shape(node.outputs[0]):
        lowering.view(node.outputs[0], node.inputs[0])
        return
    mode = str(node.attributes.get("mode", "nearest"))
    lowering.emit("resize", [node.inputs[0]], node.outputs[0], function=mode)


def _moved(function: str) -> LowerNode:
    """Every operand is read once, and the output written."""

    def lower(lowering: Lowering, node: Node) -> None:
        reads = lowering.activations(node)
        shapes = tuple(lowering.shape(name) for name in reads) or (lowering.shape(node.outputs[0]),)
        weights = lowering.constants(node.inputs[:1])
        lowering.emit("copy", reads, node.outputs[0], inputs=shapes, function=function, weights=weights)
        for name in filter(None, node.outputs[1:]):
            lowering.view(name, node.outputs[0])

    return lower


MOVED = [
    "TopK", "Scatter", "ScatterElements", "ScatterND", "TensorScatter", "ReverseSequence", "OneHot", "Trilu",
    "CumSum", "CumProd", "GridSample", "RoiAlign", "MaxRoiPool", "MaxUnpool", "CenterCropPad", "Col2Im",
    "AffineGrid", "EyeLike", "ConstantOfShape", "Range", "RandomNormalLike", "RandomUniformLike",
]  # fmt: skip
"""Operations whose time is that of moving their elements, as far as is known."""

MOVE_LOWERINGS: dict[str, LowerNode] = {
    **dict.fromkeys(("Identity", "Dropout", "Reshape", "Flatten", "Squeeze", "Unsqueeze"), _view),
    "LoopView": _view,
    "LoopStack": _view,
    **{op: _moved(op.lower()) for op in MOVED},
    "Expand": _copy("expand"),
    "Tile": _copy("tile"),
    "DepthToSpace": _copy("depthtospace"),
    "SpaceToDepth": _copy("spacetodepth"),
    "Slice": _slice,
    "Transpose": _transpose,
    "Pad": _pad,
    "Split": _split,
    "Concat": lower_as("concat", operands=ALL),  # also of one tensor, which every framework copies
    "Gather": _gather("gather"),
    "GatherElements": _gather("gather"),
    "GatherND": _gather("gather"),
    "Resize": _resize,
    "Upsample": _resize,
}
