"""The teacher of a retraining with `retrain.distill`: found, or trained first, and frozen.

teacher        where it comes from
supernet       the newest checkpoint of the search in `distill.run` (of this run, if none is named)
network        the trained network of the run `distill.run`
a family       trained first in RUN/teacher, by the same recipe without a teacher; e.g. resnet
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from dsonas_hw.config import DistillConfig, RunConfig
from dsonas_hw.errors import RunError, UserError
from dsonas_hw.files import read_json, write_json
from dsonas_hw.run_directory import RunDirectory
from dsonas_hw.search.parts import SearchParts
from dsonas_hw.train.data import Dataset
from dsonas_hw.train.hand_made import WIDTH_UNITS, parse_family
from dsonas_hw.train.images import build_space
from dsonas_hw.train.loop import Progress
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
        if distill.run is None:
            raise UserError(
                "retrain.distill.teacher=network needs the run that holds it, "
                "e.g. --set retrain.distill.run=runs/teacher"
            )
        teacher = _trained(RunDirectory(distill.run), dataset, device)
    else:
        folder = RunDirectory(run.path / FOLDER)
        _train_family(folder, config, dataset, device, progress)
        teacher = _trained(folder, dataset, device)
    teacher.requires_grad_(requires_grad=False)
    return teacher.eval()


def _train_family(
    run: RunDirectory, config: RunConfig, dataset: Dataset, device: torch.device, progress: Progress | None
) -> None:
    distill = config.retrain.distill
    assert distill.teacher is not None
    network = parse_family(
        distill.teacher, input_shape=dataset.input_shape, num_classes=dataset.num_classes
    ).with_width(round(distill.width * WIDTH_UNITS))
    alone = config.model_copy(
        update={"retrain": config.retrain.model_copy(update={"distill": DistillConfig()}), "budget": ()}
    )
    begun = run.config_path.exists()
    run.create(alone, resume=True)
    with run.lock():
        write_json(run.path / NETWORK_NAME, network.to_json())
        if not (run.path / RESULT_NAME).exists():
            retrain(run, alone, network, dataset, device=device, resume=begun, progress=progress)


def _trained(run: RunDirectory, dataset: Dataset, device: torch.device) -> nn.Module:
    """The trained network of a run; hand-made ones are described beside their weights."""
    network = _network_of(run)
    wanted = network if not hasattr(network, "space") else network.space
    _check_alike(run.path, wanted.input_shape, wanted.num_classes, dataset)
    module = build_network(network, run.load_config().retrain)
    module.load_named_arrays(load_weights(run.path / WEIGHTS_NAME, network))
    return module.to(device)


def _network_of(run: RunDirectory) -> Trainable:
    for path in (run.path / NETWORK_NAME, run.architecture_path):
        if path.is_file():
            return trainable_from_json(read_json(path), origin=str(path))
    raise RunError(f"{run.path} holds no network to learn from; name a run that has been retrained")


def _supernet(run: RunDirectory, dataset: Dataset, device: torch.device) -> nn.Module:
    """What is left of the supernet in a run's newest checkpoint of its search."""
    if not run.config_path.is_file():
        raise RunError(f"{run.path} is no run, so it has no supernet to learn from")
    config = run.load_config()
    state, _ = run.load_checkpoint("search")
    if state is None:
        raise RunError(f"{run.path} has no checkpoint of a search, so no supernet to learn from")
    model = state["model"]
    classifier = next(value for name, value in model.items() if name.endswith("classifier.weight"))
    _check_alike(run.path, dataset.input_shape, len(classifier), dataset)
    space = build_space(config, dataset.input_shape, dataset.num_classes)
    random_state = torch.get_rng_state()
    parts = SearchParts(config, space, dataset, device)
    torch.set_rng_state(random_state)
    parts.load_state_dict(state)
    return parts.supernet


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
