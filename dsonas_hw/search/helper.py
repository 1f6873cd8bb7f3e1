"""Helper processes: every rank but 0 waits here for jobs, and a search in one (`train.distributed`)."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from typing import Any

from dsonas_hw.config import build_config
from dsonas_hw.search.parts import SearchParts
from dsonas_hw.search.teacher import open_teacher
from dsonas_hw.search.team import SearchTeam
from dsonas_hw.train import distributed
from dsonas_hw.train.helper import help_retrain
from dsonas_hw.train.images import build_space, load_data
from dsonas_hw.train.loop import StopSignal, resolve_train_device


def help_rank_0() -> None:
    """Do the jobs that rank 0 begins, until it sends the helpers home.

    Signals are rank 0's affair: it ends the step, writes a checkpoint, and sends the helpers home.
    """
    for number in StopSignal.SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    while (job := distributed.wait_for_job()) is not None:
        if job["job"] == "search":
            _help_search(job)
        else:
            help_retrain(job, open_teacher)


def _help_search(job: Mapping[str, Any]) -> None:
    """Take part in the search that rank 0 began, to its end."""
    config = build_config(job["config"])
    dataset = load_data(config)
    device = resolve_train_device(config.train_on)
    space = build_space(config, dataset.input_shape, dataset.num_classes)
    parts = SearchParts(config, space, dataset, device)
    parts.load_state_dict(job["state"])
    SearchTeam(parts, device).follow()
