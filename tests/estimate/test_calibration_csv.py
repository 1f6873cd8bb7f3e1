"""The CSV of a calibration, from bytes to a stored file."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from dsonas_hw.errors import ModelFileError, ProfileError
from dsonas_hw.estimate.calibrated import load_calibration
from dsonas_hw.estimate.calibration_csv import load_networks, read_calibration_rows
from dsonas_hw.estimate.estimate import load_estimate
from dsonas_hw.kernel.network import Schedule, ScheduledKernel
from dsonas_hw.kernel.onnx.from_onnx import OnnxNetwork
from dsonas_hw.kernel.spec import Kernel
from dsonas_hw.profile.calibrate_device import calibrate_device
from dsonas_hw.target import Target

HEADER = "model,batch_size,latency_ms\n"


def _write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_reads_rows_in_any_column_order(tmp_path: Path) -> None:
    path = _write(
        tmp_path / "m.csv",
        "\ufeffLatency_ms, batch ,model_path,\n1.5,8,a.onnx\n2,8,/b.onnx,\n\n3e0,1,c.onnx,\n",
    )
    rows = read_calibration_rows(path)
    assert [(row.line, row.model, row.batch_size, row.latency_ms) for row in rows] == [
        (2, tmp_path / "a.onnx", 8, 1.5),
        (3, Path("/b.onnx"), 8, 2.0),
        (5, tmp_path / "c.onnx", 1, 3.0),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "lacks the columns model, batch_size, latency_ms"),
        ("model,batch_size,latency_s\n", "latency_s.*seconds"),
        ("model,batch_size,latency\n", "milliseconds"),
        (HEADER + "a,1,1\nb,1,1\n", "2 measured networks; a calibration takes 3 to 50"),
        (HEADER + "a,1,1\n" * 51, "51 measured"),
        (HEADER + "a,1\n", "line 2: 2 values"),
        (HEADER + "a,64,4,9\n", "line 2: 4 values, 3 columns; if 4,9 is one number, write 4.9"),
        (HEADER + "a,64,4.9,ms\n", "line 2: 4 values, 3 columns; remove 'ms'"),
        (HEADER + "a,1,1\n" + 'b,64,"4,9"\n', "line 3: latency_ms .*'4,9'; write 4.9"),
        (HEADER + "a,1,1_000\n", "line 2: latency_ms .*'1_000'"),
        (HEADER + "a;1;1\n", r"line 2: 1 values.*by commas, not by semicolons"),
        ("model;batch_size;latency_ms\n", r"line 1: .*semicolons \(;\)"),
        ("model\tbatch_size\tlatency_ms\n", "line 1: .*tabs"),
        ("model,batch,latency_ms,batch_size\n", "line 1: the column batch_size is there twice"),
        ("model,batch,latency_ms,latency_ms\n", "line 1: the column latency_ms is there twice"),
        ("model,batch,latency_ms,note\na,1,4,9\n", "line 1: the column 'note' is not known; remove it"),
        (HEADER + ",1,1\n", "line 2: no model"),
        (HEADER + "a,1,nan\n", "line 2: latency_ms"),
        (HEADER + "a,1,-3\n", "positive"),
        (HEADER + "a,1,fast\n", "'fast'"),
        (HEADER + "a,1.5,3\n", "whole number"),
        (HEADER + "a,0,3\n", "batch_size must be a positive"),
        (HEADER + "a,9e9,3\n", "line 2: batch_size is at most 1,000,000, not 9e9"),
        (HEADER + "a,1,1\n" + 'b,"1,1\nc,1,1\n', r'line 3: a quote \("\) is never closed'),
        (HEADER + 'a,"1"x,1\n', "line 2: .* expected after"),
    ],
)
def test_refuses_with_the_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ProfileError, match=message):
        read_calibration_rows(_write(tmp_path / "m.csv", text))


def test_refuses_what_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    with pytest.raises(ProfileError, match="cannot read"):
        read_calibration_rows(path)
    path.write_bytes(b"\xff\xfe\x00\x01" * 10)
    with pytest.raises(ProfileError, match="UTF-8"):
        read_calibration_rows(path)


def _network(kernels: list[Kernel], unknown: tuple[str, ...] = ()) -> OnnxNetwork:
    steps = tuple(ScheduledKernel(kernel=kernel, reads=(), writes="y") for kernel in kernels)
    return OnnxNetwork(
        schedule=Schedule(kernels=steps, inputs={}, outputs=frozenset()),
        unknown=unknown,
        unknown_fraction=math.inf if unknown else 0.0,
        params=0,
        precision="fp32",
        flops_in={},
        batch_size=1,
        input_shapes={},
        notes=(),
    )


def test_a_model_that_is_mostly_unknown_is_refused(tmp_path: Path) -> None:
    rows = read_calibration_rows(_write(tmp_path / "m.csv", HEADER + "a,1,1\n" * 3))
    calls = []

    def read(path: Path, batch_size: int) -> OnnxNetwork:
        calls.append(path)
        return _network([], unknown=("Strange (x)", "Odd (y)"))

    with pytest.raises(ProfileError, match=r"line 2.*Strange"):
        load_networks(rows, read)
    kernel = Kernel(op="unary", inputs=((1, 8),), output=(1, 8), function="relu")
    calls.clear()

    def known(path: Path, batch_size: int) -> OnnxNetwork:
        calls.append(path)
        return _network([kernel])

    assert len(load_networks(rows, known)) == 3
    assert len(calls) == 1  # one model, read once


def _model(path: Path, channels: int, depth: int) -> None:
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    nodes, weights, name = [], [], "x"
    for index in range(depth):
        shape = (channels, 3 if index == 0 else channels, 3, 3)
        weights.append(numpy_helper.from_array(np.zeros(shape, np.float32), f"w{index}"))
        nodes.append(helper.make_node("Conv", [name, f"w{index}"], [f"c{index}"], pads=[1] * 4))
        nodes.append(helper.make_node("Relu", [f"c{index}"], [f"r{index}"]))
        name = f"r{index}"
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 32, 32])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", channels, 32, 32])],
        weights,
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def test_rows_of_one_network_are_repeats_not_contradictions(tmp_path: Path) -> None:
    _model(tmp_path / "a.onnx", 32, 4)
    _model(tmp_path / "b.onnx", 64, 4)
    for rows, message in (("a.onnx,8,1\n" * 4, "the 4 rows are of 1 network,"), (
        "a.onnx,8,1\n" * 2 + "b.onnx,8,2\n", "the 3 rows are of 2 networks,",
    )):  # fmt: skip
        with pytest.raises(ProfileError, match=message):
            calibrate_device(_write(tmp_path / "m.csv", HEADER + rows), device="1080ti", runtime="eager")


def test_from_files_to_a_stored_calibration(tmp_path: Path) -> None:
    from dsonas_hw.kernel.onnx.from_onnx import network_from_onnx

    estimate = load_estimate(Target(device="titan-xp", runtime="eager", batch_size=64))
    lines = []
    for index, (channels, depth) in enumerate([(32, 4), (64, 6), (96, 3), (64, 10)]):
        path = tmp_path / f"{index}.onnx"
        _model(path, channels, depth)
        kernels = network_from_onnx(path, batch_size=64, fuse=False).kernels
        lines.append(f"{path.name},64,{1.4 * estimate.predict(kernels).value}")
    csv = _write(tmp_path / "m.csv", HEADER + "\n".join(lines) + "\n")
    calibration, path = calibrate_device(
        csv, device="Titan Xp", runtime="eager", precision="fp32", directory=tmp_path / "profiles"
    )
    assert path == tmp_path / "profiles" / "titan-xp" / "eager-fp32.calibration.json"
    assert load_calibration(path) == calibration
    assert calibration.mape < 0.1 < calibration.mape_before
    assert math.isclose(calibration.mape_before, 0.4 / 1.4, rel_tol=1e-6)
    (tmp_path / "0.onnx").unlink()
    with pytest.raises(ModelFileError):
        calibrate_device(csv, device="Titan Xp", runtime="eager", precision="fp32", directory=tmp_path)
