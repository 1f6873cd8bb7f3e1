"""A GPU that is not here, from profile to report: everything says that it is estimated, and how far off."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto, helper, numpy_helper

from dsonas_hw.table.table import load_table

LOUD = "ESTIMATED, NOT MEASURED: latencies of 1080ti come from its datasheet; a network's may be off by"
TINY = {
    "preset": "digits",
    "data": {"subset": 128, "test_subset": 50},
    "space": {"levels": 2, "stages": [1, 1], "channels": 8, "operations": ["sep3", "max3"]},
    "search": {"pretrain_epochs": 0, "epochs": 2, "batch_size": 16, "path_images": 16},
    "retrain": {"epochs": 1, "batch_size": 32},
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("home")
        patch.setenv("DSONAS_HW_HOME", str(folder))
        yield folder


@pytest.fixture(scope="module")
def run(home: Path, tmp_path_factory: pytest.TempPathFactory, dsonas: Any) -> Path:
    """Searched for a 1080 Ti without any step before, retrained and exported."""
    folder = tmp_path_factory.mktemp("work")
    config, out = folder / "tiny.yaml", folder / "run"
    config.write_text(yaml.safe_dump(TINY))
    options = ("--config", config, "--device", "1080ti")
    costs = dsonas("search", *options, "--dry-run", "--json").json["costs"]
    limit = 0.95 * costs["complete supernet"]["latency_ms"]
    result = dsonas("search", *options, "--budget", f"latency={limit:.6f}ms", "--out", out)
    assert result.code == 0, result.err
    assert result.err.count(LOUD) == 1
    assert "predicted, undisturbed, from estimated kernels" in result.out
    for command in ("retrain", "export"):
        assert dsonas(command, out).code == 0
    return out


def test_the_run_keeps_where_its_costs_come_from(run: Path, dsonas: Any) -> None:
    derived = json.loads((run / "architecture.json").read_text())["derived"]
    assert derived["source"] == "estimated"
    assert derived["disclaimer"].startswith(LOUD)
    result = dsonas("derive", run, "--json")
    assert result.json["source"] == "estimated"
    assert result.err.count(LOUD) == 1


def test_the_verdict_and_the_page_are_marked(run: Path, dsonas: Any) -> None:
    result = dsonas("validate", run)
    assert result.code == 3, result.err
    assert "estimated  holds" in result.out
    assert "estimated, not validated: 1080ti is not here" in result.out
    assert result.out.count(LOUD) == 1
    validation = json.loads((run / "validation.json").read_text())
    assert validation["source"] == "estimated"
    assert validation["budgets"][0]["measured"] is None
    assert validation["disclaimer"].startswith(LOUD)
    assert dsonas("report", run).code == 0
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "ESTIMATED, NOT VALIDATED" in page
    assert "off by about ±" in page


def test_profile_lists_estimates_and_says_so(home: Path, dsonas: Any) -> None:
    result = dsonas("profile", "--device", "1080ti", "--preset", "digits", "--json")
    assert result.code == 3
    assert "ESTIMATED, NOT MEASURED" in result.err
    assert result.json["source"] == "estimated"
    assert 0.1 < result.json["expected_error"] < 1
    table = load_table(Path(result.json["table"]))
    assert table.header.source == "estimated"
    assert {row.source for row in table.kernels.values()} == {"estimated"}
    assert len(table.kernels) == result.json["num_kernels"]


def test_measuring_what_is_not_here_is_refused(home: Path, dsonas: Any) -> None:
    assert "is not here" in dsonas("profile", "--device", "h100", "--mode", "measure").refused()
    assert not (home / "profiles" / "h100").exists()


@pytest.mark.parametrize("option", ["--check", "--width", "--resolution"])
def test_what_is_for_measuring_is_refused_where_nothing_is_measured(
    option: str, home: Path, dsonas: Any
) -> None:
    line = dsonas("profile", "--device", "h100", option, "8").refused()
    assert f"{option} is for what is measured, and h100 would be estimated" in line
    assert not (home / "profiles" / "h100").exists()


def _network(path: Path, *, num_unknown: int) -> Path:
    weights = numpy_helper.from_array(np.zeros((8, 3, 3, 3), np.float32), "w")
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1] * 4),
        helper.make_node("Relu", ["c"], ["y0"]),
    ]
    for i in range(num_unknown):
        nodes.append(helper.make_node("Fancy", [f"y{i}"], [f"y{i + 1}"], domain="my", name=f"fancy{i}"))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 32, 32])],
        [helper.make_tensor_value_info(f"y{num_unknown}", TensorProto.FLOAT, [1, 8, 32, 32])],
        [weights],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("my", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def test_a_prediction_is_marked(home: Path, tmp_path: Path, dsonas: Any) -> None:
    path = _network(tmp_path / "plain.onnx", num_unknown=0)
    result = dsonas(
        "predict", path, path, "--device", "titan-xp", "--runtime", "eager", "--batch-size", "256"
    )
    assert result.code == 3
    assert result.err.count(LOUD.replace("1080ti", "titan-xp")) == 1
    assert result.out.count("predicted from estimated kernels of titan-xp") == 2
    found = dsonas("predict", path, "--device", "titan-xp", "--json").json
    assert (found["source"], found["unknown_kernels"]) == ("estimated", [])
    assert 0 < found["latency_ms_low"] < found["latency_ms"] < found["latency_ms_high"]


def test_a_network_that_is_mostly_unknown_is_refused(home: Path, tmp_path: Path, dsonas: Any) -> None:
    known = dsonas("predict", _network(tmp_path / "one.onnx", num_unknown=1), "--device", "1080ti", "--json")
    assert known.json["unknown_kernels"] == ["Fancy (fancy0)"]
    path = _network(tmp_path / "most.onnx", num_unknown=6)
    refused = dsonas("predict", path, "--device", "1080ti", "--json")
    assert refused.code == 2
    assert "6 operations" in refused.err
    assert (refused.json["latency_ms"], refused.json["at_least"]) == (None, True)
    text = dsonas("predict", path, "--device", "1080ti")
    assert "multiply-adds (flops) at least 221.2k, memory access (mac) at least 11.48k" in text.out


def test_one_file_that_cannot_be_predicted_does_not_cost_the_others(
    home: Path, tmp_path: Path, dsonas: Any
) -> None:
    good, bad = _network(tmp_path / "good.onnx", num_unknown=0), tmp_path / "bad.onnx"
    bad.write_text("not a network")
    result = dsonas("predict", bad, good, bad, "--device", "1080ti", "--json")
    assert result.code == 2
    assert json.loads(result.out)["model"] == str(good)
    assert result.err.count(f"no prediction of {bad}") == 2
    assert "2 of 3 files" in result.err
