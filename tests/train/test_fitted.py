"""The configuration for images of one's own: laws over many facts of images, budget and machine."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest

from dsonas_hw.architecture.architecture import Architecture, complete_architecture, identity_architecture
from dsonas_hw.architecture.costs import TargetCosts
from dsonas_hw.architecture.fit import budget_ratio, check_feasible, find_loose
from dsonas_hw.budget import parse_budgets
from dsonas_hw.config import RunConfig, build_config, load_preset, overlay
from dsonas_hw.search.effort import pretraining_effort, retraining_effort, search_effort
from dsonas_hw.space.space import SearchSpace
from dsonas_hw.train.fitted import Machine, MachineFacts, OverBudget, fit_to_images
from dsonas_hw.train.images import ImageFacts, build_space
from dsonas_hw.train.memory import training_bytes

CPU = MachineFacts(kind="CPU", free_bytes=16 * 10**9)
SHAPES = ImageFacts(num_images=480, num_classes=4, side_px=64)


def over(*budgets: str) -> OverBudget:
    parsed, target = parse_budgets(budgets), TargetCosts()
    return lambda architecture: budget_ratio(architecture, parsed, target)


def fit(
    images: ImageFacts = SHAPES, machine: MachineFacts = CPU, *budgets: str, **given: Any
) -> tuple[RunConfig, dict[str, str]]:
    """The configuration and the reasons by field; given: fields such as `retrain__epochs`."""
    config = overlay(load_preset("folder"), {"budget": list(budgets)})
    for key, value in given.items():
        section, name = key.split("__")
        config = overlay(config, {section: {name: value}})
    keys = {key.replace("__", ".") for key in given}
    fitted, choices = fit_to_images(build_config(config), images, machine, over(*budgets), given=keys)
    assert not keys & {choice.key for choice in choices}
    for choice in choices:
        section, name = choice.key.split(".")
        stored = getattr(getattr(fitted, section), name)
        assert (list(stored) if isinstance(stored, tuple) else stored) == choice.value
    return fitted, {choice.key: choice.reason for choice in choices}


def space_of(config: RunConfig, images: ImageFacts) -> SearchSpace:
    size = config.data.image_size
    assert size is not None
    return build_space(config, (3, size, size), images.num_classes)


@pytest.mark.parametrize(
    ("number", "side", "kind"),
    list(itertools.product((8, 100, 480, 5_000, 200_000), (8, 28, 64, 100, 500), ("CPU", "GPU"))),
)
def test_any_images_give_a_run_that_can_start(number: int, side: int, kind: Machine) -> None:
    images = ImageFacts(num_images=number, num_classes=4, side_px=side)
    config, _ = fit(images, MachineFacts(kind=kind, free_bytes=16 * 10**9))
    used = min(number, config.data.subset or number)
    space = space_of(config, images)
    assert min(space.resolution(len(space.stages) - 1)) >= 2
    assert config.data.image_size is not None
    assert config.data.image_size <= side
    assert 2 <= config.search.batch_size <= max(2, used // 2)
    assert config.retrain.batch_size <= max(2, used)
    needed = training_bytes(complete_architecture(space), batch_size=config.search.batch_size)
    assert needed <= 8 * 10**9
    # Small sets take more epochs, so that none is trained too briefly.
    if used >= 100:
        assert pretraining_effort(config, used).w_steps >= 150
        assert search_effort(config, used).lam_steps >= 250
        assert retraining_effort(config, used).w_steps >= 900


def test_what_a_user_sets_stays_and_the_rest_follows_from_it() -> None:
    config, reasons = fit(SHAPES, CPU, data__image_size=32, search__batch_size=40, retrain__epochs=7)
    assert (config.data.image_size, config.search.batch_size, config.retrain.epochs) == (32, 40, 7)
    assert (config.space.stem, config.retrain.cutout) == ("cifar", 8)
    assert config.search.epochs == math.ceil(250 / (240 // 40))
    assert reasons["search.epochs"] == f"epochs of 6 steps, {6 * config.search.epochs} in all"
    config, _ = fit(SHAPES, CPU, space__stages=[2, 1])
    assert config.space.stages == (2, 1)


@pytest.mark.parametrize("limit", ["300k", "2M", "10M", "40M"])
def test_the_space_grows_until_the_budget_can_be_filled(limit: str) -> None:
    budget = f"mac={limit}"
    config, reasons = fit(SHAPES, CPU, budget)
    space, budgets = space_of(config, SHAPES), parse_budgets([budget])
    assert find_loose(space, budgets, TargetCosts()) == []
    check_feasible(space, budgets, TargetCosts())
    assert reasons["space.max_width"] == "channels: wide enough to fill the budget"


def test_a_budget_too_large_for_every_space_is_said() -> None:
    _, reasons = fit(SHAPES, CPU, "mac=1T")
    assert "the budget may not be filled" in reasons["space.max_width"]


def test_a_small_budget_makes_the_images_smaller() -> None:
    config, reasons = fit(SHAPES, CPU, "mac=8k")
    assert config.data.image_size is not None
    assert config.data.image_size < 64
    assert reasons["data.image_size"] == "pixels: the budget is for no larger images"
    space = space_of(config, SHAPES)
    smallest = identity_architecture(space, width=space.widths()[0])
    assert over("mac=8k")(smallest) <= 1


def test_little_memory_makes_the_batch_smaller() -> None:
    plenty, _ = fit(SHAPES, CPU)
    config, reasons = fit(SHAPES, MachineFacts(kind="CPU", free_bytes=80_000_000))
    assert config.search.batch_size < plenty.search.batch_size
    assert "do not fit" in reasons["search.batch_size"]
    unknown, _ = fit(SHAPES, MachineFacts(kind="CPU", free_bytes=None))
    assert unknown == plenty


def test_many_images_are_a_subset_on_a_cpu_alone() -> None:
    many = ImageFacts(num_images=50_000, num_classes=10, side_px=32)
    config, reasons = fit(many, CPU)
    assert config.data.subset == 8_000
    assert reasons["data.subset"].startswith("of 50,000 images")
    assert fit(many, MachineFacts(kind="GPU", free_bytes=None))[0].data.subset is None


def test_costs_are_asked_of_networks_alone() -> None:
    """The rule is pure: what it asks is a function of an architecture, and alike facts give alike results."""
    asked: list[Architecture] = []

    def over_budget(architecture: Architecture) -> float:
        asked.append(architecture)
        return 0.5

    config = build_config(overlay(load_preset("folder"), {"budget": ["latency=1ms"]}))
    first = fit_to_images(config, SHAPES, CPU, over_budget)
    assert first == fit_to_images(config, SHAPES, CPU, over_budget)
    assert asked
