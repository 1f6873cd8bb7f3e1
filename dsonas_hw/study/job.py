"""One job of a study, run in a process of its own: `python -m dsonas_hw.study.job JOBS/NAME`.

A job's directory is a run directory with `job.json` (what to do) and, when it is done, `result.json`. A job
that was killed goes on from its checkpoint; a finished one is never run again.
"""

from __future__ import annotations

import os
import signal
import stat
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from dsonas_hw.architecture.architecture import complete_architecture
from dsonas_hw.architecture.fit import budget_ratio
from dsonas_hw.architecture.graph import block_segments
from dsonas_hw.architecture.onnx import build_onnx
from dsonas_hw.architecture.transfer import choose_block, transfer_block
from dsonas_hw.budget import Budget, parse_budgets
from dsonas_hw.config import RunConfig
from dsonas_hw.errors import UserError, one_line
from dsonas_hw.files import read_json, write_json
from dsonas_hw.run_directory import RunDirectory
from dsonas_hw.search.choose import save_architecture, search_path
from dsonas_hw.search.derive import derive_architecture, serving_points
from dsonas_hw.search.path import PathPoint, load_path
from dsonas_hw.study.codesign_work import KINDS
from dsonas_hw.study.hand_made_work import HAND_MADE_KINDS
from dsonas_hw.study.job_files import DESCRIPTION, REMOVE, RESULT, read_stored
from dsonas_hw.study.measured import describe, measure_target
from dsonas_hw.study.random_points import random_point
from dsonas_hw.study.spec import Job
from dsonas_hw.study.work import Work
from dsonas_hw.task import Task, prepare_task
from dsonas_hw.train.images import space_of_config


def run_job(path: Path) -> dict[str, Any]:
    """Do a job, or read its result if it is done.

    Raises:
        UserError: whatever went wrong, in one line.
    """
    if (path / RESULT).exists():
        result: dict[str, Any] = read_json(path / RESULT)
        return result
    work = Work(path, read_stored(path / DESCRIPTION, Job, then=REMOVE))
    do: Callable[[Work], Any] = WORK.get(work.job.kind, _train)
    done = do(work)
    result = done.model_dump(mode="json") if isinstance(done, BaseModel) else done
    write_json(path / RESULT, result)
    return result


def _search(work: Work) -> dict[str, Any]:
    """One search, steered by the tightest of the job's budgets."""
    space = space_of_config(work.config)
    tightest = _tightest(work.config, space, [parse_budgets([text]) for text in work.job.budgets])
    config = work.config.model_copy(update={"budget": tuple(budget.exact for budget in tightest)})
    task = prepare_task(config, space)
    run, begun = work.open_run(config)
    pretrained = work.needed_run if work.job.needs else None
    with run.lock():
        result = search_path(run, task, work.load_data(), resume=begun, pretrained=pretrained)
    return {
        "num_points": result.num_points, "ratio": result.ratio, "has_landed": result.has_landed,
        "seconds": result.seconds,
    }  # fmt: skip


def _tightest(config: RunConfig, space: Any, choices: list[tuple[Budget, ...]]) -> tuple[Budget, ...]:
    """The budgets that leave least of the complete network."""
    target = prepare_task(config.model_copy(update={"budget": ()}), space).target
    return max(choices, key=lambda budgets: budget_ratio(complete_architecture(space), budgets, target))


def _train(work: Work) -> dict[str, Any]:
    """Derive (or draw) an architecture, fit it to the budget, train it, count and measure it."""
    from dsonas_hw.search.teacher import open_teacher
    from dsonas_hw.train.loop import resolve_train_device
    from dsonas_hw.train.retrain import retrain

    job, config, task = work.job, work.config, work.task
    run, begun = work.open_run()
    with run.lock():
        if job.kind == "searched":
            points = _points_of(work.needed_run, task)
        elif job.kind == "transferred":
            points = [_transferred_point(work.needed_run, task)]
        else:
            width = work.needed_result["width"] if job.needs else None
            points = [random_point(task, seed=str(job.seed), index=job.index, width=width)]
        derived = derive_architecture(points, task.budgets, task.target)
        save_architecture(run, derived, task)
        measured = None
        if job.measure:
            model = build_onnx(derived.architecture, batch_size=config.target.batch_size)
            found = measure_target(model.SerializeToString(), config)
            measured = describe(found, config, task.target.cost_model).model_dump(mode="json")
        dataset, device = work.load_data(), resolve_train_device(config.train_on)
        trained = retrain(
            run, config, derived.architecture, dataset, device=device, resume=begun,
            teacher=open_teacher(run, config, dataset, device=device),
        )  # fmt: skip
    return {
        "test_error": trained.test_error,
        "seconds": trained.seconds,
        "width": derived.architecture.width,
        "ratio_before_fit": derived.ratio_before_fit,
        "ratio": derived.ratio,
        "costs": derived.costs.to_dict(),
        "block_flops": [
            int(task.target.block_cost(b, "flops")) for b in block_segments(derived.architecture)
        ],
        "architecture": derived.architecture.to_json()["blocks"],
        "latency_measured": measured,
    }


def _space_json(task: Task) -> dict[str, Any]:
    space: dict[str, Any] = complete_architecture(task.space).to_json()["space"]
    return space


def _points_of(search: RunDirectory, task: Task) -> Sequence[PathPoint]:
    points = load_path(search, _space_json(task))
    return serving_points(points, gamma_control=task.config.search.gamma_control)


def _transferred_point(search: RunDirectory, task: Task) -> PathPoint:
    """The network of this task whose every block is the one that a search elsewhere found."""
    config = search.load_config()
    elsewhere = prepare_task(config, space_of_config(config))
    found = derive_architecture(_points_of(search, elsewhere), elsewhere.budgets, elsewhere.target)
    block = choose_block(found.architecture, None)
    width = task.config.retrain.width or task.space.channels
    return PathPoint(
        step=0, epoch=0, gamma=0.0, architecture=(network := transfer_block(block, task.space, width=width)),
        costs=task.target.costs(network), accuracy=None,
    )  # fmt: skip


WORK: dict[str, Callable[[Work], Any]] = {"search": _search, **KINDS, **HAND_MADE_KINDS}
"""Kind of a job → what does it; the others train one network each."""


def _stop_with_scheduler() -> None:
    """Stop, as by SIGTERM, when the scheduler is gone: then its end of our stdin closes."""

    def watch() -> None:
        os.read(0, 1)
        os.kill(os.getpid(), signal.SIGTERM)

    if stat.S_ISFIFO(os.fstat(0).st_mode):
        threading.Thread(target=watch, daemon=True).start()


def main() -> None:
    """Entry of the worker process: exit 0 done, 2 a user's mistake (its line on stderr)."""
    _stop_with_scheduler()
    try:
        run_job(Path(sys.argv[1]))
    except UserError as error:
        print(one_line(error), file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
