"""Local workers share this machine's GPUs evenly."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dsonas_hw.study.engine import LocalEngine, num_gpus, visible_gpus
from dsonas_hw.study.spec import Job

SHOW = "import os; print(os.environ.get('CUDA_VISIBLE_DEVICES'))"
WAIT = SHOW + "; import sys; sys.stdout.flush(); sys.stdin.read()"


def job(kind: Any = "train", **config: Any) -> Job:
    return Job(name="j", kind=kind, variant="v", budgets=(), seed=0, config=config)


def test_what_trains_takes_a_gpu_where_there_are_any() -> None:
    assert num_gpus(job("search"), available=4) == 1
    assert num_gpus(job(train_on="cuda"), available=1) == 1
    assert num_gpus(job(), available=0) == 0
    assert num_gpus(job(train_on="cpu"), available=4) == 0
    assert num_gpus(job(train_on="cuda:2"), available=4) == 0  # asked for by number: left to the job
    assert num_gpus(job("derive"), available=4) == 0


def test_each_worker_gets_the_gpu_that_fewest_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    engine = LocalEngine(gpus=["0", "1"])

    def start(name: str, code: str, what: Job) -> Any:
        (tmp_path / name).mkdir()
        return engine.start(what, tmp_path / name, (sys.executable, "-S", "-c", code))

    waiting = [start(name, WAIT, job()) for name in ("a", "b", "c")]
    start("d", SHOW, job()).wait()
    waiting[0].terminate()
    waiting[0].wait()
    waiting[2].terminate()
    waiting[2].wait()
    start("e", SHOW, job()).wait()
    start("f", SHOW, job("derive")).wait()
    waiting[1].terminate()
    waiting[1].wait()
    # a on 0, b on 1, c on 0, d on 1; a and c ended, so e on 0; f needs none.
    seen = {name: (tmp_path / name / "log.txt").read_text().strip() for name in "def"}
    assert seen == {"d": "1", "e": "0", "f": "None"}


def test_the_user_s_choice_of_gpus_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-abc")
    assert visible_gpus() == ["3", "GPU-abc"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert visible_gpus() == []


def test_gpus_are_named_by_uuid(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA numbers the fastest first, the driver by slot: on a mixed machine a number is another card."""

    class Driver:
        def gpus(self) -> list[Any]:
            return [SimpleNamespace(index=0, uuid="GPU-a"), SimpleNamespace(index=1, uuid=None)]

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("dsonas_hw.device.nvml.open_nvml", lambda: nullcontext(Driver()))
    assert visible_gpus() == ["GPU-a", "1"]
