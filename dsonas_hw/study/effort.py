"""What a job of a study would cost to run, in steps and images, known before anything runs."""

from __future__ import annotations

from dsonas_hw.config import build_config
from dsonas_hw.search.effort import (
    Effort,
    count_train_images,
    pretraining_effort,
    retraining_effort,
    search_effort,
)
from dsonas_hw.study.spec import Job


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
        case "choose":  # for as long as the search: told as its steps
            return pretraining_effort(config, num_images) + search_effort(config, num_images)
    return Effort()
