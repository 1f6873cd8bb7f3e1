"""From a configuration to what a run works on: images, search space, costs of the target, budgets."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsonas_hw.architecture.costs import TargetCosts
from dsonas_hw.architecture.fit import check_feasible
from dsonas_hw.budget import Budget
from dsonas_hw.config import DeviceConfig, RunConfig, space_options
from dsonas_hw.cost.model import LatencyModel
from dsonas_hw.errors import DataError, ProfileError
from dsonas_hw.profile.profile_space import complete_table
from dsonas_hw.space.space import SearchSpace

if TYPE_CHECKING:
    from dsonas_hw.train.data import Dataset

_log = logging.getLogger(__name__)

#: Shapes and classes of the named datasets, so that sizes are known without the images.
KNOWN_SHAPES: dict[str, tuple[tuple[int, int, int], int]] = {
    "digits": ((1, 8, 8), 10),
    "fashion-mnist": ((1, 28, 28), 10),
    "cifar10": ((3, 32, 32), 10),
    "cifar100": ((3, 32, 32), 100),
    "imagenet": ((3, 224, 224), 1000),
}


@dataclass(frozen=True, kw_only=True)
class Task:
    """What every stage of a run needs, made from its configuration."""

    config: RunConfig
    space: SearchSpace
    target: TargetCosts
    budgets: tuple[Budget, ...]


def build_space(config: RunConfig, input_shape: tuple[int, int, int], num_classes: int) -> SearchSpace:
    """The search space of a configuration, for images of a shape.

    Raises:
        UserError: sizes that make no network, e.g. too many stages for the images.
    """
    return SearchSpace(**config.space.model_dump(), input_shape=input_shape, num_classes=num_classes)


def space_of_config(config: RunConfig) -> SearchSpace:
    """The same without loading images, where the dataset's shape is known; `folder:` sets are scanned.

    Raises:
        DataError: an unknown dataset, or a folder that is not there.
    """
    data = config.data
    if data.dataset in KNOWN_SHAPES:
        (channels, height, width), num_classes = KNOWN_SHAPES[data.dataset]
        size = data.image_size
        return build_space(config, (channels, size or height, size or width), num_classes)
    dataset = load_data(config)
    return build_space(config, dataset.input_shape, dataset.num_classes)


def load_data(config: RunConfig, *, download: bool = False) -> Dataset:
    """The images of a configuration.

    Raises:
        DataError: unknown, missing or damaged; says what to download and where to put it.
    """
    from dsonas_hw.train.data import load_dataset

    data = config.data
    return load_dataset(
        data.dataset,
        data_dir=data.data_dir,
        download=download,
        image_size=data.image_size,
        train_dir=data.train_dir,
        test_dir=data.test_dir,
        subset=data.subset,
        subset_test=data.test_subset,
        pad_value=data.pad_value,
    )


def describe_images(config: RunConfig) -> dict[str, Any] | None:
    """Where the images of folder:PATH are: sides, classes and counts, and what is left alone; else None.

    Raises:
        DataError: as of `load_data`.
    """
    data = config.data
    if not data.dataset.startswith("folder:"):  # which needs no torch
        if data.train_dir or data.test_dir:
            raise DataError(
                f"--train-dir and --test-dir are for --dataset folder:PATH, not for {data.dataset}"
            )
        return None
    from dsonas_hw.train.data import folder_of
    from dsonas_hw.train.data_folder import scan_sides
    from dsonas_hw.train.data_layout import find_sides

    sides = find_sides(folder_of(data.dataset), train_dir=data.train_dir, test_dir=data.test_dir)
    train, test, names = scan_sides(sides)
    described: dict[str, Any] = {"ignored": list(sides.ignored)}
    for side, files, directory in (("train", train, sides.train), ("test", test, sides.test)):
        counts = files.labels.bincount(minlength=len(names)).tolist()
        described[side] = {
            "directory": str(directory or sides.train),
            "split_off": directory is None,
            "num_images": len(files),
            "classes": dict(zip(names, counts, strict=True)),
        }
    return described


def needs_latency(config: RunConfig) -> bool:
    """Whether the search is steered by latency: a latency budget, or γ by latency."""
    steered = config.search.adaptive in ("block", "operation") and config.search.adaptive_cost == "latency"
    return steered or any(budget.name == "latency" for budget in config.budgets)


def target_costs(
    target: DeviceConfig,
    *,
    profiles_directory: Path | None = None,
    needs_latency: bool = False,
    profile_options: str = "",
) -> TargetCosts:
    """Costs on a target; without a profile of it, latency is unknown.

    needs_latency: then a missing profile is an error.
    profile_options: of `dsonas-hw profile`, for the space in question; for messages.

    Raises:
        ProfileError: latency is needed and the device has no profile; names the command that makes one.
        DeviceError: no such device.
    """
    from dsonas_hw.profile.open import open_latency_model

    model: LatencyModel | None = None
    try:
        model = open_latency_model(
            target.device,
            runtime=target.runtime,
            precision=target.precision,
            batch_size=target.batch_size,
            threads=target.threads,
            profiles_directory=profiles_directory,
            profile_options=profile_options,
        )
    except ProfileError:
        if needs_latency:
            raise
    return TargetCosts(model, batch_size=target.batch_size, precision=target.precision)


def prepare_task(
    config: RunConfig,
    space: SearchSpace,
    *,
    profiles_directory: Path | None = None,
    say: Callable[[str], None] = _log.warning,
) -> Task:
    """Costs and budgets of a run, checked before any training.

    If the run needs latencies and this machine's table lacks kernels of the space, they are measured first.

    Raises:
        BudgetError: budgets that no network of the space can meet.
        ProfileError: latency is needed and the device has no profile.
        DeviceError: no such device.
    """
    steered = needs_latency(config)
    target = target_costs(
        config.target,
        profiles_directory=profiles_directory,
        needs_latency=steered,
        profile_options=space_options(config),
    )
    if steered and target.latency_model is not None:
        model = complete_table(space, target.latency_model, say=say)
        target = TargetCosts(model, batch_size=target.batch_size, precision=target.precision)
    budgets = config.budgets
    check_feasible(space, budgets, target)
    return Task(config=config, space=space, target=target, budgets=budgets)
