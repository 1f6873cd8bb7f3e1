"""The check of a GPU, with steps that the test makes up: none stops the others, and one file comes of it."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import click
import pytest

from benchmarks import gpu_check
from benchmarks.gpu_check import Step, check, run_step, steps_for
from dsonas_hw.cli.main import cli
from dsonas_hw.runtime.detect import Detection, detect_devices


def python(name: str, code: str, seconds: int = 60) -> Step:
    import sys

    return Step(name=name, command=(sys.executable, "-S", "-c", code), seconds=seconds, module=False)


def test_a_step_that_fails_or_is_cut_or_missing_stops_no_other(tmp_path: Path) -> None:
    big = "open('big.json', 'w').write('x' * 10**7)"
    steps = [
        python("fails", "raise SystemExit('no GPU memory left')"),
        python("hangs", "import time; print('begun', flush=True); time.sleep(60)", seconds=5),
        Step(name="missing", command=("no-such-program",), seconds=60, module=False),
        python("works", f"import os; os.chdir({str(tmp_path)!r}); {big}; print('done')"),
    ]
    outcomes = check(steps, tmp_path, report=lambda line: None)
    assert [outcome.ended for outcome in outcomes] == ["exit code 1", "cut after 5 s", "not installed", "ok"]
    with zipfile.ZipFile(tmp_path / "gpu-check.zip") as archive:
        assert set(archive.namelist()) == {
            "fails.txt", "hangs.txt", "missing.txt", "works.txt", "outcomes.json",
        }  # fmt: skip  # big.json is too large
        assert "no GPU memory left" in archive.read("fails.txt").decode()
        assert "begun" in archive.read("hangs.txt").decode()
        assert len(json.loads(archive.read("outcomes.json"))) == 4


def test_all_steps_together_take_less_than_ten_minutes(tmp_path: Path) -> None:
    """Even if each takes all the time that it may."""
    now_s = 0.0

    def run(step: Step, folder: Path, seconds: float) -> str:
        nonlocal now_s
        now_s += seconds
        return "cut"

    steps = steps_for("h100", tmp_path)
    assert sum(step.seconds for step in steps) > gpu_check.TOTAL_SECONDS
    outcomes = check(steps, tmp_path, run=run, clock_s=lambda: now_s, report=lambda line: None)
    assert now_s <= 600
    assert outcomes[-1].ended == "no time left"


def test_every_command_is_one_that_the_programs_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)  # else the benchmarks refuse --device cuda
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    for step in steps_for("h100", tmp_path):
        module, *arguments = step.command
        if module == "dsonas_hw":
            command = cli.get_command(click.Context(cli), arguments[0])
            assert command is not None
            command.make_context(arguments[0], arguments[1:])
        elif module.startswith("benchmarks."):
            with pytest.raises(SystemExit) as ended:
                __import__(module, fromlist=["main"]).main([*arguments, "--help"])
            assert ended.value.code == 0


def test_without_a_gpu_the_reason_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    here = Detection(devices=detect_devices().devices[:1], no_gpu_reason="no NVIDIA driver: …")
    monkeypatch.setattr("dsonas_hw.runtime.detect.detect_devices", lambda: here)
    assert gpu_check.main(["--out", str(tmp_path / "new")]) == 2
    assert capsys.readouterr().err == "there is no GPU to check: no NVIDIA driver: …\n"
    assert not (tmp_path / "new").exists()


def test_a_folder_with_something_in_it_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    local = detect_devices().devices[0]
    from dataclasses import replace

    here = Detection(devices=(local, replace(local, name="h100", title="H100")), no_gpu_reason="")
    monkeypatch.setattr("dsonas_hw.runtime.detect.detect_devices", lambda: here)
    (tmp_path / "mine.txt").write_text("")
    assert gpu_check.main(["--out", str(tmp_path)]) == 2
    assert "choose another --out" in capsys.readouterr().err


def test_a_step_runs_with_a_data_directory_of_its_own(tmp_path: Path) -> None:
    step = python("home", "import os; print(os.environ['DSONAS_HW_HOME'])")
    assert run_step(step, tmp_path, 60) == "ok"
    assert (tmp_path / "home.txt").read_text().splitlines()[-1] == str(tmp_path / "home")
