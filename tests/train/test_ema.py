"""The running average of weights: its formula, checkpoints, and giving the weights back."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dsonas_hw.train.ema import WeightAverage


def network(width: int = 3) -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, width), nn.BatchNorm1d(width))


def set_weights(model: nn.Module, value: float) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(value)


def test_average_by_hand():
    model = network()
    set_weights(model, 0.0)
    average = WeightAverage(model, decay=0.25)
    expected = 0.0
    for n, value in enumerate([1.0, 3.0, -2.0, 5.0], start=1):
        set_weights(model, value)
        average.update(model)
        decay = min(0.25, (1 + n) / (10 + n))  # 2/11, 3/12, then 0.25
        expected = decay * expected + (1 - decay) * value
    torch.testing.assert_close(average.average["0.weight"], torch.full((3, 2), expected))


def test_whole_number_buffers_are_copied_and_others_averaged():
    model = network()
    average = WeightAverage(model)
    model(torch.full((4, 2), 7.0))
    average.update(model)
    assert average.average["1.num_batches_tracked"] == 1
    torch.testing.assert_close(average.average["1.running_mean"], model[1].running_mean * 9 / 11)


def test_model_gets_its_own_weights_back():
    model = network()
    set_weights(model, 1.0)
    average = WeightAverage(model)
    set_weights(model, 2.0)
    with average.applied_to(model):
        assert model[0].weight.unique().item() == 1.0
    assert model[0].weight.unique().item() == 2.0


def test_model_gets_its_own_weights_back_after_an_error():
    model = network()
    average = WeightAverage(model)
    set_weights(model, 2.0)
    with pytest.raises(RuntimeError, match="size mismatch"), average.applied_to(model):
        model.load_state_dict(network(4).state_dict())
    assert model[0].weight.unique().item() == 2.0


def test_checkpoint_goes_on_as_if_uninterrupted():
    model = network()
    uninterrupted = WeightAverage(model, decay=0.9)
    set_weights(model, 1.0)
    uninterrupted.update(model)
    saved = uninterrupted.state_dict()
    resumed = WeightAverage(network(), decay=0.5)
    resumed.load_state_dict(saved)
    set_weights(model, 5.0)
    uninterrupted.update(model)
    resumed.update(model)
    for name, value in uninterrupted.average.items():
        assert torch.equal(value, resumed.average[name])
    assert not torch.equal(saved["average"]["0.weight"], uninterrupted.average["0.weight"])  # a copy


def test_checkpoint_of_another_network_is_refused():
    state = WeightAverage(network(4)).state_dict()
    with pytest.raises(ValueError, match=r"do not fit .* shape \(4, 2\) instead of \(3, 2\)"):
        WeightAverage(network(3)).load_state_dict(state)
    with pytest.raises(ValueError, match="only in one of them"):
        WeightAverage(nn.Linear(2, 3)).load_state_dict(state)


def test_senseless_decay_is_refused():
    with pytest.raises(ValueError, match="decay"):
        WeightAverage(network(), decay=1.0)
