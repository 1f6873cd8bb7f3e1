"""retrain, export and validate as a user types them, on a run that has an architecture."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from dsonas_hw.architecture.architecture import complete_architecture
from dsonas_hw.architecture.costs import TargetCosts
from dsonas_hw.cli.main import main
from dsonas_hw.config import build_config, load_preset, overlay
from dsonas_hw.files import write_json
from dsonas_hw.run_directory import RunDirectory
from dsonas_hw.space.space import SearchSpace

RECIPE = {"epochs": 1, "batch_size": 32, "aux_weight": 0.4}


def new_run(path: Path, **limits: float) -> RunDirectory:
    """A run whose architecture has been derived for these budgets."""
    space = {"levels": 1, "stages": [1, 1], "channels": 4, "operations": ["sep3", "max3"]}
    changes = {
        "data": {"subset": 100, "test_subset": 70},
        "space": space,
        "retrain": RECIPE,
        "budget": [f"{name}={limit:g}{'ms' if name == 'latency' else ''}" for name, limit in limits.items()],
    }
    config = build_config(overlay(load_preset("digits"), changes))
    run = RunDirectory(path)
    run.create(config)
    searched = SearchSpace(**config.space.model_dump(), input_shape=(1, 8, 8), num_classes=10)
    data = complete_architecture(searched).to_json()
    write_json(run.architecture_path, {**data, "derived": {"budgets": config.budget, "limits": limits}})
    return run


@pytest.fixture
def no_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    from dsonas_hw import task

    monkeypatch.setattr(task, "target_costs", lambda target, **options: TargetCosts())


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    run = new_run(tmp_path_factory.mktemp("runs") / "run", mac=1e6, latency=1e6)
    assert call("retrain", str(run.path)) == 0
    assert call("export", str(run.path)) == 0
    return run


def call(*args: str) -> int:
    """Exit code of a command."""
    try:
        main(list(args))
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def test_from_weights_to_verdict(
    trained: RunDirectory, no_profile: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("validate", str(trained.path), "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads(trained.validation_path.read_text())
    assert (printed["holds"], printed["source"], printed["device"]) == (True, "measured", "local")
    assert (
        printed["test_accuracy"] == json.loads((trained.path / "retrain.json").read_text())["test_accuracy"]
    )
    assert call("validate", str(trained.path)) == 0
    text = capsys.readouterr().out
    assert "every budget holds, measured on local (ort-cpu, fp32, batch 1)" in text
    assert "counted  holds" in text
    assert re.search(r"measured, median \(\S+ms to \S+ms\)  holds", text)
    assert re.search(r"latency measured: p50 \S+ms, p95 \S+ms, p99 \S+ms.*; the median lies within", text)


@pytest.mark.parametrize("limits", [{"mac": 1e3}, {"latency": 1e-6}])
def test_a_missed_budget_is_exit_1(
    tmp_path: Path, trained: RunDirectory, no_profile: None, limits: dict[str, float], capsys: Any
) -> None:
    run = new_run(tmp_path / "run", **limits)
    run.model_path.write_bytes(trained.model_path.read_bytes())
    assert call("validate", str(run.path)) == 1
    captured = capsys.readouterr()
    assert "MISSED" in captured.out
    assert "not every budget holds" in captured.out


def test_an_undecided_budget_is_exit_1_and_one_line_says_what_would_decide_it(
    tmp_path: Path, trained: RunDirectory, no_profile: None, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    from dsonas_hw.deploy import export_and_validate as stages
    from dsonas_hw.deploy.measure import TargetMeasurement
    from dsonas_hw.measure.measurement import LatencyMeasurement, Turn

    # Half of the 12 rounds take 1 ms, the others 2 ms: the median lies between the two.
    samples = (1.0,) * 600 + (2.0,) * 600
    latency = LatencyMeasurement(
        samples_ms=samples, converged=True, turns=(Turn(num_warmup=1, num_samples=100, low_ms=1.0),) * 12
    )
    found = TargetMeasurement(
        latency=latency, energy=None, runtime="ort-cpu", versions={}, device_title="a machine"
    )
    monkeypatch.setattr(stages, "measure_on_target", lambda *args, **options: found)
    run = new_run(tmp_path / "run", latency=1.6)
    run.model_path.write_bytes(trained.model_path.read_bytes())
    assert call("validate", str(run.path)) == 1
    out = capsys.readouterr().out
    assert "UNDECIDED" in out
    assert "not every budget holds" in out
    (line,) = [line for line in out.splitlines() if line.startswith("undecided: ")]
    assert "the median lies within 1ms to 2ms, and the limit too. latency=2.002ms would hold" in line
    assert call("validate", str(run.path), "--statistic", "p95", "--json") == 1
    (budget,) = json.loads(capsys.readouterr().out)["budgets"]
    assert (budget["statistic"], budget["verdict"], budget["holds"]) == ("p95", "undecided", None)


def test_the_statistic_is_stored_with_the_run(
    trained: RunDirectory, no_profile: None, tmp_path: Path, capsys: Any
) -> None:
    run = new_run(tmp_path / "run", latency=1e6)
    run.model_path.write_bytes(trained.model_path.read_bytes())
    run.config_path.write_text(run.config_path.read_text().replace("statistic: p50", "statistic: p95"))
    assert call("validate", str(run.path), "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["statistic"], printed["budgets"][0]["statistic"]) == ("p95", "p95")


def test_an_absent_device_is_exit_3(
    tmp_path: Path, trained: RunDirectory, no_profile: None, capsys: pytest.CaptureFixture[str]
) -> None:
    run = new_run(tmp_path / "run", mac=1e6)
    run.model_path.write_bytes(trained.model_path.read_bytes())
    text = run.config_path.read_text().replace("device: local", "device: h100")
    run.config_path.write_text(text)
    assert call("validate", str(run.path)) == 3
    assert "estimated, not validated: h100 is not here" in capsys.readouterr().out
    assert json.loads(run.validation_path.read_text())["source"] == "estimated"


def test_a_runtime_that_cannot_run_here_gives_its_reason(
    trained: RunDirectory, no_profile: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("validate", str(trained.path), "--runtime", "ort-cuda") == 2
    assert "ort-cuda" in capsys.readouterr().err
    assert call("validate", str(trained.path), "--runtime", "cuda") == 2
    assert "unknown runtime 'cuda'" in capsys.readouterr().err


def test_retraining_twice_is_asked_for(trained: RunDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("retrain", str(trained.path)) == 2
    assert "go on with --resume or start over with --restart" in capsys.readouterr().err
    assert call("retrain", str(trained.path), "--resume", "--restart") == 2
    assert call("retrain", str(trained.path), "--resume", "--json") == 0
    assert json.loads(capsys.readouterr().out)["epochs"] == 1


def test_starting_over_drops_what_came_of_the_old_weights(
    tmp_path: Path, trained: RunDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    run = new_run(tmp_path / "run", mac=1e6)
    run.model_path.write_bytes(trained.model_path.read_bytes())
    assert call("retrain", str(run.path), "--restart", "--epochs", "2") == 0
    assert "after 2 epochs" in capsys.readouterr().out
    assert not run.model_path.exists()


def test_exported_batch_is_the_target_s_or_open(
    tmp_path: Path, trained: RunDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    import onnx

    def batch() -> Any:
        dimension = onnx.load(trained.model_path).graph.input[0].type.tensor_type.shape.dim[0]
        return dimension.dim_param or dimension.dim_value

    assert batch() == 1
    assert call("export", str(trained.path), "--dynamic-batch", "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["batch_size"], summary["engine"]) == (None, None)
    assert summary["relative_output_error"] < 1e-3
    assert batch() == "batch"
    assert call("export", str(trained.path), "--batch-size", "8") == 0
    assert batch() == 8
    assert call("export", str(trained.path)) == 0
    assert batch() == 1


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("retrain", "{empty}"), "is not a run directory"),
        (("export", "{untrained}"), "train first: dsonas-hw retrain"),
        (("validate", "{untrained}"), "run: dsonas-hw export"),
        (("export", "{trained}", "--precision", "fp16"), "--format tensorrt"),
        (("export", "{trained}", "--dynamic-batch", "--batch-size", "2"), "give one of them"),
        (("retrain", "{untrained}", "--train-on", "tpu"), "cannot train on 'tpu'"),
        (("retrain", "{untrained}", "--epochs", "0"), "epochs"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(
    tmp_path: Path,
    trained: RunDirectory,
    no_profile: None,
    capsys: pytest.CaptureFixture[str],
    args: tuple[str, ...],
    message: str,
) -> None:
    untrained = new_run(tmp_path / "untrained", mac=1e6)
    places = {"empty": tmp_path / "empty", "untrained": untrained.path, "trained": trained.path}
    capsys.readouterr()
    assert call(*(arg.format(**places) for arg in args)) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_an_engine_needs_a_gpu(trained: RunDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("a GPU is here")
    capsys.readouterr()
    assert call("export", str(trained.path), "--format", "tensorrt") == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize("command", ["retrain", "export", "validate"])
def test_help_has_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(command, "--help") == 0
    assert f"dsonas-hw {command} runs/" in capsys.readouterr().out
