"""The derived network in PyTorch: an interpreter of the same node list that ONNX and the kernels come from.

    build_graph(architecture) ─▶ DerivedNetwork ─▶ named_arrays() ─▶ build_onnx(architecture, arrays)

λ is dropped: sums are plain. Only here are what training needs and deployment does not: dropout before the
classifier, drop-path on every block's output, an auxiliary head where the last reduction starts.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from dsonas_hw.architecture.architecture import Architecture
from dsonas_hw.architecture.graph import INPUT, BlockSegment, Node, Reduction, build_graph, list_segments
from dsonas_hw.architecture.onnx import Array
from dsonas_hw.kernel.spec import Shape
from dsonas_hw.train.layers import AuxiliaryHead, build_layer
from dsonas_hw.train.regularise import Dropout, DropPath


class DerivedNetwork(nn.Module):
    """The network of an architecture; (N, C, H, W) images → (N, classes) logits."""

    def __init__(self, architecture: Architecture, *, dropout: float = 0.0, auxiliary: bool = False) -> None:
        """auxiliary: add the training-only head; a network of one stage has no place for it."""
        super().__init__()
        self.architecture = architecture
        self.nodes = build_graph(architecture)
        self.layers = nn.ModuleDict({_key(node.name): build_layer(node) for node in self.nodes})
        self.dropout = Dropout(dropout)
        self.drop_path = DropPath(0.0)
        self._block_outputs = {
            f"{name}.out"
            for name, segment in list_segments(architecture)
            if isinstance(segment, BlockSegment)
        }
        self._dead_after = _last_reads(self.nodes)
        self._auxiliary_reader, shape = _auxiliary_place(architecture)
        self.auxiliary: AuxiliaryHead | None = None
        if auxiliary and self._auxiliary_reader is not None:
            self.auxiliary = AuxiliaryHead(shape, architecture.space.num_classes)
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes)."""
        return self.forward_with_auxiliary(images)[0]

    def forward_with_auxiliary(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits (N, classes) and, in training and if there is one, those of the auxiliary head."""
        values = {INPUT: images.contiguous(memory_format=torch.channels_last)}
        auxiliary = None
        for node, dead in zip(self.nodes, self._dead_after, strict=True):
            inputs = [values[name] for name in node.inputs]
            if self.training and self.auxiliary is not None and node.name == self._auxiliary_reader:
                auxiliary = self.auxiliary(inputs[0])
            if node.name in self._block_outputs:
                inputs[0] = self.drop_path(inputs[0])
            elif node.op == "gemm":
                inputs[0] = self.dropout(inputs[0])
            values[node.name] = self.layers[_key(node.name)](*inputs)
            for name in dead:
                del values[name]
        return values[self.nodes[-1].name], auxiliary

    def named_arrays(self) -> dict[str, Array]:
        """Every deployed weight under the name that `architecture.onnx.Weights` gives it."""
        return {name: tensor.detach().cpu().numpy().copy() for name, tensor in self._named_tensors().items()}

    @torch.no_grad()
    def load_named_arrays(self, arrays: Mapping[str, Array]) -> None:
        """Take weights that `named_arrays` gave.

        Raises:
            KeyError, ValueError: a weight is missing or of another shape.
        """
        for name, tensor in self._named_tensors().items():
            array = np.asarray(arrays[name])
            if array.shape != tuple(tensor.shape):
                raise ValueError(f"{name} has shape {array.shape}, the network needs {tuple(tensor.shape)}")
            tensor.copy_(torch.from_numpy(array))

    def _named_tensors(self) -> dict[str, Tensor]:
        tensors: dict[str, Tensor] = {}
        for node in self.nodes:
            layer = self.layers[_key(node.name)]
            if isinstance(layer.main, nn.Conv2d | nn.Linear):
                tensors[f"{node.name}.weight"] = layer.main.weight
                if layer.main.bias is not None:
                    tensors[f"{node.name}.bias"] = layer.main.bias
            if isinstance(bn := layer.bn, nn.BatchNorm2d):
                assert bn.running_mean is not None
                assert bn.running_var is not None
                tensors[f"{node.name}.bn.weight"] = bn.weight
                tensors[f"{node.name}.bn.bias"] = bn.bias
                tensors[f"{node.name}.bn.mean"] = bn.running_mean
                tensors[f"{node.name}.bn.var"] = bn.running_var
        return tensors


def _auxiliary_place(architecture: Architecture) -> tuple[str | None, Shape]:
    """The first node of the last reduction, whose input the auxiliary head reads too, and that shape."""
    for name, segment in reversed(list_segments(architecture)):
        if isinstance(segment, Reduction):
            return next(segment.nodes(name, "")).name, segment.in_shape
    return None, ()


def _last_reads(nodes: list[Node]) -> list[tuple[str, ...]]:
    """For each node, the values that nothing reads after it."""
    last = {name: index for index, node in enumerate(nodes) for name in node.inputs}
    dead: list[tuple[str, ...]] = [()] * len(nodes)
    for name, index in last.items():
        dead[index] = (*dead[index], name)
    return dead


def _key(name: str) -> str:
    """A node's name as a module's name, which cannot hold dots."""
    return name.replace(".", "/")
