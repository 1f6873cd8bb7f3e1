"""`dsonas-hw calibrate` through the command line."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from dsonas_hw.cli.main import main


def _run(*args: str) -> int:
    try:
        main(list(args))
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def _onnx(path: Path, channels: int, depth: int) -> None:
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    nodes, weights, name = [], [], "x"
    for index in range(depth):
        shape = (channels, 3 if index == 0 else channels, 3, 3)
        weights.append(numpy_helper.from_array(np.zeros(shape, np.float32), f"w{index}"))
        nodes.append(helper.make_node("Conv", [name, f"w{index}"], [f"c{index}"], pads=[1] * 4))
        name = f"c{index}"
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 32, 32])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", channels, 32, 32])],
        weights,
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


@pytest.fixture
def measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """Five networks whose measured latency is 1.3 × what the estimate says."""
    lines = ["model,batch_size,latency_ms"]
    for index in range(5):
        path = tmp_path / f"{index}.onnx"
        _onnx(path, 32 * (1 + index % 3), 3 + index)
        _run("predict", str(path), "--device", "titan-xp", "--runtime", "eager", "--batch-size", "64",
             "--json", "--profiles", str(tmp_path / "p"))  # fmt: skip
        predicted = json.loads(capsys.readouterr().out)
        assert predicted["source"] == "estimated"
        lines.append(f"{path.name},64,{1.3 * predicted['latency_ms']}")
    csv = tmp_path / "measured.csv"
    csv.write_text("\n".join(lines) + "\n")
    return csv


def test_calibrate_then_predict(measured: Path, capsys: pytest.CaptureFixture[str]) -> None:
    profiles = str(measured.parent / "p")
    assert _run("calibrate", "--device", "titan-xp", str(measured), "--profiles", profiles, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["num_networks"] == 5
    assert result["mape"] < 0.05 < result["mape_before"]
    assert _run("calibrate", "--device", "titan-xp", str(measured), "--profiles", profiles) == 0
    assert "before" in capsys.readouterr().out
    model = str(measured.parent / "4.onnx")
    code = _run("predict", model, "--device", "titan-xp", "--runtime", "eager", "--batch-size", "64",
                "--json", "--profiles", profiles)  # fmt: skip
    predicted = json.loads(capsys.readouterr().out)
    assert predicted["source"] == "calibrated"
    wanted = float(measured.read_text().splitlines()[-1].split(",")[-1])
    assert predicted["latency_ms"] == pytest.approx(wanted, rel=0.05)
    assert code == 0
    _onnx(measured.parent / "tiny.onnx", 1, 1)
    tiny = str(measured.parent / "tiny.onnx")
    code = _run(
        "predict", tiny, "--device", "titan-xp", "--runtime", "eager", "--profiles", profiles, "--json"
    )
    assert json.loads(capsys.readouterr().out)["source"] == "estimated"
    assert code == 3


def test_profile_names_the_calibration_that_counts(
    measured: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    profile = ("profile", "--device", "titan-xp", "--runtime", "eager", "--preset", "digits", "--profiles",
               str(measured.parent / "p"))  # fmt: skip
    assert _run(*profile) == 3
    assert "calibration" not in capsys.readouterr().err
    assert _run("calibrate", "--device", "titan-xp", str(measured), "--profiles", profile[-1]) == 0
    capsys.readouterr()
    assert _run(*profile) == 3
    assert "use a calibration instead. CALIBRATED, NOT MEASURED" in capsys.readouterr().err


def test_seconds_are_refused_in_one_line(measured: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = measured.read_text().splitlines()
    rows = [line.split(",") for line in lines[1:]]
    measured.write_text("\n".join([lines[0], *(f"{m},{b},{float(t) / 1000}" for m, b, t in rows)]))
    assert _run("calibrate", "--device", "titan-xp", str(measured), "--profiles", str(measured.parent)) == 2
    error = capsys.readouterr().err
    assert "seconds" in error
    assert error.count("\n") == 1
    assert not list(measured.parent.glob("titan-xp/*"))


def test_the_cpu_is_not_calibrated(measured: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("calibrate", "--device", "local", str(measured)) == 2
    assert "measured, never estimated" in capsys.readouterr().err


def test_measurements_that_do_not_sharpen_are_told(
    measured: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = measured.read_text().splitlines()
    scattered = (1.25, 0.8, 1.2, 0.85, 1.0)
    rows = [(*line.split(",")[:2], float(line.split(",")[2]) / 1.3) for line in lines[1:]]
    measured.write_text(
        "\n".join([lines[0], *(f"{m},{b},{t * f}" for (m, b, t), f in zip(rows, scattered, strict=True))])
    )
    assert _run("calibrate", "--device", "titan-xp", str(measured), "--profiles", str(measured.parent)) == 0
    assert "do not sharpen" in capsys.readouterr().err


def test_operators_become_a_profile(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = random.Random(0)
    lines = ["batch,cin,hin,win,cout,k,stride,latency_ms"]
    for _ in range(40):
        c, size = rng.choice([16, 32, 64]), rng.choice([8, 16])
        lines.append(f"4,{c},{size},{size},{c},3,1,{0.01 + 4 * c * c * size * size * 9e-9}")
    source = tmp_path / "t.csv"
    source.write_text("\n".join(lines))
    arguments = ("calibrate", "--device", "v100", "--runtime", "tensorrt", "--operators", "--batch-size", "4",
                 str(source), "--profiles", str(tmp_path / "p"))  # fmt: skip
    assert _run(*arguments, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["num_rows"] == 40
    assert Path(result["table"]).exists()
    assert _run(*arguments) == 2
    assert "exists" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 1}, "schema version 1, this program reads"),
        ({"device": "v100"}, "of v100, eager, fp32, not of titan-xp, eager, fp32"),
        ({"precision": "fp16"}, "of titan-xp, eager, fp16, not of titan-xp, eager, fp32"),
        ({"base": "0" * 12}, "belongs to another estimate"),
        ({"mape": None}, "mape is None"),
    ],
)
def test_a_calibration_that_does_not_belong_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, object], message: str
) -> None:
    shipped = Path(__file__).parents[2] / "profiles" / "1080ti" / "eager-fp32.calibration.json"
    path = tmp_path / "titan-xp" / "eager-fp32.calibration.json"
    path.parent.mkdir()
    path.write_text(json.dumps(json.loads(shipped.read_text()) | {"device": "titan-xp"} | change))
    _onnx(tmp_path / "m.onnx", 32, 2)
    model = str(tmp_path / "m.onnx")
    assert (
        _run("predict", model, "--device", "titan-xp", "--runtime", "eager", "--profiles", str(tmp_path)) == 2
    )
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert str(path) in error
    assert message in error
    assert "calibrate" in error
    assert "or delete it" in error
