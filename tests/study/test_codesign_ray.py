"""A real co-design study by worker processes, of this machine's own and of Ray: equal results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_study import TINY

from dsonas_hw.files import read_json, read_json_lines
from dsonas_hw.study.codesign import Codesign, save_codesign
from dsonas_hw.study.codesign_jobs import finished_derivations, network_jobs, search_jobs
from dsonas_hw.study.codesign_plan import plan_codesign
from dsonas_hw.study.codesign_result import load_result
from dsonas_hw.study.engine import Engine, LocalEngine
from dsonas_hw.study.ray_engine import RayEngine
from dsonas_hw.study.scheduler import run_jobs


def run_study(path: Path, study: Codesign, engine: Engine) -> None:
    save_codesign(path, study)
    searches = search_jobs(study)
    assert run_jobs(path, searches, num_workers=2, engine=engine) == []
    networks = network_jobs(study, finished_derivations(path, searches))
    assert run_jobs(path, networks, num_workers=2, engine=engine) == []


def findings(path: Path) -> dict[str, Any]:
    """Every result, log and path of a study's jobs, without the seconds they took."""
    files = {
        **{file: [read_json(file)] for file in path.glob("jobs/*/result.json")},
        **{file: read_json_lines(file) for file in path.glob("jobs/*/run/*.jsonl")},
    }
    return {
        str(file.relative_to(path)): [{k: v for k, v in row.items() if k != "seconds"} for row in rows]
        for file, rows in files.items()
    }


def test_two_ray_workers_find_what_local_processes_find(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    monkeypatch.setenv("DSONAS_HW_HOME", str(tmp_path / "home"))
    study = plan_codesign(["1080ti", "v100"], ["mac=20k"], TINY)
    run_study(tmp_path / "here", study, LocalEngine())
    engine = RayEngine("local", num_workers=2)
    try:
        run_study(tmp_path / "ray", study, engine)
    finally:
        engine.close()
    here, ray = findings(tmp_path / "here"), findings(tmp_path / "ray")
    assert any(name.startswith("jobs/train-") for name in here)
    assert ray == here
    assert load_result(tmp_path / "ray") == load_result(tmp_path / "here")
