"""The command line, called as a user calls it, with a data directory of its own."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from dsonas_hw.cli.main import main


@dataclass(frozen=True)
class Result:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one object on stdout."""
        (line,) = self.out.splitlines()
        return json.loads(line)

    def refused(self) -> str:
        """The one line on stderr of a command that was refused."""
        assert (self.code, self.out) == (2, ""), self
        assert self.err.startswith("error: "), self.err
        assert self.err.count("\n") == 1, self.err
        return self.err


Call = Callable[..., Result]


@pytest.fixture(scope="session")
def dsonas() -> Call:
    """Call a command in this process."""

    def call(*args: str | Path) -> Result:
        out, err, code = io.StringIO(), io.StringIO(), 0
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                main([str(arg) for arg in args])
            except SystemExit as stop:
                code = int(stop.code or 0)
        return Result(code, out.getvalue(), err.getvalue())

    return call


@pytest.fixture(scope="session", autouse=True)
def no_timed_steps() -> Iterator[None]:
    """The estimate of a run's time without its timed steps (`tests/search/test_duration.py` has them)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dsonas_hw.search.duration._seconds_per_access", lambda *words: 1e-9)
        yield


@pytest.fixture(scope="session")
def tiny_search(tmp_path_factory: pytest.TempPathFactory, dsonas: Call) -> Path:
    """A finished search for mac=10k, of one epoch of pretraining and three of search; to be copied."""
    folder = tmp_path_factory.mktemp("tiny_search")
    config = {
        "preset": "digits",
        "data": {"subset": 128, "test_subset": 50},
        "space": {"levels": 2, "stages": [1], "channels": 8, "operations": ["sep3", "max3"]},
        "search": {"pretrain_epochs": 1, "epochs": 3, "batch_size": 16, "path_interval": 3,
                   "path_images": 32},
        "select": {"candidates": 0},
        "retrain": {"epochs": 1, "batch_size": 32},
        "budget": ["mac=10k"],
    }  # fmt: skip
    (folder / "tiny.yaml").write_text(yaml.safe_dump(config))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DSONAS_HW_HOME", str(folder / "home"))
        said = dsonas("search", "--config", folder / "tiny.yaml", "--out", folder / "run")
    assert said.code == 0, said.err
    return folder / "run"


@pytest.fixture
def no_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A data directory without profiles, in which `run` makes none."""
    from dsonas_hw import pipeline

    monkeypatch.setenv("DSONAS_HW_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(pipeline, "ensure_profile", lambda *args, **options: None)


@pytest.fixture
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of a new user, who has no profiles yet."""
    monkeypatch.setenv("DSONAS_HW_HOME", str(tmp_path / "home"))
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder
