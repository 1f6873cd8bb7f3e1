"""The kit's script runs where this tool is not, and what it writes is read back as a calibration."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dsonas_hw.architecture.architecture import complete_architecture
from dsonas_hw.architecture.costs import TargetCosts
from dsonas_hw.config import DeviceConfig, build_config, load_preset
from dsonas_hw.cost.model import Prediction
from dsonas_hw.deploy.kit import Kit, write_kit
from dsonas_hw.errors import DeviceError
from dsonas_hw.estimate.estimate import load_estimate
from dsonas_hw.kernel.onnx.from_onnx import network_from_onnx
from dsonas_hw.profile.calibrate_device import calibrate_device
from dsonas_hw.run_directory import RunDirectory
from dsonas_hw.search.path import PathPoint
from dsonas_hw.space.space import SearchSpace
from dsonas_hw.target import Target

TARGET = DeviceConfig(device="jetson-orin")
ALONE = """
import sys
for name in ("torch", "onnx", "PIL", "click", "dsonas_hw"):
    sys.modules[name] = None
sys.argv = sys.argv[1:]
import runpy
runpy.run_path(sys.argv[0], run_name="__main__")
"""
TRTEXEC = """#!{python}
import json, sys
options = dict(text.partition("=")[::2] for text in sys.argv[1:])
times = json.load(open({times!r}))
ms = times[options["--onnx"].rpartition("/")[2]]
json.dump([{{"computeMs": ms * f}} for f in (0.9, 1.0, 5.0)], open(options["--exportTimes"], "w"))
"""


@pytest.fixture
def kit(tmp_path: Path) -> Kit:
    run = RunDirectory(tmp_path / "run")
    run.create(build_config(load_preset("digits")))
    space = SearchSpace(levels=2, stages=(1, 1), channels=8, input_shape=(1, 8, 8))
    costs = TargetCosts(load_estimate(Target(device="jetson-orin", runtime="tensorrt")))
    for width in space.widths()[:20]:
        architecture = complete_architecture(space).with_width(width)
        point = PathPoint(
            step=0,
            epoch=0,
            gamma=0.0,
            architecture=architecture,
            costs=costs.costs(architecture),
            accuracy=None,
        )
        run.log("path.jsonl", point.to_json())
    return write_kit(run, complete_architecture(space), TARGET, costs, tmp_path / "kit")


def measure(kit: Kit, *options: str, path: Path | None = None) -> str:
    """What measure.py prints, run with the standard library, numpy and onnxruntime alone."""
    environment = os.environ | ({"PATH": f"{path}:{os.environ['PATH']}"} if path else {})
    done = subprocess.run(
        [sys.executable, "-c", ALONE, kit.folder / "measure.py", *options],
        capture_output=True, text=True, check=False, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_onnxruntime_times_every_network(kit: Kit) -> None:
    out = measure(kit, "--runtime", "ort-cpu", "--seconds", "0.02")
    rows = [line.split(",") for line in (kit.folder / "measured.csv").read_text().splitlines()]
    assert rows[0] == ["model", "batch_size", "latency_ms"]
    assert [row[0] for row in rows[1:]] == list(kit.networks)
    assert all(float(row[2]) > 0 for row in rows[1:])
    assert "calibrate no GPU" in out


def test_what_trtexec_times_is_read_back_as_a_calibration(kit: Kit, tmp_path: Path) -> None:
    model = load_estimate(Target(device="jetson-orin", runtime="tensorrt"))
    times = {
        name: 1.5 * model.predict(network_from_onnx(kit.folder / name, batch_size=1).kernels).value
        for name in kit.networks
    }
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "times.json").write_text(json.dumps(times))
    script = tools / "trtexec"
    script.write_text(TRTEXEC.format(python=sys.executable, times=str(tools / "times.json")))
    script.chmod(0o755)
    out = measure(kit, path=tools)
    read_back = f"dsonas-hw calibrate --device jetson-orin --runtime tensorrt --precision fp32 {kit.folder}"
    assert out.splitlines()[-1] == f"{read_back}/measured.csv"
    calibration, _ = calibrate_device(
        kit.folder / "measured.csv", device="jetson-orin", runtime="tensorrt", precision="fp32",
        directory=tmp_path / "profiles",
    )  # fmt: skip
    assert calibration.num_networks == len(kit.networks) == 8
    assert calibration.mape < 0.1 < calibration.mape_before


@pytest.mark.parametrize("target", [DeviceConfig(device="local"), DeviceConfig(device="t4", runtime="eager")])
def test_what_no_kit_can_time_is_refused(kit: Kit, target: DeviceConfig, tmp_path: Path) -> None:
    architecture = complete_architecture(SearchSpace(levels=1, stages=(1,), input_shape=(1, 8, 8)))
    with pytest.raises(DeviceError):
        write_kit(RunDirectory(tmp_path / "run"), architecture, target, TargetCosts(), tmp_path / "other")


def test_the_probability_is_that_of_the_interval() -> None:
    found = Prediction(value=2.0, low=1.0, high=4.0, source="estimated")
    assert found.probability_within(2.0) == pytest.approx(0.5)
    assert found.probability_within(4.0) == pytest.approx(0.95, abs=1e-3)
    assert found.probability_within(1.0) == pytest.approx(0.05, abs=1e-3)
