"""The law of `ort_law` for sequences, volumes, recurrent layers and transposed convolutions."""

from __future__ import annotations

import onnx
import pytest
import torch
from ort_law import assert_deployed, rules_apply
from random_modules import export
from torch import Tensor, nn

from dsonas_hw.kernel.onnx.from_onnx import network_from_onnx

pytestmark = rules_apply


class Residual(nn.Module):
    """A residual; ONNX Runtime adds it in the convolution only of images."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.second(torch.relu(self.first(x))))


class Recurrent(nn.Module):
    """The outputs of all steps; with `last`, a linear layer over the state behind the last one."""

    def __init__(self, layer: nn.RNNBase, *, last: bool = False) -> None:
        super().__init__()
        self.layer = layer
        self.head = nn.Linear(layer.hidden_size, 4) if last else None

    def forward(self, x: Tensor) -> Tensor:
        outputs, state = self.layer(x)
        return outputs if self.head is None else self.head(state[0])


NETWORKS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "sequence": (
        nn.Sequential(
            nn.Conv1d(1, 16, 9, stride=4), nn.BatchNorm1d(16), nn.ReLU(), nn.MaxPool1d(4),
            nn.Conv1d(16, 32, 3, padding=1), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(32, 4),
        ),
        (2, 1, 600),
    ),
    "residual sequence": (Residual(nn.Conv1d(8, 8, 3, padding=1), nn.Conv1d(8, 8, 3, padding=1)), (1, 8, 64)),
    "vocoder": (
        nn.Sequential(nn.Conv1d(20, 32, 7), nn.ReLU(), nn.ConvTranspose1d(32, 16, 8, 4, 2), nn.Tanh()),
        (1, 20, 50),
    ),
    "generator": (
        nn.Sequential(nn.ConvTranspose2d(16, 32, 4), nn.ReLU(), nn.ConvTranspose2d(32, 8, 4, 2, 1, groups=2)),
        (1, 16, 1, 1),
    ),
    "volume": (
        nn.Sequential(
            nn.Conv3d(3, 8, (3, 5, 1), stride=(1, 2, 1)), nn.BatchNorm3d(8), nn.ReLU(), nn.MaxPool3d(2),
            nn.ConvTranspose3d(8, 4, 2, stride=2), nn.AvgPool3d(2),
        ),
        (1, 3, 8, 16, 16),
    ),
    "residual volume": (
        Residual(nn.Conv3d(4, 4, 3, padding=1), nn.Conv3d(4, 4, 3, padding=1)), (1, 4, 4, 8, 8)
    ),
    "lstm": (Recurrent(nn.LSTM(16, 32, 2, bidirectional=True)), (7, 3, 16)),
    "gru": (Recurrent(nn.GRU(16, 32, bidirectional=True, bias=False)), (7, 3, 16)),
    "rnn": (Recurrent(nn.RNN(16, 32, 3, nonlinearity="relu")), (7, 3, 16)),
    "last state": (Recurrent(nn.GRU(16, 32), last=True), (20, 1, 16)),
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_derived_kernels_are_those_that_run(name: str) -> None:
    module, shape = NETWORKS[name]
    model = export(module, shape)
    network = network_from_onnx(onnx.load_model_from_string(model))
    assert network.unknown == ()
    assert_deployed(model, network.schedule, batch_size=network.batch_size)
