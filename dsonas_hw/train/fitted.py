"""A configuration for images of one's own: what follows from the images, the budget and the machine. Pure.

    images ─▶ subset, size ─▶ stem, stages ─▶ blocks, widths (until the space can fill the budget)
                        └──▶ batches (that fit in memory) ─▶ epochs (until there are enough steps)

Small sets need many epochs and large ones few: what makes a network learn is the number of steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from dsonas_hw.architecture.architecture import Architecture, complete_architecture, identity_architecture
from dsonas_hw.architecture.fit import MOST_FIXED_OVER_BUDGET, ideal_complete_over_budget
from dsonas_hw.config import RunConfig, SpaceConfig, build_config, overlay
from dsonas_hw.space.space import STEMS, SearchSpace
from dsonas_hw.train.images import ImageFacts, build_space
from dsonas_hw.train.memory import fitting_batch

Machine = Literal["CPU", "GPU"]

MOST_PIXELS: dict[Machine, int] = {"CPU": 64, "GPU": 224}
"""Side of the largest images that are trained on unasked."""
MOST_IMAGES: dict[Machine, int] = {"CPU": 8_000, "GPU": 1_300_000}
PACE: dict[Machine, int] = {"CPU": 1, "GPU": 8}
"""How many times more steps are taken, by what trains."""
LARGEST_BATCH: dict[Machine, int] = {"CPU": 64, "GPU": 256}
SMALLEST_BATCH = 8
STEPS_AN_EPOCH = 12
"""Batches are so small that an epoch has so many, as far as the two limits above let them."""
PRETRAIN_STEPS, SEARCH_STEPS, SELECT_STEPS, RETRAIN_STEPS = 150, 250, 60, 900
"""On a CPU; of the search those on λ."""
LARGEST_SIDE = 32
"""The stem brings images down to it before the first block."""
LARGE_ENOUGH = 0.625
"""Of what the complete network should cost at its widest (`ideal_complete_over_budget` times the budget)."""
GROWTH = ((1, 4), (1, 8), (2, 4), (2, 8), (3, 8), (4, 16))
"""(blocks of a stage, widest / searched channels): the first that the budget cannot exhaust is taken."""


@dataclass(frozen=True, kw_only=True)
class MachineFacts:
    """What is known of where training runs."""

    kind: Machine
    free_bytes: int | None
    """None: the system does not tell."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One field that follows from the facts."""

    key: str
    """As `--set` names it."""
    value: Any
    reason: str


OverBudget = Callable[[Architecture], float]
"""A network's largest cost / limit of all budgets, as far as they can be told before anything is measured; 0
without budgets."""


def fit_to_images(
    config: RunConfig,
    images: ImageFacts,
    machine: MachineFacts,
    over_budget: OverBudget,
    *,
    given: Collection[str] = (),
) -> tuple[RunConfig, tuple[Choice, ...]]:
    """Return the configuration that suits the facts, and what was changed for which reason.

    given: fields that the user has set, such as `retrain.epochs`; they stay, and the others follow from them.

    Raises:
        UserError: what is given makes no network, such as too many stages for the images.
    """
    fitting = _Fitting(config, given)
    _fit_images(fitting, images, machine)
    _fit_space(fitting, images, over_budget)
    _fit_batches(fitting, images, machine)
    _fit_epochs(fitting, images, machine)
    return fitting.config, tuple(fitting.choices)


class _Fitting:
    """The configuration so far."""

    def __init__(self, config: RunConfig, given: Collection[str]) -> None:
        self.config, self.given = config, given
        self.choices: list[Choice] = []

    def choose(self, key: str, value: Any, reason: str) -> None:
        """Set a field that the user has left open."""
        if key in self.given:
            return
        section, name = key.split(".")
        self.config = build_config(overlay(self.config.model_dump(mode="json"), {section: {name: value}}))
        self.choices.append(Choice(key=key, value=value, reason=reason))


def _fit_images(fitting: _Fitting, images: ImageFacts, machine: MachineFacts) -> None:
    most = MOST_IMAGES[machine.kind]
    if images.num_images > most:
        fitting.choose(
            "data.subset", most, f"of {images.num_images:,} images; more take long on a {machine.kind}"
        )
    side, limit = images.side_px, MOST_PIXELS[machine.kind]
    if side > limit:
        fitting.choose("data.image_size", limit, f"of {side} pixels; more take long on a {machine.kind}")
    else:
        fitting.choose("data.image_size", max(side, 4), "pixels, as the images are")


def _fit_space(fitting: _Fitting, images: ImageFacts, over_budget: OverBudget) -> None:
    """The first shape whose smallest network holds the budget, as large as it takes to fill it."""
    shapes = list(_shapes(fitting, images))
    size, space = next(
        (s for s in shapes if over_budget(_smallest(s[1])) <= MOST_FIXED_OVER_BUDGET), shapes[0]
    )
    if size != fitting.config.data.image_size:
        fitting.choices = [c for c in fitting.choices if c.key != "data.image_size"]
        fitting.choose("data.image_size", size, "pixels: the budget is for no larger images")
    resolution = space.resolution(0)[0]
    fitting.choose("space.stem", space.stem, f"the first blocks work on {resolution}×{resolution} pixels")
    num_stages = len(space.stages)
    for blocks, widening in GROWTH:
        stages = space.stages if "space.stages" in fitting.given else (blocks,) * num_stages
        widest = widening * space.channels
        grown = _space(fitting, images, size=size, stem=space.stem, stages=stages, max_width=widest)
        filled = over_budget(_largest(grown)) / (LARGE_ENOUGH * ideal_complete_over_budget(grown))
        if filled >= 1 or not fitting.config.budget:
            break
    last = space.resolution(num_stages - 1)[0]
    fitting.choose("space.stages", list(stages), f"blocks, down to {last}×{last} pixels")
    why = "wide enough to fill the budget" if fitting.config.budget else "four times the searched width"
    if filled < 1 and fitting.config.budget:
        why = "the largest space that is tried; the budget may not be filled"
    fitting.choose("space.max_width", widest, f"channels: {why}")


def _shapes(fitting: _Fitting, images: ImageFacts) -> Iterator[tuple[int, SearchSpace]]:
    """(image size, space) from the finest resolution to the coarsest."""
    size = fitting.config.data.image_size or images.side_px
    sizes = (
        [size] if "data.image_size" in fitting.given else [size // d for d in (1, 2, 4) if size // d >= 16]
    )
    for side in sizes or [size]:
        wanted = next(
            (n for n in range(len(STEMS)) if math.ceil(side / 2**n) <= LARGEST_SIDE), len(STEMS) - 1
        )
        stems = STEMS[wanted:]
        if "space.stem" in fitting.given:
            stems = (fitting.config.space.stem,)
        for stem in stems:
            resolution = side / 2 ** STEMS.index(stem)
            number = min(
                max(int(math.log2(resolution / 2)), 1) if resolution >= 2 else 1, 4 if resolution >= 48 else 3
            )
            stages = fitting.config.space.stages if "space.stages" in fitting.given else (1,) * number
            yield side, _space(fitting, images, size=side, stem=stem, stages=stages)


def _space(
    fitting: _Fitting,
    images: ImageFacts,
    *,
    size: int,
    stem: str,
    stages: tuple[int, ...],
    max_width: int = 0,
) -> SearchSpace:
    space = fitting.config.space
    changes: dict[str, Any] = {"stem": stem, "stages": stages}
    if "space.max_width" not in fitting.given:
        changes["max_width"] = max_width
    changed = SpaceConfig.model_validate({**space.model_dump(), **changes})
    return build_space(
        fitting.config.model_copy(update={"space": changed}), (3, size, size), images.num_classes
    )


def _smallest(space: SearchSpace) -> Architecture:
    return identity_architecture(space, width=space.widths()[0])


def _largest(space: SearchSpace) -> Architecture:
    return complete_architecture(space, width=space.widths()[-1])


def _fit_batches(fitting: _Fitting, images: ImageFacts, machine: MachineFacts) -> None:
    num_images, num_w, num_lam = _parts(fitting.config, images)
    batch = _batch_for(min(num_w, num_lam), machine)
    reason = f"images: {num_w} train W, {num_lam} train λ"
    config = fitting.config
    size = config.data.image_size or images.side_px
    supernet = complete_architecture(build_space(config, (3, size, size), images.num_classes))
    limit = None if machine.free_bytes is None else machine.free_bytes // 2
    smaller = fitting_batch(supernet, batch_size=batch, free_bytes=limit) or 2
    if smaller < batch:
        batch, reason = smaller, "images: more do not fit in half of the free memory"
    fitting.choose("search.batch_size", batch, reason)
    fitting.choose(
        "retrain.batch_size", min(_batch_for(num_images, machine), 2 * batch), f"of {num_images} images"
    )


def _fit_epochs(fitting: _Fitting, images: ImageFacts, machine: MachineFacts) -> None:
    pace = PACE[machine.kind]
    num_images, num_w, _ = _parts(fitting.config, images)
    search, retrain = fitting.config.search, fitting.config.retrain
    w_steps = max(1, num_w // search.batch_size)

    def epochs(steps: int, in_one: int, least: int, most: int) -> int:
        return min(max(math.ceil(steps * pace / in_one), least), most * pace)

    def told(number: int, in_one: int) -> str:
        return f"epochs of {in_one} steps, {number * in_one:,} in all"

    number = epochs(PRETRAIN_STEPS, w_steps, 2, 25)
    fitting.choose("search.pretrain_epochs", number, told(number, w_steps))
    number = epochs(SEARCH_STEPS, max(1, w_steps // search.w_steps), 6, 50)
    fitting.choose("search.epochs", number, told(number, w_steps))
    brief = max(1, num_w // retrain.batch_size)
    number = epochs(SELECT_STEPS, brief, 1, 10)
    fitting.choose("select.epochs", number, told(number, brief))
    steps = max(1, num_images // retrain.batch_size)
    number = epochs(RETRAIN_STEPS, steps, 12, 120)
    fitting.choose("retrain.epochs", number, told(number, steps))
    size = fitting.config.data.image_size or images.side_px
    fitting.choose("retrain.cutout", size // 4, "pixels, a quarter of the side")


def _parts(config: RunConfig, images: ImageFacts) -> tuple[int, int, int]:
    """Images that retraining sees, those of W, those of λ."""
    number = min(images.num_images, config.data.subset or images.num_images)
    if not config.data.split:
        return number, number, number
    for_w, for_lam = config.data.split_ratio
    num_w = number * for_w // (for_w + for_lam)
    return number, num_w, number - num_w


def _batch_for(num_images: int, machine: MachineFacts) -> int:
    """A power of two: an epoch has a dozen steps or more, unless there are too few images even for two."""
    wanted: int = 2 ** int(math.log2(max(num_images / STEPS_AN_EPOCH, 1)))
    batch = min(max(wanted, SMALLEST_BATCH), LARGEST_BATCH[machine.kind])
    while batch > 2 and batch > num_images // 2:
        batch //= 2
    return batch
