"""What of a study would fail later is refused before anything runs."""

from __future__ import annotations

from dsonas_hw.architecture.fit import find_loose
from dsonas_hw.config import build_config
from dsonas_hw.errors import BudgetError, DeviceError, UserError
from dsonas_hw.space.space import SearchSpace
from dsonas_hw.study.spec import TRANSFERRED, Study
from dsonas_hw.task import Task, prepare_task
from dsonas_hw.train.images import load_data, space_of_config


def check_study(study: Study) -> None:
    """Check the space, the budgets and the target of every variant.

    Raises:
        UserError: names the variant and what is wrong: budgets that no network meets, a device without a
            profile, or one that is to be measured and is not here.
    """
    seen = set()
    for job in study.jobs:
        is_served = job.kind in ("searched", "transferred", "fit") or job.variant == TRANSFERRED
        if not is_served or (job.kind, job.variant, job.budgets) in seen:
            continue
        seen.add((job.kind, job.variant, job.budgets))
        config = build_config({**job.config, "budget": list(job.budgets)})
        try:
            space = space_of_config(config)
            check_limits(prepare_task(config, space))
            if job.network in study.file.hand_made:
                _check_family(job.network, space)
            if job.measure:
                _check_is_here(config.target.device)
        except UserError as error:
            raise type(error)(f"study {study.file.name}, variant {job.variant}: {error}") from None


def check_limits(task: Task) -> None:
    """Refuse a budget that limits nothing: under it nothing would be compared.

    Raises:
        BudgetError: even the largest network holds it.
    """
    if loose := find_loose(task.space, task.budgets, task.target):
        raise BudgetError(loose[0])


def check_data(study: Study) -> None:
    """Load every dataset once: what is missing or damaged is said now, not by each job.

    Raises:
        DataError: says what to download and where to put it.
    """
    seen = []
    for job in study.jobs:
        config = build_config(job.config)
        if config.data not in seen:
            seen.append(config.data)
            load_data(config)


def _check_family(name: str, space: SearchSpace) -> None:
    from dsonas_hw.train.hand_made import parse_family

    parse_family(name, input_shape=space.input_shape, num_classes=space.num_classes)


def _check_is_here(device: str) -> None:
    from dsonas_hw.runtime.detect import detect_devices

    if detect_devices().find(device) is None:
        raise DeviceError(f"{device} is not on this machine: latency cannot be measured; set measure: false")
