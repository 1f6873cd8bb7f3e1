"""`derive` for several budgets and for a point of the path, and the commands that lead there."""

from __future__ import annotations

import json
import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command_messages import commands_in

from dsonas_hw import pipeline
from dsonas_hw.cli.validate import repair_command
from dsonas_hw.deploy.validate import BudgetVerdict, load_validation
from dsonas_hw.files import read_json, read_json_lines, write_json
from dsonas_hw.pipeline import Outcome
from dsonas_hw.run_directory import RunDirectory

pytestmark = pytest.mark.usefixtures("no_tables")


@pytest.fixture
def run(tiny_search: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_search, tmp_path / "my run"))


def test_several_limits_give_a_network_each_in_a_run_of_its_own(run: Path, dsonas: Any) -> None:
    said = dsonas("derive", run, "--budget", "mac=9k,7k", "--budget", "flops=100k", "--json")
    found = [json.loads(line) for line in said.out.splitlines()]
    assert [item["budget"] for item in found] == [["mac=9k", "flops=100k"], ["mac=7k", "flops=100k"]]
    for item, limit in zip(found, (9000, 7000), strict=True):
        path = Path(item["run"])
        assert path.parent == run.parent
        assert 0 < item["predicted"]["mac"] <= limit
        assert read_json(path / "architecture.json")["derived"]["limits"] == {"mac": limit, "flops": 1e5}
        for log in ("path.jsonl", "lambda.jsonl", "metrics.jsonl"):
            assert (path / log).read_bytes() == (run / log).read_bytes()
    again = dsonas("derive", run, "--budget", "mac=9k,7k", "--out", run.parent / "by mac").out
    assert [Path(shlex.split(c)[2]).name for c in commands_in(again)] == ["mac-9k", "mac-7k"]


def test_nothing_is_written_unless_every_budget_can_be_served(run: Path, dsonas: Any) -> None:
    assert "no architecture of this path meets mac=1.5k" in (
        dsonas("derive", run, "--budget", "mac=9k,1.5k").refused()
    )
    assert [path.name for path in run.parent.iterdir() if path.is_dir()] == ["my run"]
    (run.parent / "my run-mac-7k").mkdir()
    (run.parent / "my run-mac-7k" / "thesis.txt").write_text("mine")
    assert "is not a run" in dsonas("derive", run, "--budget", "mac=9k,7k").refused()
    assert not (run.parent / "my run-mac-9k").exists()


def test_a_point_that_was_seen_on_the_page_is_taken(run: Path, dsonas: Any) -> None:
    points = read_json_lines(run / "path.jsonl")
    seen = points[len(points) // 2]
    found = dsonas("derive", run, "--step", str(seen["step"]), "--json").json
    assert found["step"] == seen["step"]
    assert found["predicted"]["mac"] <= 10_000
    stored = read_json(run / "architecture.json")
    assert stored["blocks"] == seen["blocks"]
    free = next(step for step in range(1000) if step not in {point["step"] for point in points})
    assert f"has no point at step {free}; near it are" in dsonas("derive", run, "--step", str(free)).refused()


def test_an_architecture_that_training_has_begun_of_is_not_replaced(run: Path, dsonas: Any) -> None:
    assert dsonas("derive", run).code == 0
    RunDirectory(run).save_checkpoint("retrain", 1, {})
    assert dsonas("derive", run).code == 0  # the same one
    assert (
        "holds the training of another architecture" in dsonas("derive", run, "--budget", "mac=7k").refused()
    )
    assert dsonas("derive", run, "--budget", "mac=7k", "--out", run.parent / "other").code == 0


@pytest.mark.parametrize("command", ["run", "search"])
def test_another_budget_of_a_run_that_goes_on_names_the_command_that_serves_it(
    command: str, run: Path, dsonas: Any
) -> None:
    (run.parent / "my run-mac-7k").mkdir()
    message = dsonas(command, "--resume", run, "--budget", "mac=7k").refused()
    (serve,) = commands_in(message)
    assert shlex.split(serve)[-1] == f"{run}-mac-7k-2"
    assert dsonas(*shlex.split(serve)[1:]).code == 0
    (run / "metrics.jsonl").unlink()
    message = dsonas(command, "--resume", run, "--budget", "mac=7k", "--profiles", "my tables").refused()
    finish, serve = map(shlex.split, commands_in(message))
    assert finish[1:] == ["run", "--resume", str(run), "--profiles", "my tables"]
    assert serve[-2:] == finish[-2:]


def test_a_miss_names_the_command_that_repairs_it(
    run: Path, dsonas: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    dsonas("retrain", run)
    dsonas("export", run)
    path = run / "architecture.json"
    stored = read_json(path)
    limit = 0.95 * stored["derived"]["predicted"]["mac"]
    stored["derived"] |= {"budgets": [f"mac={limit}"], "limits": {"mac": limit}}
    write_json(path, stored)
    said = dsonas("validate", run)
    assert said.code == 1
    (repair,) = commands_in(said.out)
    assert f"next: {repair}" in said.out
    assert shlex.split(repair)[1:] == ["run", "--resume", str(run)]
    said = dsonas(*shlex.split(repair)[1:])
    assert said.code == 0, said.err
    found = read_json(run / "validation.json")["budgets"]
    assert [(b["limit"], b["holds"]) for b in found] == [(limit, True)]

    # As another percentile, another device or only an estimate would miss it: a run under tighter limits.
    validation, directory = load_validation(run / "validation.json"), RunDirectory(run)
    assert validation is not None
    target = directory.load_config().target.model_copy(update={"statistic": "p95"})
    repair = repair_command(directory, validation, target, Path("my tables"))
    assert shlex.split(repair)[1:4] == ["derive", str(run), "--budget"]
    assert shlex.split(repair)[-2:] == ["--profiles", "my tables"]

    # A run that ends without a network that holds: further ones, or where there are none another search.
    missed = BudgetVerdict(
        name="latency", limit=2.0, predicted=None, measured=2.0, high=4.0, verdict="undecided", holds=None,
        statistic="p50", low=1.0,
    )  # fmt: skip
    validation = replace(validation, budgets=(missed,), holds=False)
    repairs = []
    for exhausted in (False, True):
        outcome = Outcome(validation=validation, exhausted=exhausted)
        monkeypatch.setattr(pipeline, "run_all", lambda *args, outcome=outcome, **options: outcome)
        said = dsonas("run", "--resume", run)
        assert said.code == 1
        (repair,) = commands_in(said.out)
        repairs.append(shlex.split(repair)[1:])
    assert repairs[0] == ["run", "--resume", str(run)]
    limits = "latency=0.97ms"  # 2 ms · 0.97 / (4 ms / 2 ms)
    assert repairs[1][:5] == ["run", "--config", str(run / "config.yaml"), "--budget", limits]
    assert dsonas(*repairs[1], "--dry-run").code == 0
