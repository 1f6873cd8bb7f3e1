"""torchvision's networks, exported and read back, against three independent counts.

- onnx-tool counts one more operation per output element for a bias, and parameters of a batch norm's running
  mean and variance; both deviations are taken out below, and nothing else deviates.
- torch's own modules give the multiply-adds through forward hooks, and the parameters.
"""

from __future__ import annotations

import functools
import warnings
from collections import Counter
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import onnx_tool
import pytest
import torch
import torchvision
from torch import nn

from dsonas_hw.kernel.costs import count_costs
from dsonas_hw.kernel.onnx.from_onnx import network_from_onnx

Zoo = Callable[[str], tuple[nn.Module, Path]]

SIZE = 64
CLASSIFIERS = [
    "densenet121",
    "efficientnet_b0",
    "mnasnet0_5",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "resnet18",
    "shufflenet_v2_x0_5",
    "squeezenet1_1",
]


def export(model: nn.Module, path: Path, *, size: int = SIZE, fold: bool = False) -> Path:
    """Write a network in eval mode, its batch norms folded by the exporter or kept."""
    mode = torch.onnx.TrainingMode.EVAL if fold else torch.onnx.TrainingMode.PRESERVE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model.eval(),
            (torch.zeros(1, 3, size, size),),
            str(path),
            dynamo=False,
            opset_version=17,
            training=mode,
            do_constant_folding=fold,
        )
    return path


def count_with_hooks(model: nn.Module, size: int = SIZE) -> int:
    """Multiply-adds of the convolutions and linear layers that a forward pass calls."""
    counts: list[int] = []

    def hook(module: Any, inputs: Any, output: torch.Tensor) -> None:
        if isinstance(module, nn.Conv2d):
            per_output = module.in_channels // module.groups * prod(module.kernel_size)
        else:
            per_output = module.in_features
        counts.append(output.numel() * per_output)

    handles = [
        module.register_forward_hook(hook)
        for module in model.modules()
        if isinstance(module, (nn.Conv2d, nn.Linear))
    ]
    with torch.no_grad():
        model.eval()(torch.zeros(1, 3, size, size))
    for handle in handles:
        handle.remove()
    return sum(counts)


def count_with_onnx_tool(path: Path) -> tuple[Counter[str], Counter[str]]:
    """Operations and parameters per type of operation."""
    model = onnx_tool.Model(str(path), {"constant_folding": True, "verbose": False})
    model.graph.shape_infer()
    model.graph.profile()
    flops: Counter[str] = Counter()
    params: Counter[str] = Counter()
    for node in model.graph.nodemap.values():
        flops[node.op_type] += int(node.macs[0])
        params[node.op_type] += int(node.params)
    return flops, params


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    """A network by name, and its file with the batch norms kept."""
    folder = tmp_path_factory.mktemp("zoo")

    @functools.cache
    def load(name: str) -> tuple[nn.Module, Path]:
        torch.manual_seed(0)
        model = torchvision.models.get_model(name, weights=None)
        return model, export(model, folder / f"{name}.onnx")

    return load


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifier(name: str, zoo: Zoo) -> None:
    model, path = zoo(name)
    eager, fused = network_from_onnx(path, fuse=False), network_from_onnx(path)
    assert eager.unknown == fused.unknown == ()
    counted, after = count_costs(eager.kernels), count_costs(fused.kernels)

    assert counted.flops == count_with_hooks(model)
    assert counted.params == sum(p.numel() for p in model.parameters())

    tool_flops, tool_params = count_with_onnx_tool(path)
    products = [kernel for kernel in eager.kernels if kernel.op in ("conv", "gemm")]
    biases = sum(prod(kernel.output) for kernel in products if kernel.num_bias)
    assert tool_flops["Conv"] + tool_flops["Gemm"] == counted.flops + biases
    assert tool_params["Conv"] + tool_params["Gemm"] == sum(kernel.params for kernel in products)
    norms = sum(kernel.num_bias for kernel in eager.kernels if kernel.op == "batchnorm")
    assert tool_params["BatchNormalization"] == 2 * norms

    assert after.flops == counted.flops
    assert after.mac <= counted.mac
    # A folded norm leaves one bias per channel of the 2 numbers it had, and of the bias that was there.
    kept = sum(k.num_bias for k in fused.kernels if k.op == "batchnorm" or "bn" in k.epilogue)
    had_bias = sum(kernel.num_bias for kernel in products)
    new_bias = sum(kernel.num_bias for kernel in fused.kernels if kernel.op in ("conv", "gemm"))
    assert counted.params - after.params == (norms - kept) + had_bias - new_bias

    assert eager.peak_activation_elements is not None
    assert fused.peak_activation_elements is not None
    assert fused.peak_activation_elements <= eager.peak_activation_elements


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "shufflenet_v2_x0_5"])
def test_folding_here_and_in_the_exporter_agree(name: str, zoo: Zoo, tmp_path: Path) -> None:
    model, path = zoo(name)
    kept = network_from_onnx(path)
    folded = network_from_onnx(export(model, tmp_path / "folded.onnx", fold=True))
    assert Counter(k for k in kept.kernels) == Counter(k for k in folded.kernels)
    assert kept.peak_activation_elements == folded.peak_activation_elements


@pytest.mark.parametrize("name", ["resnet18", "shufflenet_v2_x0_5", "squeezenet1_1"])
def test_batch_scales_what_moves_and_not_what_is_stored(name: str, zoo: Zoo) -> None:
    _, path = zoo(name)
    one, eight = network_from_onnx(path), network_from_onnx(path, batch_size=8)
    weights = sum(kernel.num_weights for kernel in one.kernels)
    a, b = count_costs(one.kernels), count_costs(eight.kernels)
    assert b.flops == 8 * a.flops
    assert b.mac - weights == 8 * (a.mac - weights)
    assert b.params == a.params
    assert one.peak_activation_elements is not None
    assert eight.peak_activation_elements == 8 * one.peak_activation_elements


def small_vit() -> nn.Module:
    return torchvision.models.VisionTransformer(
        image_size=32, patch_size=8, num_layers=2, num_heads=4, hidden_dim=32, mlp_dim=64, num_classes=10
    )


def small_swin() -> nn.Module:
    return torchvision.models.SwinTransformer(
        patch_size=[4, 4], embed_dim=16, depths=[2, 2], num_heads=[2, 4], window_size=[4, 4], num_classes=10
    )


def test_vision_transformer(tmp_path: Path) -> None:
    model = small_vit()
    path = export(model, tmp_path / "vit.onnx", size=32, fold=True)
    for batch_size in (1, 4):
        network = network_from_onnx(path, batch_size=batch_size)
        assert network.unknown == ()
        counted = count_costs(network.kernels)
        tokens, d, mlp = 17, 32, 64  # 4 · 4 patches and the class token
        # per layer: query, key, value and output projections, two products of attention, the MLP
        layer = tokens * (4 * d * d + 2 * d * mlp) + 2 * tokens * tokens * d
        patches = 16 * d * 3 * 8 * 8
        assert counted.flops == batch_size * (patches + 2 * layer + d * 10)
        assert counted.params == sum(p.numel() for p in model.parameters())
        assert sum(k.epilogue == ("gelu",) for k in network.kernels) == 2
        assert sum(k.op == "layernorm" for k in network.kernels) == 5


def test_swin_transformer(tmp_path: Path) -> None:
    """Its position bias is looked up by the exporter, so that it is stored per pair of tokens."""
    model = small_swin()
    path = export(model, tmp_path / "swin.onnx", size=32, fold=True)
    network = network_from_onnx(path)
    assert network.unknown == ()
    attention = sum(kernel.flops for kernel in network.kernels if kernel.op == "matmul")
    # 4 × 4 windows of 16 tokens: stage 1 has 8 · 8 tokens of width 16, stage 2 has 4 · 4 of width 32
    assert attention == 2 * (2 * 64 * 16 * 16) + 2 * (2 * 16 * 16 * 32)
    # F.linear with the module's weights: qkv and projection run outside nn.Linear
    functional = 2 * 64 * 4 * 16 * 16 + 2 * 16 * 4 * 32 * 32
    assert count_costs(network.kernels).flops == count_with_hooks(model, 32) + attention + functional
    assert count_costs(network_from_onnx(path, batch_size=3).kernels).flops == 3 * (
        count_costs(network.kernels).flops
    )


def test_segmentation_decoder_with_resize(tmp_path: Path) -> None:
    class Decoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.down = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.SiLU())
            self.up = nn.ConvTranspose2d(8, 4, 2, 2)
            self.norm = nn.GroupNorm(2, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.norm(self.up(self.down(x)))
            y = nn.functional.interpolate(y, scale_factor=2.0, mode="bilinear")
            return nn.functional.pad(y, (1, 1, 1, 1), mode="reflect")

    model = Decoder()
    network = network_from_onnx(export(model, tmp_path / "decoder.onnx", size=16, fold=True), batch_size=2)
    assert network.unknown == ()
    assert [(k.op, k.function, k.epilogue) for k in network.kernels] == [
        ("conv", "", ("silu",)),
        ("conv_transpose", "", ()),
        ("groupnorm", "", ()),
        ("resize", "linear", ()),
        ("copy", "pad_reflect", ()),
    ]
    assert network.kernels[-1].output == (2, 4, 34, 34)


OPERATIONS: list[tuple[str, Callable[[torch.Tensor], torch.Tensor], str]] = [
    ("chunk", lambda x: torch.cat(x.chunk(2, 1)[::-1], 1), "copy copy concat"),
    ("flip", lambda x: x.flip(3), "copy"),
    ("norm", lambda x: x / x.norm(dim=1, keepdim=True), "reduce div"),
    ("softmax", lambda x: x.softmax(3), "softmax"),
    ("adaptive", lambda x: nn.functional.adaptive_avg_pool2d(x, 1), "global_avgpool"),
    ("quarter", lambda x: nn.functional.adaptive_avg_pool2d(x, 2), "avgpool"),
    ("shuffle", lambda x: nn.functional.pixel_shuffle(x, 2), "copy"),
    ("where", lambda x: torch.where(x > 0, x, -x), "unary unary binary"),
    ("square", lambda x: x**2 + x.sqrt(), "unary unary sum"),
    ("mean", lambda x: x.mean((2, 3)), "global_avgpool"),
    (
        "attention",
        lambda x: nn.functional.scaled_dot_product_attention(x, x, x),
        "copy mul mul matmul softmax matmul",
    ),
]


@pytest.mark.parametrize("opset", [11, 17])
@pytest.mark.parametrize(("name", "function", "ops"), OPERATIONS, ids=[o[0] for o in OPERATIONS])
def test_operation_as_torch_exports_it(
    name: str, function: Callable[[torch.Tensor], torch.Tensor], ops: str, opset: int, tmp_path: Path
) -> None:
    if name == "attention":
        opset = max(opset, 14)  # torch exports it from then on

    class Module(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return function(x)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Module(), (torch.ones(1, 4, 6, 6),), str(tmp_path / "m.onnx"), dynamo=False, opset_version=opset
        )
    for batch_size in (1, 3):
        network = network_from_onnx(tmp_path / "m.onnx", batch_size=batch_size)
        assert network.unknown == ()
        assert Counter(k.op for k in network.kernels) == Counter(ops.split())
