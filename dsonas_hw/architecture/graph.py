"""The graph of an architecture: every layer with its shapes, in the order it runs.

One description serves the PyTorch network, the ONNX export and the kernels, so they cannot disagree. A
`Node` is a layer with the batch norm and ReLU that follow it. A network is a list of *segments* (stem,
blocks, reductions, head); a segment's nodes depend on its own fields only, so that lowering can be cached.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from dsonas_hw.architecture.architecture import Architecture, Block
from dsonas_hw.kernel.spec import Shape
from dsonas_hw.space.operations import Layer, Operation
from dsonas_hw.space.space import INPUT_NODE, StemKind

NodeOp = Literal["conv", "maxpool", "avgpool", "sum", "concat", "bn", "global_avgpool", "gemm"]

INPUT = "input"
BN_EPS = 2e-5
"""What batch norms add to the variance, in training and once deployed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Node:
    """One layer. Shapes are without the batch: (C, H, W), or (features,) for the classifier."""

    name: str
    op: NodeOp
    inputs: tuple[str, ...]
    input_shape: Shape
    """Of the first input."""
    output_shape: Shape
    kernel_size: int = 1
    stride: int = 1
    dilation: int = 1
    groups: int = 1
    bn: bool = False
    relu: bool = False

    @property
    def padding(self) -> int:
        return self.dilation * (self.kernel_size - 1) // 2


@dataclass(frozen=True, slots=True)
class Stem:
    kind: StemKind
    in_shape: Shape
    out_shape: Shape

    def nodes(self, prefix: str, source: str) -> Iterator[Node]:
        if self.kind != "imagenet":
            stride = 1 if self.kind == "cifar" else 2
            yield _conv(f"{prefix}.conv", source, self.in_shape, self.out_shape[0], 3, stride=stride)
            return
        first = _conv(f"{prefix}.conv1", source, self.in_shape, self.out_shape[0] // 2, 3, stride=2)
        yield first
        yield _conv(f"{prefix}.conv2", first.name, first.output_shape, self.out_shape[0], 3, stride=2)


@dataclass(frozen=True, slots=True)
class BlockSegment:
    """out = ReLU(BN(1×1(concat of the output nodes))) + input; the identity where nothing is left."""

    block: Block
    operations: tuple[Operation, ...]
    """Of one level."""
    shape: Shape
    shortcut: bool
    """A 1×1 Conv-BN-ReLU on the input of the sum, as in the authors' release."""

    def nodes(self, prefix: str, source: str) -> Iterator[Node]:
        names = {INPUT_NODE: source}
        for number in self.block.nodes:
            level, index = divmod(number - 1, len(self.operations))
            operation = self.operations[index]
            name = f"{prefix}.{level + 1}_{operation.name}"
            inputs = tuple(names[s] for s in self.block.inputs[number - 1])
            current = inputs[0]
            if len(inputs) > 1:
                total = _merge(f"{name}.sum", "sum", inputs, self.shape, self.shape)
                yield total
                current = total.name
            kinds = [layer.kind for layer in operation.layers]
            for step, layer in enumerate(operation.layers, start=1):
                last = step == len(operation.layers)
                number_of_kind = step if kinds.count(layer.kind) > 1 else ""
                layer_name = f"{name}.{layer.kind}{number_of_kind}"
                node = _layer(layer_name, layer, current, self.shape, last=last)
                yield node
                current = node.name
            names[number] = current
        shortcut = source
        if self.shortcut:
            node = _conv(f"{prefix}.shortcut", source, self.shape, self.shape[0], 1)
            yield node
            shortcut = node.name
        if not self.block.output:
            return
        branches = tuple(names[n] for n in self.block.output)
        current, joined_shape = branches[0], self.shape
        if len(branches) > 1:
            joined_shape = (len(branches) * self.shape[0], *self.shape[1:])
            joined = _merge(f"{prefix}.concat", "concat", branches, self.shape, joined_shape)
            yield joined
            current = joined.name
        merged = _conv(f"{prefix}.merge", current, joined_shape, self.shape[0], 1)
        yield merged
        yield _merge(f"{prefix}.out", "sum", (merged.name, shortcut), self.shape, self.shape)


@dataclass(frozen=True, slots=True)
class Reduction:
    """1×1 stride 2 and 3×3 stride 2, summed; doubles the channels."""

    in_shape: Shape

    def nodes(self, prefix: str, source: str) -> Iterator[Node]:
        channels = 2 * self.in_shape[0]
        one = _conv(f"{prefix}.conv1", source, self.in_shape, channels, 1, stride=2)
        three = _conv(f"{prefix}.conv3", source, self.in_shape, channels, 3, stride=2)
        yield one
        yield three
        yield _merge(f"{prefix}.out", "sum", (one.name, three.name), one.output_shape, one.output_shape)


@dataclass(frozen=True, slots=True)
class Head:
    """BN-ReLU, global average, classifier."""

    in_shape: Shape
    num_classes: int

    def nodes(self, prefix: str, source: str) -> Iterator[Node]:
        yield Node(
            name=f"{prefix}.bn", op="bn", inputs=(source,), input_shape=self.in_shape,
            output_shape=self.in_shape, relu=True,
        )  # fmt: skip
        pooled = (self.in_shape[0], 1, 1)
        yield Node(
            name=f"{prefix}.pool", op="global_avgpool", inputs=(f"{prefix}.bn",),
            input_shape=self.in_shape, output_shape=pooled,
        )  # fmt: skip
        yield Node(
            name=f"{prefix}.fc", op="gemm", inputs=(f"{prefix}.pool",),
            input_shape=(self.in_shape[0],), output_shape=(self.num_classes,),
        )  # fmt: skip


Segment = Stem | BlockSegment | Reduction | Head


def list_segments(architecture: Architecture) -> list[tuple[str, Segment]]:
    """Return (name, segment) of an architecture, from stem to head."""
    space = architecture.space
    channels = architecture.width
    shape: Shape = (channels, *space.resolution(0))
    segments: list[tuple[str, Segment]] = [("stem", Stem(space.stem, space.input_shape, shape))]
    number = 0
    for stage, count in enumerate(space.stages):
        if stage:
            segments.append((f"reduction{stage}", Reduction(shape)))
            shape = (2 * shape[0], *space.resolution(stage))
        for index in range(count):
            block = architecture.blocks[number]
            shortcut = space.stage_shortcut and index == 0
            segment = BlockSegment(block, space.operation_list, shape, shortcut)
            segments.append((f"stage{stage + 1}.block{index + 1}", segment))
            number += 1
    segments.append(("head", Head(shape, space.num_classes)))
    return segments


def block_segments(architecture: Architecture) -> list[BlockSegment]:
    """Return the blocks of an architecture in order, at their shapes."""
    return [segment for _, segment in list_segments(architecture) if isinstance(segment, BlockSegment)]


def output_branch(shape: Shape) -> Node:
    """Return one operation's branch of the 1×1 convolution that makes a block's output, alone."""
    return _conv("branch", "input", shape, shape[0], 1)


def build_graph(architecture: Architecture) -> list[Node]:
    """Return every node in the order it runs; the first reads `INPUT`, the last is the classifier."""
    source, nodes = INPUT, []
    for name, segment in list_segments(architecture):
        for node in segment.nodes(name, source):
            nodes.append(node)
        source = nodes[-1].name
    return nodes


def _conv(name: str, source: str, shape: Shape, out: int, kernel_size: int, *, stride: int = 1) -> Node:
    height, width = ((side + stride - 1) // stride for side in shape[1:])
    return Node(
        name=name, op="conv", inputs=(source,), input_shape=shape, output_shape=(out, height, width),
        kernel_size=kernel_size, stride=stride, bn=True, relu=True,
    )  # fmt: skip


def _merge(
    name: str, op: Literal["sum", "concat"], inputs: tuple[str, ...], shape: Shape, out: Shape
) -> Node:
    return Node(name=name, op=op, inputs=inputs, input_shape=shape, output_shape=out)


def _layer(name: str, layer: Layer, source: str, shape: Shape, *, last: bool) -> Node:
    """A layer of an operation on C = shape[0] channels; batch norm and ReLU follow the last one."""
    op: NodeOp = layer.kind if layer.kind in ("avgpool", "maxpool") else "conv"
    channels_in, channels_out = layer.inputs * shape[0], layer.outputs * shape[0]
    activated = last or layer.activated
    return Node(
        name=name, op=op, inputs=(source,), input_shape=(channels_in, *shape[1:]),
        output_shape=(channels_out, *shape[1:]), kernel_size=layer.kernel_size, dilation=layer.dilation,
        groups=channels_in if layer.kind == "depthwise" else 1, bn=activated, relu=activated,
    )  # fmt: skip
