"""A retraining in a helper process: it does what rank 0 says (`train.distributed`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from dsonas_hw.config import RetrainConfig, build_config
from dsonas_hw.run_directory import RunDirectory
from dsonas_hw.train import distributed
from dsonas_hw.train.data_batches import BatchCursor
from dsonas_hw.train.images import load_data
from dsonas_hw.train.loop import StopSignal, resolve_train_device
from dsonas_hw.train.trainable import trainable_from_json
from dsonas_hw.train.trainer import Trainer

OpenTeacher = Callable[..., nn.Module | None]
"""`search.teacher.open_teacher`."""


def help_retrain(job: Mapping[str, Any], open_teacher: OpenTeacher) -> None:
    """Take part in the retraining that rank 0 began, to its end."""
    config = build_config(job["config"])
    dataset, device = load_data(config), resolve_train_device(job["device"])
    trainer = Trainer(
        trainable_from_json(job["architecture"], origin="rank 0"),
        dataset,
        RetrainConfig(**job["recipe"]),
        seed=config.seed,
        device=device,
        num_workers=config.data.num_workers,
        teacher=open_teacher(RunDirectory(Path(job["run"])), config, dataset, device=device),
    )
    trainer.load_state_dict(job["state"])
    cursor, stop = BatchCursor(trainer.batches), StopSignal()
    while True:
        match distributed.receive():
            case (distributed.STEP, epoch, step):
                trainer.epoch, trainer.step = epoch, step
                trainer.train_step(cursor.at(epoch, step))
            case (distributed.TEST, _, _):
                trainer.test(stop)
            case (distributed.COLLECT, _, _):
                trainer.meter.collect()
            case _:
                return
