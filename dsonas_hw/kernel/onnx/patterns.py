"""Recognise operations that an exporter wrote as several: activations, linear layers, norms."""

from __future__ import annotations

from dsonas_hw.kernel.onnx.activations import recognise_activations
from dsonas_hw.kernel.onnx.graph import MALFORMED, Graph, Node, malformed
from dsonas_hw.kernel.onnx.lower_elementwise import varying_axes
from dsonas_hw.kernel.onnx.rewrite import Rewriter
from dsonas_hw.kernel.onnx.values import axes_of


def recognise(graph: Graph) -> Graph:
    """Put one operation where the exporter needed several; what is computed stays the same."""
    rewriter = Rewriter(graph)
    try:
        recognise_activations(rewriter)
        for node in list(graph.nodes):
            if node.domain:
                continue
            if node.op == "MatMul":
                _recognise_bias(rewriter, node)
            elif node.op in ("Div", "Mul"):
                _recognise_layernorm(rewriter, node)
            elif node.op == "InstanceNormalization":
                _recognise_groupnorm(rewriter, node)
    except MALFORMED as error:
        raise malformed("an operation", error) from error
    return rewriter.finish()


def _recognise_bias(rewriter: Rewriter, matmul: Node) -> None:
    """A product with a constant, plus a constant per feature: a linear layer."""
    graph, product = rewriter.graph, matmul.outputs[0]
    add = rewriter.only_reader(product, "Add")
    if add is None or len(matmul.inputs) != 2 or graph.is_activation(matmul.inputs[1]):
        return
    bias, shape = rewriter.other_operand(add, product), graph.shapes.get(product)
    if bias not in graph.constants or shape is None or graph.shapes.get(add.outputs[0]) != shape:
        return
    if len(shape) - 1 not in varying_axes(graph.constants[bias], shape):
        return
    linear = Node(
        op="MatMul", name=matmul.name, inputs=(*matmul.inputs, bias), outputs=add.outputs, attributes={}
    )
    rewriter.replace([matmul, add], linear)


def _scale_and_shift(rewriter: Rewriter, name: str) -> tuple[list[Node], list[str], str]:
    """`name * constant + constant` as far as it is there: operations, constants, and the result."""
    nodes, constants = [], []
    for op in ("Mul", "Add"):
        node = rewriter.only_reader(name, op)
        operand = rewriter.other_operand(node, name) if node else ""
        if node is None or operand not in rewriter.graph.constants:
            break
        nodes.append(node)
        constants.append(operand)
        name = node.outputs[0]
    return nodes, constants, name


def _recognise_layernorm(rewriter: Rewriter, sink: Node) -> None:
    """(x − mean x) / √(mean (x − mean x)² + ε), and the same without the mean (RMS norm)."""
    found = _standardised(rewriter, sink)
    if found is None:
        return
    source, members, mean = found
    rank = len(rewriter.graph.shapes.get(source, ()))
    axes = _reduced_axes(rewriter, mean)
    if not axes or not rewriter.is_closed(members, sink):
        return
    over_image = rank == 4 and {axis % 4 for axis in axes} == {2, 3}
    centred = any(node.op == "Sub" for node in members)
    affine, constants, result = _scale_and_shift(rewriter, sink.outputs[0])
    op = "LayerNormalization" if centred else "RMSNormalization"
    norm = Node(
        op="InstanceNormalization" if over_image and centred else op,
        name=sink.name,
        inputs=(source, *constants),
        outputs=(result,),
        attributes={},
    )
    rewriter.replace([*members, *affine], norm)


def _standardised(rewriter: Rewriter, sink: Node) -> tuple[str, list[Node], Node] | None:
    """Match `d / √(mean d² + ε)`; returns x, the operations, and the mean of the squares."""
    members = [sink]
    if len(sink.inputs) != 2:
        return None
    deviation, root_name = sink.inputs
    if sink.op == "Mul":
        inverse = rewriter.maker(root_name, "Reciprocal", "Div")
        if inverse is None:
            deviation, root_name = root_name, deviation
            inverse = rewriter.maker(root_name, "Reciprocal", "Div")
        if inverse is None or rewriter.graph.is_activation(inverse.inputs[0]) != (inverse.op == "Reciprocal"):
            return None
        members.append(inverse)
        root_name = inverse.inputs[-1]
    root = rewriter.maker(root_name, "Sqrt")
    add = rewriter.maker(root.inputs[0], "Add") if root else None
    activations = [name for name in add.inputs if rewriter.graph.is_activation(name)] if add else []
    mean = rewriter.maker(activations[0], "ReduceMean") if len(activations) == 1 else None
    square = rewriter.maker(mean.inputs[0], "Pow", "Mul") if mean else None
    if root is None or add is None or mean is None or square is None:
        return None
    if square.inputs[0] != deviation or (square.op == "Mul" and square.inputs[1] != deviation):
        return None
    members += [root, add, mean, square]
    subtract = rewriter.maker(deviation, "Sub")
    first_mean = rewriter.maker(subtract.inputs[1], "ReduceMean") if subtract else None
    if subtract is None or first_mean is None or first_mean.inputs[0] != subtract.inputs[0]:
        return deviation, members, mean
    return subtract.inputs[0], [*members, subtract, first_mean], mean


def _reduced_axes(rewriter: Rewriter, node: Node) -> list[int]:
    constant = rewriter.graph.constants.get(node.input(1))
    return axes_of([None, constant.values if constant else None], node.attributes) or []


def _recognise_groupnorm(rewriter: Rewriter, norm: Node) -> None:
    """Reshape to (N, groups, …), normalise each, reshape back, scale and shift each channel."""
    graph = rewriter.graph
    before = rewriter.maker(norm.inputs[0], "Reshape")
    after = rewriter.only_reader(norm.outputs[0], "Reshape")
    if before is None or after is None or not rewriter.is_closed([before, norm], norm):
        return
    shape = graph.shapes.get(before.inputs[0])
    if shape is None or graph.shapes.get(after.outputs[0]) != shape:
        return
    affine, constants, result = _scale_and_shift(rewriter, after.outputs[0])
    group_norm = Node(
        op="GroupNormalization",
        name=norm.name,
        inputs=(before.inputs[0], *constants),
        outputs=(result,),
        attributes={},
    )
    rewriter.replace([before, norm, after, *affine], group_norm)
