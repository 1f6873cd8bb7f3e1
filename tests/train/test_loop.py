"""The parts every training loop shares."""

from __future__ import annotations

import os
import signal

import pytest
import torch
from torch import nn

from dsonas_hw.errors import DeviceError
from dsonas_hw.train.evaluate import accuracy_of, count_confusion
from dsonas_hw.train.loop import (
    DivergedError,
    EpochMeter,
    StopSignal,
    random_state,
    resolve_train_device,
    restore_random_state,
    seed_everything,
)

CPU = torch.device("cpu")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_handlers_come_back(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with StopSignal() as stop:
        assert not stop.requested
        os.kill(os.getpid(), number)
        assert stop.requested
        assert signal.getsignal(number) is before  # a second signal acts at once
    assert signal.getsignal(number) is before


def test_second_ctrl_c_interrupts_at_once() -> None:
    with StopSignal():
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "xla", "", "meta"])
def test_unknown_or_absent_training_devices_are_refused(name: str) -> None:
    with pytest.raises(DeviceError, match="cannot train on"):
        resolve_train_device(name)


def test_training_device_defaults_to_what_is_here() -> None:
    assert resolve_train_device(None).type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert resolve_train_device("cpu") == CPU


def test_random_state_restores_the_stream() -> None:
    seed_everything(3)
    state = random_state(CPU)
    first = torch.rand(5)
    torch.rand(100)
    restore_random_state(state, CPU)
    assert torch.equal(torch.rand(5), first)


def test_random_state_is_that_of_the_gpu_that_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every process draws on its own GPU, and must go on where rank 0 was on its."""
    gpus = {torch.device("cuda", index): torch.full((16,), index, dtype=torch.uint8) for index in range(3)}
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: gpus[device])
    monkeypatch.setattr(
        torch.cuda, "set_rng_state", lambda state, device: gpus.__setitem__(device, state.clone())
    )
    state = random_state(torch.device("cuda:2"))
    restore_random_state(state, torch.device("cuda:1"))
    assert [int(gpus[torch.device("cuda", index)][0]) for index in range(3)] == [0, 2, 2]
    restore_random_state(random_state(CPU), torch.device("cuda:1"))  # a training that began on a CPU


def test_meter_averages_over_images_and_resumes() -> None:
    meter = EpochMeter(CPU)
    logits = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    meter.update(0, torch.tensor(1.0), logits, torch.tensor([0, 0]))
    resumed = EpochMeter(CPU)
    resumed.load_state_dict(meter.state_dict())
    resumed.update(1, torch.tensor(4.0), logits[:1], torch.tensor([0]))
    assert resumed.loss == pytest.approx((1.0 * 2 + 4.0 * 1) / 3)
    assert resumed.accuracy == pytest.approx(2 / 3)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_meter_names_the_first_step_that_diverged(value: float) -> None:
    meter = EpochMeter(CPU)
    for step, loss in enumerate([1.0, 2.0, value, 1.0, float("nan")]):
        meter.update(step, torch.tensor(loss), torch.zeros(1, 2), torch.tensor([0]))
    with pytest.raises(DivergedError, match=r"in epoch 7, step 3; lower lr"):
        meter.check("epoch 7", "lower lr")


def test_the_confusion_counts_all_images_and_leaves_the_mode() -> None:
    model = nn.Identity()
    batches = [
        (torch.eye(3), torch.tensor([0, 1, 0])),
        (torch.eye(3)[:1], torch.tensor([0])),
    ]
    model.train()
    confusion = count_confusion(model, batches, num_classes=3, device=CPU)
    assert confusion.tolist() == [[2, 0, 1], [0, 1, 0], [0, 0, 0]]
    assert accuracy_of(confusion) == pytest.approx(3 / 4)
    assert model.training
    with pytest.raises(ValueError, match="no images"):
        count_confusion(model, [], num_classes=3, device=CPU)
