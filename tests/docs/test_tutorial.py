"""docs/tutorial.md runs as written, block by block: commands in this process, files where it says."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from dsonas_hw.cli.main import main
from dsonas_hw.study.engine import LocalEngine
from dsonas_hw.study.job import run_job
from dsonas_hw.study.spec import Job

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.S | re.M)
FILE = re.compile(r"Save this as `([\w.]+)`")
FINE = (None, 0, 3)
"""Exit codes; 3 since the devices of the tutorial are not here: what is not counted is only estimated."""


def test_the_tutorial_runs_as_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pandas")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DSONAS_HW_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(LocalEngine, "start", run_here)  # a study's workers each take seconds to start
    names: dict[str, Any] = {}
    text = TUTORIAL.read_text(encoding="utf-8")
    blocks = list(BLOCK.finditer(text))
    assert {block[1] for block in blocks} == {"sh", "python", "yaml"}
    assert 2 * len(blocks) == text.count("```")
    for block in blocks:
        language, code = block.groups()
        if language == "sh":
            for line in code.splitlines():
                run(line)
        elif language == "python":
            exec(code, names)
        else:
            (name,) = FILE.findall(text[: block.start()])
            (tmp_path / name).write_text(code)
    for file in ("runs/first/report.html", "studies/first/report.html", "path.pdf", "front.pdf"):
        assert (tmp_path / file).stat().st_size > 1000
    assert "1080ti front:" in capsys.readouterr().out


class Done:
    """A job that has run in this process."""

    def poll(self) -> int:
        return 0

    def terminate(self) -> None: ...

    def wait(self) -> int:
        return 0


def run_here(engine: LocalEngine, job: Job, folder: Path, command: Sequence[str]) -> Done:
    run_job(folder)
    return Done()


def run(line: str) -> None:
    words = shlex.split(line)
    assert words[0] == "dsonas-hw"
    code: object = None
    try:
        main(words[1:])
    except SystemExit as end:
        code = end.code
    assert code in FINE, line
