"""The derived network in PyTorch: an interpreter of the same node list that ONNX and the kernels come from.

    build_graph(architecture) ─▶ DerivedNetwork ─▶ named_arrays() ─▶ build_onnx(architecture, arrays)

λ is dropped: sums are plain. Only here are what training needs and deployment does not: dropout before the
classifier, drop-path on edges (`train.drop_path`), an auxiliary head on the output of the last reduction.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from dsonas_hw.architecture.architecture import Architecture
from dsonas_hw.architecture.graph import INPUT, Node, Reduction, build_graph, list_segments
from dsonas_hw.architecture.onnx import Array
from dsonas_hw.kernel.spec import Shape
from dsonas_hw.train.drop_path import find_drop_edges
from dsonas_hw.train.layers import AuxiliaryHead, build_layer
from dsonas_hw.train.regularise import Dropout

if TYPE_CHECKING:
    from dsonas_hw.train.preprocess import Preprocessing


class DerivedNetwork(nn.Module):
    """The network of an architecture; (N, C, H, W) images → (N, classes) logits."""

    def __init__(self, architecture: Architecture, *, dropout: float = 0.0, auxiliary: bool = False) -> None:
        """auxiliary: add the training-only head; a network of one stage has no place for it."""
        super().__init__()
        self.architecture = architecture
        self.nodes = build_graph(architecture)
        self.layers = nn.ModuleDict({_key(node.name): build_layer(node) for node in self.nodes})
        self.dropout = Dropout(dropout)
        self.drop_edges = find_drop_edges(architecture)
        self._dead_after = _last_reads(self.nodes)
        self._auxiliary_source, shape = _auxiliary_place(architecture)
        self.auxiliary: AuxiliaryHead | None = None
        if auxiliary and self._auxiliary_source is not None:
            self.auxiliary = AuxiliaryHead(shape, architecture.space.num_classes)
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, classes)."""
        return self.forward_with_auxiliary(images)[0]

    def forward_with_auxiliary(
        self, images: Tensor, drop_masks: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Return the logits (N, classes) and, in training and if there is one, those of the auxiliary head.

        drop_masks: what the edges that may be dropped are multiplied with (`drop_path.draw_drop_masks`).
        """
        values = {INPUT: images.contiguous(memory_format=torch.channels_last)}
        auxiliary = None
        for node, dead in zip(self.nodes, self._dead_after, strict=True):
            inputs = [values[name] for name in node.inputs]
            if drop_masks is not None and (edges := self.drop_edges.of_node.get(node.name)):
                inputs = [x * drop_masks[e].to(x.dtype) for x, e in zip(inputs, edges, strict=True)]
            elif node.op == "gemm":
                inputs[0] = self.dropout(inputs[0])
            values[node.name] = self.layers[_key(node.name)](*inputs)
            if self.training and self.auxiliary is not None and node.name == self._auxiliary_source:
                auxiliary = self.auxiliary(values[node.name])
            for name in dead:
                del values[name]
        return values[self.nodes[-1].name], auxiliary

    def named_arrays(self) -> dict[str, Array]:
        """Return every deployed weight under the name that `architecture.onnx.Weights` gives it."""
        return {
            name: tensor.detach().float().cpu().numpy().copy()
            for name, tensor in self._named_tensors().items()
        }

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


class TrainedNetwork(DerivedNetwork):
    """A network, what its images go through, and what its outputs are called (`dsonas_hw.load_network`)."""

    def __init__(
        self, architecture: Architecture, *, preprocess: Preprocessing, class_names: tuple[str, ...]
    ) -> None:
        super().__init__(architecture)
        self.preprocess = preprocess
        self.class_names = class_names


def _auxiliary_place(architecture: Architecture) -> tuple[str | None, Shape]:
    """The last node of the last reduction, whose output the auxiliary head reads, and that shape."""
    for name, segment in reversed(list_segments(architecture)):
        if isinstance(segment, Reduction):
            *_, last = segment.nodes(name, "")
            return last.name, last.output_shape
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
