"""A search that was interrupted: nothing takes it for a finished one, and what came of it goes stale."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
from command_messages import commands_in

from dsonas_hw import pipeline
from dsonas_hw.checkpoint_file import load_checkpoint_file
from dsonas_hw.errors import UserError
from dsonas_hw.files import read_json, read_json_lines
from dsonas_hw.run_directory import RunDirectory
from dsonas_hw.search.progress import unfinished_search

pytestmark = pytest.mark.usefixtures("no_tables")


@pytest.fixture
def interrupted(tiny_search: Path, tmp_path: Path) -> Path:
    """The run as it was when it was killed after three of four epochs."""
    path = shutil.copytree(tiny_search, tmp_path / "my run")
    run = RunDirectory(path)
    before, last = run.list_checkpoints("search")
    last.unlink()
    run.truncate_logs(load_checkpoint_file(before)["log_sizes"])
    run.architecture_path.unlink()
    return path


def typed(command: str) -> list[str]:
    return shlex.split(command)[1:]


@pytest.mark.parametrize("command", ["derive", "retrain", "report"])
def test_an_interrupted_search_says_so_and_names_both_ways_on(
    command: str, interrupted: Path, dsonas: Any
) -> None:
    message = dsonas(command, interrupted).refused()
    assert f"the search of {interrupted} is not finished (3 of 4 epochs)" in message
    go_on, take = map(typed, commands_in(message))
    assert go_on == ["search", "--resume", str(interrupted)]
    if command == "retrain":  # there is no architecture yet
        assert take == ["derive", str(interrupted), "--unfinished"]
    else:
        assert take == [command, str(interrupted), "--unfinished"]
    said = dsonas(*take)
    assert said.code == 0, said.err
    assert "is not finished (3 of 4 epochs)" in said.err


def test_a_search_that_another_process_is_at_is_not_to_be_gone_on_with(
    interrupted: Path, dsonas: Any
) -> None:
    with RunDirectory(interrupted).lock():
        message = dsonas("derive", interrupted).refused()
    assert "another process is at it" in message
    assert [typed(command)[0] for command in commands_in(message)] == ["derive"]


def test_the_options_that_were_given_are_in_the_advice(interrupted: Path, dsonas: Any) -> None:
    options = ["--budget", "mac=9k,8k", "--out", "an other"]
    take = typed(commands_in(dsonas("derive", interrupted, *options).refused())[1])
    assert take == ["derive", *map(str, [interrupted, *options]), "--unfinished"]


def test_what_is_derived_elsewhere_stays_unfinished(interrupted: Path, tmp_path: Path, dsonas: Any) -> None:
    out = tmp_path / "out"
    said = dsonas("derive", interrupted, "--unfinished", "--out", out)
    assert f"next: dsonas-hw retrain {out} --unfinished" in said.out
    assert "--unfinished" in dsonas("retrain", out).refused()
    dsonas("report", out, "--unfinished")
    assert "THE SEARCH IS NOT FINISHED" in (out / "report.html").read_text()


@pytest.mark.parametrize("command", ["search", "run"])
def test_a_search_that_goes_on_to_another_architecture_makes_stale_what_came_of_the_first(
    command: str, interrupted: Path, tiny_search: Path, monkeypatch: pytest.MonkeyPatch, dsonas: Any
) -> None:
    def deployed(*args: Any, **options: Any) -> None:
        raise UserError("deployed")

    monkeypatch.setattr(pipeline, "_deploy_until_it_holds", deployed)
    run = RunDirectory(interrupted)
    dsonas("derive", interrupted, "--unfinished", "--step", "0")
    first = read_json(run.architecture_path)
    for stage in (["retrain", interrupted, "--unfinished"], ["export", interrupted]):
        assert dsonas(*stage).code == 0
    run.validation_path.write_text("{}")
    dsonas("report", interrupted, "--unfinished")
    said = dsonas(command, "--resume", interrupted)
    expected = (0, False) if command == "search" else (2, True)
    assert (said.code, "error: deployed" in said.err) == expected, said.err
    (line,) = (line for line in said.err.splitlines() if line.startswith("stale: "))
    for name in ("weights.npz", "retrain.json", "model.onnx", "infer.py", "validation.json"):
        assert name in line
        assert (run.stale / name).exists()
        assert not (run.path / name).exists()
    assert read_json(run.stale / "architecture.json") == first
    assert read_json(run.architecture_path) == read_json(tiny_search / "architecture.json") != first
    assert run.list_checkpoints("retrain") == []
    assert "train first" in dsonas("export", interrupted).refused()
    if command == "search":  # `run` writes the page at its end
        page = run.report_path.read_text()
        assert "in stale/ are stale" in page
        assert "THE SEARCH IS NOT FINISHED" not in page


def test_a_search_that_goes_on_to_the_same_architecture_keeps_what_came_of_it(
    tiny_search: Path, tmp_path: Path, dsonas: Any
) -> None:
    path = shutil.copytree(tiny_search, tmp_path / "run")
    run = RunDirectory(path)
    run.list_checkpoints("search")[-1].unlink()
    run.truncate_logs(load_checkpoint_file(run.list_checkpoints("search")[-1])["log_sizes"])
    (path / "weights.npz").write_text("trained")
    said = dsonas("search", "--resume", path)
    assert said.code == 0, said.err
    assert "stale" not in said.err
    assert (path / "weights.npz").exists()
    assert run.log_path("path.jsonl").read_bytes() == (tiny_search / "path.jsonl").read_bytes()


def test_a_finished_search_that_is_resumed_leaves_the_architecture_as_it_is(
    tiny_search: Path, tmp_path: Path, dsonas: Any
) -> None:
    path = shutil.copytree(tiny_search, tmp_path / "run")
    dsonas("derive", path, "--step", "0")
    before = read_json(path / "architecture.json")
    said = dsonas("search", "--resume", path, "--json")
    assert "has ended before" in said.err
    assert (said.json["width"], said.json["step"]) == (before["width"], 0)
    assert read_json(path / "architecture.json") == before


def test_progress_is_told_from_the_log(tiny_search: Path, tmp_path: Path) -> None:
    path = shutil.copytree(tiny_search, tmp_path / "run")
    run, rows = RunDirectory(path), read_json_lines(path / "metrics.jsonl")
    assert unfinished_search(run) is None
    for kept in range(4):
        run.log_path("metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:kept]))
        assert unfinished_search(run) == f"{kept} of 4 epochs"
    shutil.rmtree(run.checkpoints)
    run.log_path("metrics.jsonl").unlink()
    assert unfinished_search(run) is None  # a block that was carried over: an architecture and its path
    run.architecture_path.unlink()
    assert unfinished_search(run) == "0 of 4 epochs"  # killed in its first epoch
