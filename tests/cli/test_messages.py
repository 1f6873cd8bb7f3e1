"""What messages tell the user to type: quoted, with the options that were given; closed pipes."""

from __future__ import annotations

import importlib.resources
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
import pytest
from command_messages import check, commands_in
from onnx import TensorProto, helper, numpy_helper

from dsonas_hw.errors import closest, command_line
from dsonas_hw.profile.open import Models
from dsonas_hw.table.commands import profile_command


def test_commands_are_found_in_messages() -> None:
    message = (
        "local has no profile; measure it with: dsonas-hw profile --device local --profiles '/tmp/a; b'\n"
        "unknown device. `dsonas-hw devices` lists all; see (dsonas-hw predict --help); dsonas-hw is one"
    )
    assert commands_in(message) == [
        "dsonas-hw profile --device local --profiles '/tmp/a; b'",
        "dsonas-hw devices",
        "dsonas-hw predict --help",
    ]
    for command in commands_in(message):
        check(command)


@pytest.mark.parametrize(
    "command",
    ["dsonas-hw profile --modle x.onnx", "dsonas-hw retrain", "dsonas-hw predict a.onnx --batch-size"],
)
def test_a_command_that_cannot_be_typed_is_noticed(command: str) -> None:
    with pytest.raises(click.ClickException):
        check(command)


def test_paths_with_blanks_are_quoted() -> None:
    assert command_line("run", "--resume", Path("my runs/a b")) == "dsonas-hw run --resume 'my runs/a b'"
    target = Models(device="local", runtime="ort-cpu", threads=2, profiles_directory=Path("/data/my tables"))
    command = target.profile_command(
        "fp32", 4, models=[Path("net a.onnx")], input_shapes={"my input": (4, 3, 64, 48)}
    )
    assert shlex.split(command)[1:] == [
        "profile", "--device", "local", "--batch-size", "4", "--threads", "2", "--model", "net a.onnx",
        "--input-shape", "my input=4x3x64x48", "--profiles", "/data/my tables",
    ]  # fmt: skip
    check(command)
    assert profile_command.__module__ == "dsonas_hw.table.commands"


def test_the_options_that_were_given_are_in_the_advice(empty_folder: Path, dsonas: Any) -> None:
    model = _model(empty_folder / "net a.onnx")
    message = dsonas("predict", model, "--profiles", "my tables", "--threads", "1").refused()
    assert commands_in(message) == ["dsonas-hw profile --device local --profiles 'my tables'"]
    message = dsonas(
        "search", "--dataset", "digits", "--budget", "latency=1ms", "--profiles", "t b"
    ).refused()
    assert commands_in(message) == ["dsonas-hw profile --device local --profiles 't b' --preset digits"]


@pytest.mark.parametrize(
    ("name", "known", "expected"),
    [
        ("FLOPs", ["flops", "mac"], "Did you mean flops?"),
        ("CIFAR-10", ["cifar10", "cifar100"], "Did you mean cifar10?"),
        ("Fashion MNIST", ["digits", "fashion-mnist"], "Did you mean fashion-mnist?"),
        ("zebra", ["flops", "mac"], "Known: flops, mac."),
    ],
)
def test_suggestions_ignore_case_and_hyphens(name: str, known: list[str], expected: str) -> None:
    assert closest(name, known) == expected


@pytest.mark.parametrize("arguments", [["devices"], ["devices", "--json"], ["devices", "1080ti"]])
def test_a_closed_pipe_ends_the_command_without_a_word(arguments: list[str]) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "dsonas_hw", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()  # before anything is written
    error = process.stderr.read()
    assert (process.wait(), error) == (141, b"")


def _model(
    path: Path, *, elem_type: int = TensorProto.FLOAT, shape: Any = (1, 8, 6, 6), quantised: bool = False
) -> Path:
    """One convolution of 8 channels."""
    dtype = helper.tensor_dtype_to_np_dtype(elem_type)
    stored = [numpy_helper.from_array(np.zeros((8, 8, 1, 1), dtype), "w")]
    nodes, x, w = [], "x", "w"
    if quantised:
        stored = [numpy_helper.from_array(np.zeros((8, 8, 1, 1), np.int8), "w")]
        stored += [
            numpy_helper.from_array(np.asarray(v), n) for n, v in (("s", np.float32(1)), ("z", np.int8(0)))
        ]
        nodes = [
            helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
            helper.make_node("DequantizeLinear", ["w", "s", "z"], ["e"]),
        ]
        x, w = "d", "e"
    nodes.append(helper.make_node("Conv", [x, w], ["y"]))
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", elem_type, shape)],
        [helper.make_tensor_value_info("y", elem_type, None)], stored,
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


class TestPrecision:
    def test_the_file_decides(self, tmp_path: Path, dsonas: Any) -> None:
        for options, name in (({}, "fp32"), ({"elem_type": TensorProto.FLOAT16}, "fp16"),
                              ({"quantised": True}, "int8")):  # fmt: skip
            found = dsonas(
                "predict", _model(tmp_path / "m.onnx", **options), "--device", "1080ti", "--json"
            ).json
            assert (found["precision"], found["file_precision"]) == (name, name)

    def test_a_contradiction_is_refused_by_name(self, tmp_path: Path, dsonas: Any) -> None:
        half = _model(tmp_path / "half.onnx", elem_type=TensorProto.FLOAT16)
        quantised = _model(tmp_path / "q.onnx", quantised=True)
        brain = _model(tmp_path / "brain.onnx", elem_type=TensorProto.BFLOAT16)
        double = _model(tmp_path / "double.onnx", elem_type=TensorProto.DOUBLE)
        plain = _model(tmp_path / "plain.onnx")
        gpu = ("--device", "t4")
        for arguments, message in (
            ((half, *gpu, "--precision", "fp32"), "computes in fp16, which contradicts --precision fp32"),
            ((half,), "computes in fp16; ort-cpu is known in fp32"),
            ((quantised, *gpu, "--precision", "fp16"), "computes in int8, which contradicts"),
            ((quantised, *gpu, "--runtime", "eager"), "computes in int8; eager is known in fp32, fp16"),
            ((plain, *gpu, "--runtime", "ort-tensorrt", "--precision", "int8"), "quantise it first"),
            ((brain, *gpu), "computes in bf16; .*--precision fp16 takes it for fp16"),
            ((double,), "computes in fp64; ort-cpu is known in fp32: export it in fp32"),
            ((double, *gpu, "--precision", "fp16"), "computes in fp64; .*: export it in fp32 or fp16"),
        ):
            assert re.search(message, dsonas("predict", *arguments).refused())
        for model in (half, quantised):
            assert "do not belong in a table of fp32" in dsonas("profile", "--model", model).refused()

    def test_a_conversion_is_said(self, tmp_path: Path, dsonas: Any) -> None:
        plain = _model(tmp_path / "plain.onnx")
        result = dsonas("predict", plain, "--device", "t4", "--precision", "fp16")
        assert "fp16 (file: fp32)" in result.out
        assert "is an fp32 file" in result.err


class TestSizes:
    def test_open_sizes_are_asked_for_and_given(self, tmp_path: Path, dsonas: Any) -> None:
        model = _model(tmp_path / "open.onnx", shape=("N", 8, "H", "W"))
        gpu = ("--device", "1080ti", "--json")
        message = dsonas("predict", model, *gpu).refused()
        advice = shlex.split(message.partition("for example ")[2])
        assert advice == ["--input-shape", "x=1x8x224x224"]
        assert dsonas("predict", model, *gpu, *advice).json["flops"] == 224 * 224 * 64
        found = dsonas("predict", model, *gpu, "--input-shape", "x=2x8x6x5").json
        assert (found["batch_size"], found["flops"], found["input_shapes"]) == (
            2,
            2 * 30 * 64,
            {"x": [2, 8, 6, 5]},
        )
        for sizes, more, message in (
            ("x=2x8x6x5", ["--batch-size", "3"], "the batch is given as 3 and as 2"),
            ("x=1x7x6x5", [], "dimension 1 .* is fixed at 8"),
            ("x=1x8x6", [], "3 dimensions"),
            ("y=1x8x6x5", [], "no input is called 'y'"),
            ("x", [], "not NAME=SIZES"),
            ("x=1xax2", [], "not NAME=SIZES"),
        ):
            refused = dsonas("predict", model, *gpu, "--input-shape", sizes, *more).refused()
            assert re.search(message, refused), refused
        fixed = dsonas("predict", _model(tmp_path / "fixed.onnx"), *gpu, "--input-shape", "y=1x8x6x5")
        assert "no input is called 'y'" in fixed.refused()
        assert not fixed.out, "before anything is predicted"

    def test_all_that_are_open_are_asked_for_at_once(self, tmp_path: Path, dsonas: Any) -> None:
        inputs = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in (("a", ["N", 1, "H", "W"]), ("b", ["N", "H", "W"]))
        ]
        nodes = [
            helper.make_node("Relu", ["a"], ["c"]),
            helper.make_node("Sigmoid", ["b"], ["d"]),
        ]
        outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "cd"]
        graph = helper.make_graph(nodes, "two", inputs, outputs)
        path = tmp_path / "two.onnx"
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
        gpu = ("--device", "1080ti", "--json")
        advice = shlex.split(dsonas("predict", path, *gpu).refused().partition("for example ")[2])
        assert advice == ["--input-shape", "a=1x1x224x224", "--input-shape", "b=1x224x224"]
        shapes = dsonas("predict", path, *gpu, *advice).json["input_shapes"]
        assert shapes == {"a": [1, 1, 224, 224], "b": [1, 224, 224]}

    def test_calibrate_and_profile_take_them_too(self, tmp_path: Path, dsonas: Any) -> None:
        _model(tmp_path / "open.onnx", shape=("N", 8, "H", "W"))
        csv = tmp_path / "m.csv"
        csv.write_text("model,batch_size,latency_ms\n" + "open.onnx,1,0.1\n" * 3)
        refused = dsonas("calibrate", "--device", "1080ti", csv).refused()
        assert f"{csv}: line 2: " in refused
        assert "--input-shape" in refused
        refused = dsonas("calibrate", "--device", "1080ti", csv, "--input-shape", "z=1x1").refused()
        assert "no input is called 'z'" in refused
        refused = dsonas("profile", "--model", tmp_path / "open.onnx").refused()
        assert "--input-shape x=1x8x224x224" in refused
        assert "is for the files of --model" in dsonas("profile", "--input-shape", "x=1").refused()


class TestDevices:
    @pytest.mark.parametrize(
        "arguments",
        [
            ["predict", "m.onnx"],
            ["profile"],
            ["search", "--dataset", "digits", "--budget", "latency=1ms", "--dry-run"],
            ["run", "--dataset", "digits", "--budget", "latency=1ms"],
            ["calibrate", "m.csv"],
        ],
    )
    def test_a_runtime_that_the_datasheet_excludes(
        self, arguments: list[str], empty_folder: Path, dsonas: Any
    ) -> None:
        _model(empty_folder / "m.onnx")
        (empty_folder / "m.csv").write_text("model,batch_size,latency_ms\n" + "m.onnx,1,0.1\n" * 3)
        for device, runtime in (("gtx980", "tensorrt"), ("1080ti", "ort-tensorrt")):
            refused = dsonas(*arguments, "--device", device, "--runtime", runtime).refused()
            assert f"{runtime} does not serve {device}" in refused

    def test_a_study_refuses_both_too(self, empty_folder: Path, dsonas: Any) -> None:
        options = ("--budget", "latency=1ms", "--dry-run", "--set", "target.device=gtx980")
        refused = dsonas("study", "table3", *options, "--set", "target.runtime=tensorrt").refused()
        assert "tensorrt does not serve gtx980" in refused
        own = empty_folder.parent / "home" / "devices"
        own.mkdir(parents=True)
        shipped = importlib.resources.files("dsonas_hw.devices") / "gtx980.toml"
        (own / "mycard.toml").write_text(shipped.read_text())
        assert "claimed by 2 files" in dsonas("study", "table3", *options).refused()
        codesign = ("--devices", "gtx980,v100", "--dataset", "digits", "--budget", "latency=1ms")
        assert "claimed by 2 files" in dsonas("study", "codesign", *codesign, "--dry-run").refused()

    def test_a_default_runtime_is_one_that_serves(self, tmp_path: Path, dsonas: Any) -> None:
        model = _model(tmp_path / "m.onnx")
        assert dsonas("predict", model, "--device", "gtx980", "--json").json["runtime"] == "ort-cuda"

    def test_a_name_that_two_files_claim(self, empty_folder: Path, dsonas: Any) -> None:
        own = empty_folder.parent / "home" / "devices"
        own.mkdir(parents=True)
        shipped = importlib.resources.files("dsonas_hw.devices") / "1080ti.toml"
        (own / "mycard.toml").write_text(shipped.read_text())
        model = _model(empty_folder / "m.onnx")
        for name in ("1080ti", "GTX 1080 Ti", "gtx-1080-ti"):
            message = dsonas("predict", model, "--device", name).refused()
            assert "claimed by 2 files" in message
            assert "mycard.toml" in message
        assert dsonas("predict", model, "--device", "mycard").code == 3
        assert "claimed by 2 files" in dsonas("devices").err
