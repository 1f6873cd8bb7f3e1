"""The supernet: the complete network with a λ on every edge, made for speed.

Every weighted sum of a block is one product for the edges of a level (`search.mixing`), so that the λ cost
little more than plain sums would.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from dsonas_hw.architecture.architecture import (
    Architecture,
    Block,
    build_architecture,
    close_block,
    complete_block,
)
from dsonas_hw.architecture.graph import BN_EPS
from dsonas_hw.search.mixing import Mixing
from dsonas_hw.search.strength import scale_by_strength
from dsonas_hw.space.operations import Layer
from dsonas_hw.space.space import SearchSpace
from dsonas_hw.train.batch_norm import BatchNorm, fixed_statistics
from dsonas_hw.train.layers import Conv, draw_he_weights


def batch_norm(channels: int, *, free_scale: bool = False) -> BatchNorm:
    """Batch norm whose scale is fixed to one, unless it is left free: λ alone scales an edge."""
    norm = BatchNorm(channels, eps=BN_EPS)
    norm.weight.requires_grad_(free_scale)
    return norm


def conv_bn_relu(
    in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, *, free_scale: bool = False
) -> nn.Sequential:
    conv = Conv(in_channels, out_channels, kernel_size, stride, kernel_size // 2, bias=False)
    return nn.Sequential(conv, batch_norm(out_channels, free_scale=free_scale), nn.ReLU(inplace=True))


def build_layer(layer: Layer, channels: int) -> nn.Module:
    """A primitive layer of an operation on C channels, with its batch norm and ReLU where it has them."""
    k, padding = layer.kernel_size, layer.padding
    if layer.kind == "avgpool":
        return nn.AvgPool2d(k, 1, padding, count_include_pad=False)
    if layer.kind == "maxpool":
        return nn.MaxPool2d(k, 1, padding)
    inputs, outputs = layer.inputs * channels, layer.outputs * channels
    groups = inputs if layer.kind == "depthwise" else 1
    conv = nn.Conv2d(inputs, outputs, k, 1, padding, layer.dilation, groups, bias=False)
    if not layer.activated:
        return conv
    return nn.Sequential(conv, batch_norm(outputs), nn.ReLU(inplace=True))


class SupernetBlock(nn.Module):
    """One block; its λ are given to `forward`, since blocks may share them."""

    def __init__(
        self,
        space: SearchSpace,
        channels: int,
        *,
        shortcut: bool,
        free_scale: bool = False,
        path_strength: bool = False,
    ) -> None:
        super().__init__()
        self.space = space
        self.channels = channels
        self.path_strength = path_strength
        self.operations = nn.ModuleDict()
        self.merge = nn.ParameterDict()
        """Node → its part of the 1×1 convolution, (C in, C out)."""
        deviation = (
            2.0 / (space.num_nodes * channels)
        ) ** 0.5  # as `draw_he_weights`: its fan-in is all nodes'
        for node in range(1, space.num_nodes + 1):
            layers = [build_layer(layer, channels) for layer in space.operation_of(node).layers]
            norm = [batch_norm(channels)] if layers else []
            self.operations[str(node)] = nn.Sequential(*layers, *norm)
            self.merge[str(node)] = nn.Parameter(torch.randn(channels, channels) * deviation)
        self.merge_norm = batch_norm(channels, free_scale=free_scale)
        self.shortcut = conv_bn_relu(channels, channels, 1) if shortcut else None
        self.is_silent = False
        """Every λ into the output is zero: the identity, though still to be removed."""
        # Buffers, to be where the λ are: an index that comes from the CPU makes it wait for the GPU.
        self.register_buffer("edge_index", torch.empty(0), persistent=False)
        self.edge_index: Tensor
        """Positions of λ, (nodes, input and nodes); past the end where there is no edge."""
        self.register_buffer("output_index", torch.empty(0), persistent=False)
        self.output_index: Tensor
        """Positions of the λ into the output, (nodes,)."""
        self.keep(complete_block(space))

    def keep(self, block: Block) -> None:
        """Remove every node that `block` does not have, with its weights."""
        for node in [int(name) for name in self.operations]:
            if node not in block.nodes:
                del self.operations[str(node)]
                del self.merge[str(node)]
        if block.is_identity:
            self.merge_norm = nn.Identity()  # type: ignore[assignment]
        by_level = [
            [n for n in block.nodes if self.space.level_of(n) == level] for level in range(self.space.levels)
        ]
        self.levels: list[list[int]] = [nodes for nodes in by_level if nodes]
        nodes = [node for level in self.levels for node in level]
        position = {edge: i for i, edge in enumerate(self.space.edges)}
        none = len(position)
        edge_index = [[position.get((s, t), none) for s in [0, *nodes]] for t in nodes]
        output_index = [position[s, self.space.num_nodes + 1] for s in nodes]
        self.edge_index = torch.tensor(edge_index, device=self.edge_index.device)
        self.output_index = torch.tensor(output_index, device=self.output_index.device)

    def forward(self, x: Tensor, lam: Tensor) -> Tensor:
        """x: (B, C, H, W), channels last; lam: (num_edges,). Returns (B, C, H, W)."""
        shortcut = x if self.shortcut is None else self.shortcut(x)
        if self.is_silent or not self.levels:
            return shortcut
        inner, outer = F.pad(lam, (0, 1))[self.edge_index], lam[self.output_index]
        strength = None
        if self.path_strength:
            inner, outer, strength = scale_by_strength(inner, outer, [len(nodes) for nodes in self.levels])
        mixing = Mixing(x, inner, len(self.merge))
        for nodes in self.levels:
            inputs = mixing.inputs_of(len(nodes))
            mixing.add([self.operations[str(node)](z) for node, z in zip(nodes, inputs, strict=True)])
        merge = torch.stack(list(self.merge.values()))
        out = F.relu(self.merge_norm(mixing.merge(merge * outer[:, None, None])))
        return (out if strength is None else out * strength) + shortcut


def _contexts(block: SupernetBlock) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Around the first pass through a block, and around the one that computes activations again."""
    return nullcontext(), fixed_statistics(block)


class Reduction(nn.Module):
    """1×1 stride 2 + 3×3 stride 2; doubles the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.one = conv_bn_relu(channels, 2 * channels, 1, 2)
        self.three = conv_bn_relu(channels, 2 * channels, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.one(x) + self.three(x)
        return out


class Supernet(nn.Module):
    """The complete network; `lam` holds every λ, (num_lambda_sets, num_edges), ones at the start."""

    def __init__(
        self,
        space: SearchSpace,
        *,
        free_bn_scale: bool = False,
        path_strength: bool = False,
        checkpoint_activations: bool = False,
    ) -> None:
        """
        free_bn_scale: learn the batch norms' scale in stem, block outputs and head.
        path_strength: scale nodes and blocks by their strongest path (`search.strength`).
        checkpoint_activations: of each block keep only the input; backward computes the rest again.
        """
        super().__init__()
        self.space = space
        self.checkpoint_activations = checkpoint_activations
        c, free = space.channels, free_bn_scale
        if space.stem != "imagenet":
            stride = 1 if space.stem == "cifar" else 2
            self.stem = conv_bn_relu(space.input_shape[0], c, 3, stride, free_scale=free)
        else:
            self.stem = nn.Sequential(
                conv_bn_relu(space.input_shape[0], c // 2, 3, 2, free_scale=free),
                conv_bn_relu(c // 2, c, 3, 2, free_scale=free),
            )
        self.stages = nn.ModuleList()
        self.reductions = nn.ModuleList()
        for stage, count in enumerate(space.stages):
            if stage:
                self.reductions.append(Reduction(c))
                c *= 2
            self.stages.append(
                nn.ModuleList(
                    SupernetBlock(
                        space,
                        c,
                        shortcut=space.stage_shortcut and index == 0,
                        free_scale=free_bn_scale,
                        path_strength=path_strength,
                    )
                    for index in range(count)
                )
            )
        self.head_norm = batch_norm(c, free_scale=free_bn_scale)
        self.classifier = nn.Linear(c, space.num_classes)
        self.lam = nn.Parameter(torch.ones(space.num_lambda_sets, len(space.edges)))
        self.register_buffer("alive", torch.ones_like(self.lam, dtype=torch.bool))
        self.alive: Tensor
        fixed = torch.tensor([s == 0 and t <= len(space.operations) for s, t in space.edges])
        self.register_buffer("fixed", fixed & (not space.first_level_lambda), persistent=False)
        self.fixed: Tensor
        draw_he_weights(self)
        self.to(memory_format=torch.channels_last)

    def blocks(self) -> Iterable[SupernetBlock]:
        for stage in self.stages:
            yield from stage  # type: ignore[misc]

    def weights(self) -> list[nn.Parameter]:
        """W: every trained parameter but λ."""
        return [p for n, p in self.named_parameters() if n != "lam" and p.requires_grad]

    def forward(self, images: Tensor) -> Tensor:
        """images: (B, C, H, W). Returns logits, (B, classes)."""
        x = self.stem(images.contiguous(memory_format=torch.channels_last))
        lam = torch.where(self.fixed, 1.0, self.lam)
        number = 0
        for stage, blocks in enumerate(self.stages):
            if stage:
                x = self.reductions[stage - 1](x)
            for block in blocks:  # type: ignore[attr-defined]
                x = self._through(block, x, lam[0 if self.space.share else number])
                number += 1
        x = F.relu(self.head_norm(x)).mean(dim=(2, 3))
        logits: Tensor = self.classifier(x)
        return logits

    def _through(self, block: SupernetBlock, x: Tensor, lam: Tensor) -> Tensor:
        out: Tensor
        if self.checkpoint_activations and self.training and torch.is_grad_enabled():
            # The second pass must not count the batch in the running statistics again.
            contexts = partial(_contexts, block)
            out = checkpoint(
                block, x, lam, use_reentrant=False, preserve_rng_state=False, context_fn=contexts
            )
        else:
            out = block(x, lam)
        return out

    # -- what is alive --------------------------------------------------------------------------------------

    def blocks_of(self, lam: Tensor) -> tuple[Block, ...]:
        """Per λ set, the block that the nonzero entries of `lam` leave."""
        nonzero = ((lam.detach() > 0) & self.alive | self.fixed).cpu().tolist()
        return tuple(
            close_block(self.space, [e for e, on in zip(self.space.edges, row, strict=True) if on])
            for row in nonzero
        )

    def architecture(self, blocks: Sequence[Block], *, width: int) -> Architecture:
        """The network of these blocks, one per λ set, at a deployment width."""
        return build_architecture(self.space, blocks, width=width)

    @torch.no_grad()
    def silence_dead(self, blocks: Sequence[Block]) -> None:
        """Set the λ of edges on no path from input to output to zero, and of edges that carry none to one.

        A node that nothing feeds would still add the constant that its batch norm makes of zeros, and so
        would a block that nothing is left of; silenced as soon as they die, removing them later changes
        nothing. Call it after every change of λ.
        """
        self.lam.copy_(torch.where(self.fixed, 1.0, self.lam) * self._edge_mask(blocks))
        for number, module in enumerate(self.blocks()):
            module.is_silent = blocks[0 if self.space.share else number].is_identity

    def _edge_mask(self, blocks: Sequence[Block]) -> Tensor:
        kept = [block.edges for block in blocks]
        rows = [[edge in edges for edge in self.space.edges] for edges in kept]
        return torch.tensor(rows, device=self.lam.device)

    @torch.no_grad()
    def prune(self, blocks: Sequence[Block], optimizer: torch.optim.Optimizer | None = None) -> int:
        """Physically remove what `blocks` do not have; outputs stay the same.

        optimizer: of W; the parameters that go leave it with their state. Returns how many parameters went.
        """
        self.alive.logical_and_(self._edge_mask(blocks))
        self.silence_dead(blocks)
        before = {id(p): p for p in self.weights()}
        for number, block in enumerate(self.blocks()):
            block.keep(blocks[0 if self.space.share else number])
        left = {id(p) for p in self.weights()}
        gone = [p for key, p in before.items() if key not in left]
        if optimizer is not None:
            removed = {id(p) for p in gone}
            for group in optimizer.param_groups:
                group["params"] = [p for p in group["params"] if id(p) not in removed]
            for parameter in gone:
                optimizer.state.pop(parameter, None)
        return sum(p.numel() for p in gone)
