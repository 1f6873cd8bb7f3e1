"""Counting bytes: known tensors, a line through two batches, and checkpointing that saves."""

from __future__ import annotations

import json

import pytest
import torch

from benchmarks import memory


def test_the_peak_is_what_is_allocated_at_once() -> None:
    def step() -> None:
        a = torch.zeros(1000)
        b = torch.zeros(3000)
        del a
        c = torch.zeros(500)
        del b, c

    assert memory.peak_bytes(step) == pytest.approx(4 * 4000, rel=0.02)


def test_the_line_goes_on_and_tells_how_far_points_lie_off_it() -> None:
    assert memory.extrapolate({1: 30, 2: 40, 4: 60}, 32) == (340.0, 0.0)
    assert memory.extrapolate({1: 30, 2: 44, 4: 60}, 8)[1] == pytest.approx(0.1)


def test_checkpointing_and_bfloat16_take_less(capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--set", "channels=8", "--set", "stages=[3]", "--set", "levels=2", "--batch-size", "8", "--json"]
    assert memory.main(["cifar10", *small]) == 0
    found = {row["option"]: row for row in map(json.loads, capsys.readouterr().out.splitlines())}
    peak = {name: row["peak_bytes"] for name, row in found.items()}
    assert peak["fp32, checkpointed"] < 0.75 * peak["fp32"]
    assert peak["bf16"] < 0.8 * peak["fp32"]
    assert peak["bf16, checkpointed"] < peak["bf16"]
    assert memory.main(["cifar10", *small[:-1], "--limit", "0.001GB"]) == 1
