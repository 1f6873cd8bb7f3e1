"""An energy budget from the profile to the report, on a made-up GPU behind the compiled stub of NVML."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from nvml_stub import build_stub
from stand_in import CARD, NAME, TINY, write_card

from dsonas_hw.table.table import load_table

CONFIG = TINY | {
    "select": {"candidates": 0},
    "target": {"device": CARD, "runtime": NAME},
    "train_on": "cpu",
}
LIMIT_MJ = 80.0


@dataclass(frozen=True, kw_only=True)
class Done:
    """What the commands left behind."""

    home: Path
    run: Path
    results: list[Any]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Done:
    folder = tmp_path_factory.mktemp("energy")
    home, run, config = folder / "home", folder / "run", folder / "tiny.yaml"
    write_card(home, has_energy_counter=True)
    config.write_text(yaml.safe_dump(CONFIG))
    commands = [
        ["run", "--config", str(config), "--budget", f"energy={LIMIT_MJ:g}mJ", "--out", str(run)],
        ["predict", str(run / "model.onnx"), "--device", "made-up", "--runtime", "stand-in", "--json"],
        ["search", "--config", str(config), "--device", "1080ti", "--runtime", "ort-cuda",
         "--budget", "energy=1J"],
        ["run", "--config", str(config), "--device", "local", "--runtime", "ort-cpu",
         "--budget", "energy=1J"],
    ]  # fmt: skip
    environment = {
        **os.environ, "DSONAS_HW_HOME": str(home), "LD_LIBRARY_PATH": str(build_stub(folder)),
        "STUB_NAME": "Made Up 1", "STUB_CORES": "1280", "STUB_MIB": "8192", "STUB_MAJOR": "8",
        "STUB_MINOR": "6",
    }  # fmt: skip
    script = Path(__file__).with_name("metered_card.py")
    finished = subprocess.run(
        [sys.executable, script, json.dumps(commands)],
        env=environment, cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    return Done(home=home, run=run, results=json.loads(finished.stdout))


def test_the_table_holds_energies_of_networks_and_kernels(done: Done) -> None:
    table = load_table(done.home / "profiles" / "made-up" / "stand-in-fp32-b1.jsonl")
    assert set(table.corrections) == {"latency", "energy"}
    assert all(network.energy_mj for network in table.networks)
    assert all(row.energy_mj for row in table.kernels.values())
    (check,) = table.checks.values()
    assert check.energy_error is not None
    assert check.energy_error.mape < 0.05


def test_the_search_is_steered_by_energy_and_the_verdict_is_measured(done: Done) -> None:
    code, _, err = done.results[0]
    assert code == 0, done.results[0]
    assert "γ by energy" in err
    found = json.loads((done.run / "validation.json").read_text())
    (verdict,) = found["budgets"]
    assert (verdict["name"], verdict["verdict"], verdict["statistic"]) == ("energy", "holds", "mean")
    assert 0.5 * LIMIT_MJ < verdict["low"] <= verdict["measured"] <= verdict["high"] <= LIMIT_MJ
    assert verdict["predicted"] == pytest.approx(verdict["measured"], rel=0.1)
    assert found["energy"]["method"] == "counter"
    page = (done.run / "report.html").read_text()
    assert "energy" in page
    assert "mean, " in page


def test_a_file_s_energy_is_predicted(done: Done) -> None:
    code, out, _ = done.results[1]
    assert code == 0, done.results[1]
    predicted = json.loads(out)
    assert predicted["source"] == "measured"
    measured = json.loads((done.run / "validation.json").read_text())["energy"]["energy_mj"]
    assert predicted["energy_mj_low"] < predicted["energy_mj"] < predicted["energy_mj_high"]
    assert predicted["energy_mj"] == pytest.approx(measured, rel=0.1)


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (2, "energy of 1080ti is not known: it is measured, never estimated; where the card is, measure it "
            "with: dsonas-hw profile --device 1080ti --runtime ort-cuda"),
        (3, "energy of local with ort-cpu is not known: only NVIDIA GPUs are asked for it, through their "
            "driver (NVML)"),
    ],
)  # fmt: skip
def test_what_has_no_meter_here_is_refused_in_one_line(done: Done, command: int, reason: str) -> None:
    assert done.results[command] == [2, "", f"error: {reason}\n"]
