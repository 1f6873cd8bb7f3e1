"""The teacher of a retraining with `retrain.distill`: found, or trained first, and frozen.

teacher        where it comes from
supernet       the newest checkpoint of the search in `distill.run` (of this run, if none is named)
network        the trained network of the run `distill.run`
a family       trained first in RUN/teacher, by the same recipe without a teacher; e.g. resnet
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dsonas_hw.config import DistillConfig, RunConfig
from dsonas_hw.errors import RunError, UserError, command_line
from dsonas_hw.files import read_json, write_json
from dsonas_hw.run_directory import RunDirectory
from dsonas_hw.search.parts import SearchParts
from dsonas_hw.train.data import Dataset
from dsonas_hw.train.hand_made import WIDTH_UNITS, HandMade, parse_family
from dsonas_hw.train.images import build_space
from dsonas_hw.train.loop import Interrupted, Progress
from dsonas_hw.train.retrain import RESULT_NAME, retrain
from dsonas_hw.train.trainable import Trainable, build_network, trainable_from_json
from dsonas_hw.train.weights import WEIGHTS_NAME, load_weights

FOLDER = "teacher"
NETWORK_NAME = "network.json"
"""In the run of a hand-made network, what it is."""


def open_teacher(
    run: RunDirectory,
    config: RunConfig,
    dataset: Dataset,
    *,
    device: torch.device,
    progress: Progress | None = None,
) -> nn.Module | None:
    """The teacher that `retrain.distill` asks for, in evaluation mode; None: it asks for none.

    A hand-made teacher is trained first; a finished one is read again, an interrupted one goes on.

    Raises:
        Interrupted: by a signal while the teacher was trained; it goes on from there.
        RunError: the run that holds the teacher has none.
        UserError: the teacher tells other classes or reads other images, or there is no such family.
    """
    distill = config.retrain.distill
    if distill.teacher is None:
        return None
    if distill.teacher == "supernet":
        teacher = _supernet(RunDirectory(distill.run) if distill.run else run, dataset, device)
    elif distill.teacher == "network":
        teacher = _trained(_network_run(distill), dataset, device)
    else:
        folder = RunDirectory(run.path / FOLDER)
        _train_family(folder, config, dataset, device, progress)
        teacher = _trained(folder, dataset, device)
    teacher.requires_grad_(requires_grad=False)
    return teacher.eval()


def check_teacher(config: RunConfig, dataset: Dataset) -> None:
    """Refuse a teacher that would be refused after the search: cheap, so that it is said before.

    Raises:
        RunError, UserError: as `open_teacher`.
    """
    distill = config.retrain.distill
    if distill.teacher == "network":
        _check_network(_network_run(distill), dataset)
    elif distill.teacher == "supernet":
        if distill.run is not None:
            _check_supernet(RunDirectory(distill.run), dataset)
    elif distill.teacher is not None:
        _family(distill, dataset)


def _train_family(
    run: RunDirectory, config: RunConfig, dataset: Dataset, device: torch.device, progress: Progress | None
) -> None:
    network = _family(config.retrain.distill, dataset)
    alone = config.model_copy(
        update={"retrain": config.retrain.model_copy(update={"distill": DistillConfig()}), "budget": ()}
    )
    described = run.path / NETWORK_NAME
    begun = described.is_file() and trainable_from_json(read_json(described), origin="") == network
    run.create(alone, resume=True)
    with run.lock():
        write_json(described, network.to_json())
        if begun and (run.path / RESULT_NAME).exists():
            return
        try:
            retrain(run, alone, network, dataset, device=device, resume=begun, progress=progress)
        except Interrupted:
            raise Interrupted(
                f"interrupted while the teacher was trained; go on with: "
                f"{command_line('retrain', run.path.parent, '--resume')}"
            ) from None


def _family(distill: DistillConfig, dataset: Dataset) -> HandMade:
    assert distill.teacher is not None
    own = parse_family(distill.teacher, input_shape=dataset.input_shape, num_classes=dataset.num_classes)
    return own.with_width(round(distill.width * WIDTH_UNITS))


def _network_run(distill: DistillConfig) -> RunDirectory:
    if distill.run is None:
        raise UserError(
            "retrain.distill.teacher=network needs the run that holds it, "
            "e.g. --set retrain.distill.run=runs/teacher"
        )
    return RunDirectory(distill.run)


def _trained(run: RunDirectory, dataset: Dataset, device: torch.device) -> nn.Module:
    """The trained network of a run; hand-made ones are described beside their weights."""
    network = _check_network(run, dataset)
    module = build_network(network, run.load_config().retrain)
    module.load_named_arrays(load_weights(run.path / WEIGHTS_NAME, network))
    return module.to(device)


def _check_network(run: RunDirectory, dataset: Dataset) -> Trainable:
    """The network of a run, which reads these images and tells these classes."""
    network = _network_of(run)
    wanted = network if isinstance(network, HandMade) else network.space
    _check_alike(run.path, wanted.input_shape, wanted.num_classes, dataset)
    return network


def _network_of(run: RunDirectory) -> Trainable:
    for path in (run.path / NETWORK_NAME, run.architecture_path):
        if path.is_file():
            return trainable_from_json(read_json(path), origin=str(path))
    raise RunError(f"{run.path} holds no network to learn from; name a run that has been retrained")


def _supernet(run: RunDirectory, dataset: Dataset, device: torch.device) -> nn.Module:
    """What is left of the supernet in a run's newest checkpoint of its search."""
    state = _check_supernet(run, dataset)
    config = run.load_config()
    space = build_space(config, dataset.input_shape, dataset.num_classes)
    random_state = torch.get_rng_state()
    parts = SearchParts(config, space, dataset, device)
    torch.set_rng_state(random_state)
    parts.load_state_dict(state)
    return parts.supernet


def _check_supernet(run: RunDirectory, dataset: Dataset) -> Mapping[str, Any]:
    """The newest checkpoint of a run's search, whose supernet tells these classes."""
    if not run.config_path.is_file():
        raise RunError(f"{run.path} is no run, so it has no supernet to learn from")
    state, _ = run.load_checkpoint("search")
    if state is None:
        raise RunError(f"{run.path} has no checkpoint of a search, so no supernet to learn from")
    named = state["model"].items()
    classifier = next(value for name, value in named if name.endswith("classifier.weight"))
    _check_alike(run.path, dataset.input_shape, len(classifier), dataset)
    return state


def _check_alike(path: Path, input_shape: tuple[int, ...], num_classes: int, dataset: Dataset) -> None:
    if num_classes != dataset.num_classes:
        raise UserError(
            f"the teacher in {path} tells {num_classes} classes, {dataset.name} has {dataset.num_classes}; "
            "name another run with --set retrain.distill.run=RUN"
        )
    if tuple(input_shape) != tuple(dataset.input_shape):
        raise UserError(
            f"the teacher in {path} is for images of {'×'.join(map(str, input_shape))}, {dataset.name} has "
            f"{'×'.join(map(str, dataset.input_shape))}; name another run with --set retrain.distill.run=RUN"
        )
