"""A retraining in a helper process: it does what rank 0 says (`train.distributed`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dsonas_hw.architecture.architecture import architecture_from_json
from dsonas_hw.config import RetrainConfig, build_config
from dsonas_hw.train import distributed
from dsonas_hw.train.data_batches import BatchCursor
from dsonas_hw.train.images import load_data
from dsonas_hw.train.loop import StopSignal, resolve_train_device
from dsonas_hw.train.trainer import Trainer


def help_retrain(job: Mapping[str, Any]) -> None:
    """Take part in the retraining that rank 0 began, to its end."""
    config = build_config(job["config"])
    trainer = Trainer(
        architecture_from_json(job["architecture"], origin="rank 0"),
        load_data(config),
        RetrainConfig(**job["recipe"]),
        seed=config.seed,
        device=resolve_train_device(job["device"]),
        num_workers=config.data.num_workers,
    )
    trainer.load_state_dict(job["state"])
    cursor, stop = BatchCursor(trainer.batches), StopSignal()
    while True:
        match distributed.hear():
            case (distributed.STEP, epoch, step):
                trainer.epoch, trainer.step = epoch, step
                trainer.train_step(cursor.at(epoch, step))
            case (distributed.TEST, _, _):
                trainer.test(stop)
            case (distributed.COLLECT, _, _):
                trainer.meter.collect()
            case _:
                return
