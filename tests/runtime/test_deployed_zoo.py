"""The kernels of torchvision's classifiers, derived from the file and as ONNX Runtime runs it; see `ort_law`.

Held for every convolutional classifier of at most 21 million weights (by torchvision's own count), and for
AlexNet and VGG with a narrow classifier in place of their own. The law does not reach networks that transpose
between their kernels: ONNX Runtime moves transposes through the graph. Of ConvNeXt the products, norms and
activations are those that run; the transformers (ViT, Swin, MaxVit) are not compared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import onnx
import pytest
import torch
import torchvision
from ort_law import assert_deployed, describe_difference, rules_apply, running_kernels
from random_modules import export, fill
from torch import nn

from dsonas_hw.kernel.network import Schedule
from dsonas_hw.kernel.onnx.from_onnx import network_from_onnx
from dsonas_hw.kernel.spec import Kernel
from dsonas_hw.runtime.ort_cpu.in_situ import native_block_size
from dsonas_hw.runtime.ort_cpu.layout import Blocks

pytestmark = rules_apply

MAX_WEIGHTS = 21e6
TRANSPOSING = ("convnext", "maxvit", "swin", "vit")
OPTIONS = {
    "googlenet": {"aux_logits": False, "init_weights": False},
    "inception_v3": {"aux_logits": False, "init_weights": False},
}
SMALLEST_SIDE = {"inception_v3": 75}


def list_classifiers() -> list[str]:
    names = torchvision.models.list_models(module=torchvision.models)
    return [
        name
        for name in names
        if torchvision.models.get_model_weights(name).DEFAULT.meta["num_params"] <= MAX_WEIGHTS
        and not name.startswith(TRANSPOSING)
    ]


def export_classifier(name: str, side: int = 64) -> tuple[bytes, Schedule]:
    """The network with random weights, made without the time that its own initialisation takes."""
    # RegNet computes its widths with tensors, which a device without data cannot do.
    with torch.device("cpu" if name.startswith("regnet") else "meta"):
        model = torchvision.models.get_model(name, weights=None, **OPTIONS.get(name, {}))
    if isinstance(getattr(model, "classifier", None), nn.Sequential) and name.startswith(("alexnet", "vgg")):
        flat = next(m.in_features for m in model.classifier if isinstance(m, nn.Linear))
        model.classifier = nn.Sequential(nn.Dropout(), nn.Linear(flat, 16), nn.ReLU(), nn.Linear(16, 10))
    model = model.to_empty(device="cpu")
    fill(model)
    side = max(side, SMALLEST_SIDE.get(name, 0))
    data = export(model, (1, 3, side, side))
    network = network_from_onnx(onnx.load_model_from_string(data))
    schedule, unknown = network.schedule, network.unknown
    assert unknown == ()
    return data, schedule


@pytest.mark.parametrize("name", [*list_classifiers(), "inception_v3"])
def test_classifier(name: str) -> None:
    assert_deployed(*export_classifier(name))


@pytest.mark.parametrize("name", ["alexnet", "vgg11", "vgg11_bn"])
def test_classifier_whose_last_pool_wants_the_full_image(name: str) -> None:
    assert_deployed(*export_classifier(name, side=224))


def test_convnext_as_far_as_the_law_reaches() -> None:
    def compared(kernels: Iterable[Kernel]) -> Counter[Kernel]:
        return Counter(k for k in kernels if k.op in ("conv", "gemm", "layernorm", "unary"))

    model, schedule = export_classifier("convnext_tiny", side=32)
    running = compared(running_kernels(model).elements())
    derived = compared(Blocks(block_size=native_block_size()).kernels(schedule))
    assert {kernel.op for kernel in running} == {"conv", "gemm", "layernorm", "unary"}
    assert describe_difference(running, derived) == []
