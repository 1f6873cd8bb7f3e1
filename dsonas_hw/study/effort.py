"""What a job of a study would cost to run, in steps and images, known before anything runs."""

from __future__ import annotations

from dsonas_hw.config import build_config
from dsonas_hw.search.effort import (
    Effort,
    brief_effort,
    pretraining_effort,
    retraining_effort,
    search_effort,
)
from dsonas_hw.search.halving import unhalved_epochs
from dsonas_hw.study.hand_made import SEARCHED
from dsonas_hw.study.spec import Job
from dsonas_hw.train.images import count_train_images


def count_effort(job: Job) -> Effort:
    """Count what a job trains; nothing for one that only derives or measures.

    Raises:
        DataError: a folder of images that is not there.
    """
    config = build_config(job.config)
    num_images = count_train_images(config.data)
    match job.kind:
        case "pretrain":
            return pretraining_effort(config, num_images)
        case "search":
            begins = Effort() if job.needs else pretraining_effort(config, num_images)
            return begins + search_effort(config, num_images)
        case "train" | "searched" | "random" | "transferred" | "teacher" | "fitted":
            return retraining_effort(config, num_images)
        case "fit" if job.network == SEARCHED:
            return brief_effort(config, num_images)
        case "choose":  # for as long as search and selection: told as their steps
            searching = pretraining_effort(config, num_images) + search_effort(config, num_images)
            return searching + brief_effort(config, num_images)
        case "evaluate":  # the most that there can be: no network is on two slates
            networks = config.select.candidates * len(job.devices) * len(job.budgets)
            return brief_effort(config, num_images, epochs=networks * unhalved_epochs(config.select))
    return Effort()
