"""A search that was stopped, killed or damaged, and resumed, is the uninterrupted one, bit for bit."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_search import STEPS_PER_EPOCH, KilledError, TinyRun, at_step, kill, press_ctrl_c, tiny_config
from torch import Tensor

from dsonas_hw.errors import RunError, UserError
from dsonas_hw.train.loop import Interrupted

NUM_STEPS = 7 * STEPS_PER_EPOCH
CONFIGS: dict[str, dict[str, Any]] = {
    # mac=12k of about 30k: the controller works to the end, blocks are pruned on the way.
    "full": {"budget": ["mac=12k"], "search": {}},
    "share": {
        "budget": ["flops=200k"],
        "space": {"share": True},
        "search": {"adaptive": "block", "w_steps": 2},
    },
    "no budget": {"budget": [], "search": {"gamma": 0.03}},
    "marginal": {"budget": ["mac=12k"], "search": {"adaptive": "marginal", "path_strength": True}},
}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], TinyRun]:
    """By name of the configuration; each is run once."""
    runs: dict[str, TinyRun] = {}

    def get(name: str) -> TinyRun:
        if name not in runs:
            runs[name] = TinyRun(tmp_path_factory.mktemp("whole") / "run", tiny_config(**CONFIGS[name]))
            runs[name].run()
        return runs[name]

    return get


def assert_identical(a: Any, b: Any, where: str = "state") -> None:
    if isinstance(a, Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_identical(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for index, pair in enumerate(zip(a, b, strict=True)):
            assert_identical(*pair, f"{where}[{index}]")
    else:
        assert a == b, where


def assert_same_end(run: TinyRun, whole: TinyRun) -> None:
    for name in ("path.jsonl", "lambda.jsonl"):
        assert run.log(name) == whole.log(name), name
    assert run.metrics() == whole.metrics()
    states = [r.directory.load_checkpoint("search")[0] for r in (run, whole)]
    for state in states:
        assert state is not None
        del state["elapsed_s"], state["log_sizes"]
    assert_identical(*states)


def resume_in_new_process(run: TinyRun) -> TinyRun:
    """What a new process would know: the directory."""
    again = object.__new__(TinyRun)
    again.directory, again.space, again.dataset = run.directory, run.space, run.dataset
    again.config = run.directory.load_config()
    again.run(resume=True)
    return again


def test_the_example_prunes_and_is_steered(uninterrupted: Callable[[str], TinyRun]) -> None:
    search = uninterrupted("full").search
    assert search is not None
    assert search.steering.controller is not None
    assert not search.parts.supernet.alive.all()
    rows = uninterrupted("full").metrics()
    assert sum(row.get("cost_ratio", 0.0) > 1.0 for row in rows) >= 3  # not at rest after the first epochs


@pytest.mark.parametrize("step", [3, STEPS_PER_EPOCH, STEPS_PER_EPOCH + 1, 20, 24, 25, NUM_STEPS - 1])
def test_ctrl_c_at_any_moment(tmp_path: Path, uninterrupted: Callable[[str], TinyRun], step: int) -> None:
    run = TinyRun(tmp_path / "run", tiny_config(**CONFIGS["full"]))
    with pytest.raises(Interrupted, match=rf"go on with: dsonas-hw search --resume {run.directory.path}$"):
        run.run(progress=at_step(step, press_ctrl_c))
    assert_same_end(resume_in_new_process(run), uninterrupted("full"))


@pytest.mark.parametrize("name", ["share", "no budget", "marginal"])
def test_ctrl_c_again_and_again(tmp_path: Path, uninterrupted: Callable[[str], TinyRun], name: str) -> None:
    run, resume, times = TinyRun(tmp_path / "run", tiny_config(**CONFIGS[name])), False, 0
    while True:
        try:
            run.run(resume=resume, progress=at_step(9, press_ctrl_c))
            break
        except Interrupted:
            resume, times = True, times + 1
    assert times >= 2
    assert_same_end(run, uninterrupted(name))


@pytest.mark.parametrize("step", [3, STEPS_PER_EPOCH + 3, 28])
def test_a_kill_at_any_moment(tmp_path: Path, uninterrupted: Callable[[str], TinyRun], step: int) -> None:
    run = TinyRun(tmp_path / "run", tiny_config(**CONFIGS["full"]))
    with pytest.raises(KilledError):
        run.run(progress=at_step(step, kill))
    assert_same_end(resume_in_new_process(run), uninterrupted("full"))


def test_a_kill_that_tore_the_last_lines(tmp_path: Path, uninterrupted: Callable[[str], TinyRun]) -> None:
    run = TinyRun(tmp_path / "run", tiny_config(**CONFIGS["full"]))
    with pytest.raises(KilledError):
        run.run(progress=at_step(33, kill))
    for name in ("path.jsonl", "metrics.jsonl"):
        with open(run.directory.log_path(name), "a") as file:
            file.write('{"step": 4')
    assert_same_end(resume_in_new_process(run), uninterrupted("full"))


def test_the_second_ctrl_c_stops_at_once(tmp_path: Path) -> None:
    run = TinyRun(tmp_path / "run", tiny_config(**CONFIGS["full"]))

    def twice() -> None:
        press_ctrl_c()
        press_ctrl_c()

    with pytest.raises(KeyboardInterrupt):
        run.run(progress=at_step(20, twice))


def test_sigterm_is_as_polite(tmp_path: Path, uninterrupted: Callable[[str], TinyRun]) -> None:
    run = TinyRun(tmp_path / "run", tiny_config(**CONFIGS["full"]))
    with pytest.raises(Interrupted):
        run.run(progress=at_step(21, lambda: os.kill(os.getpid(), signal.SIGTERM)))
    assert_same_end(resume_in_new_process(run), uninterrupted("full"))


def test_a_corrupt_newest_checkpoint_costs_an_epoch_not_the_run(
    tmp_path: Path, uninterrupted: Callable[[str], TinyRun], caplog: pytest.LogCaptureFixture
) -> None:
    run = TinyRun(tmp_path / "run", tiny_config(**CONFIGS["full"]))
    with pytest.raises(Interrupted):
        run.run(progress=at_step(27, press_ctrl_c))
    newest = run.directory.list_checkpoints("search")[-1]
    newest.write_bytes(newest.read_bytes()[:1000])
    run.run(resume=True)  # says it without a progress bar
    assert [newest.name in text and "falling back" in text for text in caplog.messages] == [True]
    assert_same_end(run, uninterrupted("full"))


def test_falling_back_to_before_the_first_architecture(
    tmp_path: Path, uninterrupted: Callable[[str], TinyRun]
) -> None:
    run = TinyRun(tmp_path / "run", tiny_config(**CONFIGS["full"]))
    with pytest.raises(Interrupted):
        run.run(progress=at_step(STEPS_PER_EPOCH + 2, press_ctrl_c))
    assert run.directory.log_path("path.jsonl").stat().st_size > 0
    run.directory.list_checkpoints("search")[-1].write_bytes(b"")
    assert_same_end(resume_in_new_process(run), uninterrupted("full"))


def test_only_corrupt_checkpoints_are_an_error(tmp_path: Path) -> None:
    run = TinyRun(tmp_path / "run", tiny_config(**CONFIGS["full"]))
    with pytest.raises(KilledError):
        run.run(progress=at_step(30, kill))
    for path in run.directory.list_checkpoints("search"):
        path.write_bytes(b"noise")
    with pytest.raises(RunError, match="no checkpoint"):
        run.run(resume=True)


def test_resuming_a_finished_search_does_nothing(
    tmp_path: Path, uninterrupted: Callable[[str], TinyRun]
) -> None:
    run = TinyRun(tmp_path / "run", tiny_config(**CONFIGS["full"]))
    first = run.run()
    run.directory.log("metrics.jsonl", {"stage": "retrain", "epoch": 1})  # a later stage's, to be kept
    before = {p: p.read_bytes() for p in run.directory.path.rglob("*") if p.is_file()}
    again = run.run(resume=True, progress=at_step(1, kill))
    assert again == first
    assert {p: p.read_bytes() for p in run.directory.path.rglob("*") if p.is_file()} == before


def test_resuming_where_nothing_was_saved_starts(
    tmp_path: Path, uninterrupted: Callable[[str], TinyRun]
) -> None:
    run = TinyRun(tmp_path / "run", tiny_config(**CONFIGS["full"]))
    run.run(resume=True)
    assert_same_end(run, uninterrupted("full"))


def test_starting_over_forgets_the_old_path(tmp_path: Path, uninterrupted: Callable[[str], TinyRun]) -> None:
    run = TinyRun(tmp_path / "run", tiny_config(**CONFIGS["full"]))
    with pytest.raises(KilledError):
        run.run(progress=at_step(30, kill))
    run.run()
    assert_same_end(run, uninterrupted("full"))


def test_a_checkpoint_of_another_search_is_refused(tmp_path: Path) -> None:
    run = TinyRun(tmp_path / "run", tiny_config(**CONFIGS["full"]))
    with pytest.raises(KilledError):
        run.run(progress=at_step(20, kill))
    other = TinyRun(tmp_path / "other", tiny_config(space={"channels": 8}))
    run.directory.checkpoints.rename(other.directory.checkpoints)
    with pytest.raises(UserError, match="is of another search"):
        other.run(resume=True)
    for path in other.directory.list_checkpoints("search"):
        torch.save({"epoch": 1}, path)
    with pytest.raises(UserError, match="is of another search"):
        other.run(resume=True)
