"""What a run takes: the arithmetic, with the timed step replaced."""

from __future__ import annotations

from typing import Any

import pytest

from dsonas_hw.architecture.architecture import complete_architecture
from dsonas_hw.architecture.fit import ideal_complete_over_budget
from dsonas_hw.architecture.lower import lower
from dsonas_hw.config import build_config, load_preset, overlay
from dsonas_hw.errors import UserError
from dsonas_hw.kernel.costs import count_costs
from dsonas_hw.search import duration
from dsonas_hw.search.duration import LEFT_OF_SUPERNET, VERDICT_SECONDS, estimate_run, format_seconds
from dsonas_hw.search.effort import brief_effort, pretraining_effort, retraining_effort, search_effort
from dsonas_hw.train.images import space_of_config

NUM_IMAGES = 1438


def digits(**changes: Any) -> Any:
    return build_config(overlay(load_preset("digits"), {"train_on": "cpu", **changes}))


def test_seconds_are_images_times_accesses_times_what_was_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duration, "_seconds_per_access", lambda *words: 1e-9)
    config = digits(budget=["latency=1ms"])
    space = space_of_config(config)
    mac = count_costs(lower(complete_architecture(space))).mac
    found = estimate_run(config, space, NUM_IMAGES)
    images = pretraining_effort(config, NUM_IMAGES).images
    images += LEFT_OF_SUPERNET * search_effort(config, NUM_IMAGES).images
    assert found.searching_s == pytest.approx(1e-9 * mac * images)
    network = mac / ideal_complete_over_budget(space)
    retraining = retraining_effort(config, NUM_IMAGES).images
    assert found.retraining_s == pytest.approx(1e-9 * network * retraining)
    assert found.selecting_s == pytest.approx(1e-9 * network * brief_effort(config, NUM_IMAGES).images)
    assert found.measuring_s > VERDICT_SECONDS
    without = estimate_run(digits(), space, NUM_IMAGES)
    assert (without.selecting_s, without.measuring_s) == (0.0, VERDICT_SECONDS)


def test_the_brief_trainings_are_counted_as_they_run() -> None:
    # 8 candidates for 2 epochs, 4 for 2 more, 2 for 4 more; 719 images of W are 11 batches of 64.
    assert brief_effort(digits(), NUM_IMAGES).w_steps == (8 * 2 + 4 * 2 + 2 * 4) * 11


def test_a_search_that_does_not_fit_is_refused_with_the_batch_that_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(duration, "_seconds_per_access", lambda *words: 1e-9)
    monkeypatch.setattr(duration, "free_memory_bytes", lambda device: 6_000_000)
    config = digits()
    found = estimate_run(config, space_of_config(config), NUM_IMAGES)
    with pytest.raises(UserError, match=r"--set search\.batch_size=(\d+)") as refusal:
        found.check()
    smaller = int(str(refusal.value).rpartition("=")[2])
    config = digits(search={"batch_size": smaller})
    estimate_run(config, space_of_config(config), NUM_IMAGES).check()


def test_a_step_is_timed() -> None:
    config = digits(space={"levels": 2, "stages": [1], "channels": 8})
    found = estimate_run(config, space_of_config(config), 64)
    assert found.searching_s > 0
    assert "by a few steps timed now" in str(found)


def test_durations_are_readable() -> None:
    assert [format_seconds(s) for s in (40, 200, 9_000, 400_000)] == ["40 s", "3 min", "2.5 h", "5 days"]
