"""Files that are missing, damaged, hostile or incomplete: one clear line each, nothing read outside."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper
from onnx_build import Build

from dsonas_hw.errors import ModelFileError
from dsonas_hw.kernel.onnx.from_onnx import network_from_onnx


def small_model() -> onnx.ModelProto:
    build = Build(1, 8, 4, 4)
    return build.model(build.add("Relu", build.conv("x", 8, 8, 3)))


def refused(model: object) -> str:
    """The one line that a model is refused with."""
    with pytest.raises(ModelFileError) as caught:
        network_from_onnx(model)  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 400
    return message


def missing(path: Path) -> None:
    pass


def empty(path: Path) -> None:
    path.touch()


def directory(path: Path) -> None:
    path.mkdir()


def text(path: Path) -> None:
    path.write_text("<!DOCTYPE html><html>Not found</html>")


def noise(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 20)


def torn(path: Path) -> None:
    content = small_model().SerializeToString()
    path.write_bytes(content[: len(content) // 2])


def sparse_giant(path: Path) -> None:
    with open(path, "wb") as file:
        file.truncate(3 * 1024**3)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (missing, "does not exist"),
        (empty, "is empty"),
        (directory, "irectory|cannot read|not a regular file"),
        (text, "not an ONNX file|names no version|holds no operations"),
        (noise, "not an ONNX file"),
        (torn, "not an ONNX file"),
        (sparse_giant, "larger than"),
    ],
)
def test_no_onnx_file(make: Callable[[Path], None], says: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    make(path)
    with pytest.raises(ModelFileError, match=says):
        network_from_onnx(path)
    refused(str(path))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_named_pipe_does_not_block(tmp_path: Path) -> None:
    pipe = tmp_path / "model.onnx"
    os.mkfifo(pipe)
    done: list[str] = []
    thread = threading.Thread(target=lambda: done.append(refused(pipe)), daemon=True)
    thread.start()
    thread.join(timeout=20)
    assert done
    assert "not a regular file" in done[0]


def test_a_path_with_a_nul_byte_is_refused() -> None:
    assert "cannot read" in refused("model\0.onnx")


def test_neither_file_nor_model() -> None:
    assert "got int" in refused(3)


def test_a_file_reads_like_the_model_it_holds(tmp_path: Path) -> None:
    onnx.save(small_model(), tmp_path / "model.onnx")
    assert network_from_onnx(tmp_path / "model.onnx") == network_from_onnx(small_model())


def test_a_model_without_operations() -> None:
    assert "no operations" in refused(onnx.ModelProto())


def test_an_ancient_opset() -> None:
    model = small_model()
    model.opset_import[0].version = 4
    assert "opset 11" in refused(model)
    del model.opset_import[:]
    assert "opset_import" in refused(model)


class TestExternalData:
    def external(self, location: str) -> onnx.ModelProto:
        model = small_model()
        (weight,) = model.graph.initializer
        weight.ClearField("raw_data")
        weight.data_location = TensorProto.EXTERNAL
        weight.external_data.add(key="location", value=location)
        return model

    @pytest.mark.parametrize("location", ["weights.bin", "data/weights.bin"])
    def test_is_never_opened_but_missed(self, location: str, tmp_path: Path) -> None:
        path = tmp_path / "model.onnx"
        model = self.external(location)
        model.graph.initializer[0].external_data.add(key="length", value="9")
        path.write_bytes(model.SerializeToString())
        (note,) = network_from_onnx(path).notes
        assert note.startswith(f"weights are missing: {location!r}")
        (tmp_path / location).parent.mkdir(exist_ok=True)
        (tmp_path / location).write_bytes(bytes(8))
        assert network_from_onnx(path).notes == (note,), "not whole"
        (tmp_path / location).write_bytes(bytes(9))
        assert network_from_onnx(path) == network_from_onnx(small_model())

    @pytest.mark.parametrize(
        "location", ["../secret", "/etc/passwd", "a/../../b", "C:\\x", "..\\x", "\\\\host\\x"]
    )
    def test_outside_the_directory_is_refused(self, location: str) -> None:
        assert "outside the model's directory" in refused(self.external(location))

    def test_a_shape_that_lies_there_is_unknown(self) -> None:
        build = Build(1, 8, 4, 4)
        model = build.model(build.add("Relu", build.add("Reshape", "x", build.ints(1, 128))))
        (shape,) = model.graph.initializer
        shape.ClearField("raw_data")
        shape.data_location = TensorProto.EXTERNAL
        shape.external_data.add(key="location", value="weights.bin")
        assert network_from_onnx(model).unknown == ("Relu (relu1)",)


def test_stripped_weights_are_enough() -> None:
    model = small_model()
    model.graph.initializer[0].ClearField("raw_data")
    assert network_from_onnx(model) == network_from_onnx(small_model())


class TestGraphs:
    def test_cycle(self) -> None:
        build = Build(1, 8)
        build.nodes.append(helper.make_node("Add", ["x", "b"], ["a"], name="first"))
        build.nodes.append(helper.make_node("Relu", ["a"], ["b"], name="second"))
        assert "cycle through" in refused(build.model("b"))

    def test_cycle_is_named_not_what_waits_behind_it(self) -> None:
        build = Build(1, 8)
        build.nodes.append(helper.make_node("Relu", ["b"], ["behind"]))
        build.nodes.append(helper.make_node("Add", ["x", "b"], ["a"]))
        build.nodes.append(helper.make_node("Relu", ["a"], ["b"]))
        said = refused(build.model("behind"))
        assert "cycle through Add (a)" in said or "cycle through Relu (b)" in said

    def test_operation_that_reads_itself(self) -> None:
        build = Build(1, 8)
        build.nodes.append(helper.make_node("Add", ["x", "a"], ["a"], name="snake"))
        assert "cycle through Add (snake)" in refused(build.model("a"))

    def test_tensor_that_nobody_makes(self) -> None:
        build = Build(1, 8)
        assert "'ghost', which nothing writes" in refused(build.model(build.add("Relu", "ghost")))
        build.nodes[-1].ClearField("name")
        assert "Relu (t0) of the ONNX model reads 'ghost'" in refused(build.model("t0"))

    def test_tensor_that_two_make(self) -> None:
        build = Build(1, 8)
        for _ in range(2):
            build.nodes.append(helper.make_node("Relu", ["x"], ["y"]))
        assert "two operations of the ONNX model write tensor 'y'" in refused(build.model("y"))

    def test_unsorted_operations_are_sorted(self) -> None:
        model = small_model()
        nodes = list(model.graph.node)[::-1]
        del model.graph.node[:]
        model.graph.node.extend(nodes)
        assert network_from_onnx(model) == network_from_onnx(small_model())

    def test_functions_that_call_each_other(self) -> None:
        build = Build(1, 8)
        model = build.model(build.add("F", "x", domain="local"), domains=[("local", 1)])
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
        for name, other in ("FG", "GF"):
            body = [helper.make_node(other, ["a"], ["b"], domain="local")]
            model.functions.append(helper.make_function("local", name, ["a"], ["b"], body, opsets))
        assert "calls itself" in refused(model)

    def test_functions_that_multiply(self) -> None:
        """Forty functions that call the next one twice: 2^40 operations from a file of 4 kB."""
        build = Build(1, 8)
        model = build.model(build.add("F0", "x", domain="local"), domains=[("local", 1)])
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
        for i in range(40):
            inner = {"op_type": f"F{i + 1}", "domain": "local"} if i < 39 else {"op_type": "Relu"}
            body = [
                helper.make_node(inputs=["a"], outputs=["b"], **inner),
                helper.make_node(inputs=["b"], outputs=["c"], **inner),
            ]
            model.functions.append(helper.make_function("local", f"F{i}", ["a"], ["c"], body, opsets))
        assert f"{2**40} operations" in refused(model)


def test_what_the_file_says_cannot_upset_a_terminal() -> None:
    build = Build(1, 8)
    build.nodes.append(helper.make_node("Odd\n\x1b[31m", ["x"], ["y"], name="name\n" * 1000))
    (unknown,) = network_from_onnx(build.model("y")).unknown
    assert unknown.startswith("Odd [31m (name name")
    assert unknown.isprintable()
    assert len(unknown) <= 300
    build.nodes.append(helper.make_node("Relu", ["\n\x1b[31m" * 1000], ["z"]))
    assert refused(build.model("z")).isprintable()


class TestShapes:
    def test_open_size(self) -> None:
        build = Build("N", 3, "height", 32)
        message = refused(build.model(build.add("Relu", "x")))
        assert "'x'" in message
        assert "dimension 2 open ('height')" in message

    def test_a_size_of_zero_is_no_size_to_be_completed(self) -> None:
        build = Build(1, 3, "height", 0)
        message = refused(build.model(build.add("Relu", "x")))
        assert "fixes dimension 3 at 0" in message
        assert "--input-shape" not in message

    @pytest.mark.parametrize("op", ["Conv", "MaxPool"])
    @pytest.mark.parametrize("size", [1, 2, 3])
    def test_window_that_is_larger_than_what_it_reads(self, op: str, size: int) -> None:
        build = Build(1, 8, size, size)
        conv = ["x", build.weight(8, 8, 4, 4)] if op == "Conv" else ["x"]
        model = build.model(build.add(op, *conv, kernel_shape=[4, 4]))
        assert f"reads 1x8x{size}x{size}, which is smaller than its window" in refused(model)

    def test_no_shape_at_all(self) -> None:
        build = Build(1, 8)
        model = build.model(build.add("Relu", "x"))
        model.graph.input[0].type.tensor_type.ClearField("shape")
        assert "has no shape" in refused(model)

    def test_input_that_is_no_tensor(self) -> None:
        model = small_model()
        model.graph.input[0].type.sequence_type.elem_type.tensor_type.elem_type = 1
        assert "not a tensor" in refused(model)

    @pytest.mark.parametrize(("channels_in", "channels_out", "groups"), [(6, 8, 1), (8, 7, 2), (8, 8, 3)])
    def test_weight_that_does_not_fit(self, channels_in: int, channels_out: int, groups: int) -> None:
        build = Build(1, 8, 4, 4)
        model = build.model(build.conv("x", channels_in, channels_out, 3, group=groups))
        assert "Conv (conv0)" in refused(model)

    def test_reshape_that_loses_elements(self) -> None:
        build = Build(1, 8)
        y = build.add("Reshape", "x", build.ints(3, 2))
        assert "cannot turn shape (1, 8) into [3, 2]" in refused(build.model(y))

    def test_stride_of_zero(self) -> None:
        build = Build(1, 8, 4, 4)
        assert "must be positive" in refused(build.model(build.conv("x", 8, 8, 3, strides=[0, 0])))

    @pytest.mark.parametrize("dims", [(2**40, 2**40), (-1, 8), (2**62,), (1,) * 100])
    def test_weight_of_impossible_shape(self, dims: tuple[int, ...]) -> None:
        build = Build(1, 8)
        model = build.model(build.add("Add", "x", "w"))
        model.graph.initializer.append(TensorProto(name="w", data_type=1, dims=dims))
        assert "impossible shape" in refused(model)

    @pytest.mark.parametrize("sizes", [(2**20, 2**19), (2**40, 2**40)])
    def test_a_constant_is_not_made_because_it_is_described(self, sizes: tuple[int, ...]) -> None:
        """2^39 elements would be 2 TB; 2^80 is no shape at all."""
        build = Build(1, 8)
        giant = build.add("ConstantOfShape", build.ints(*sizes))
        tiled = build.add("Expand", build.constant(0), build.ints(*sizes))
        y = build.add("Relu", build.add("Add", build.add("ReduceSum", giant), build.add("ReduceSum", tiled)))
        model = build.model(build.add("Add", "x", y))
        if sizes[0] < 2**40:
            assert [k.op for k in network_from_onnx(model).kernels] == ["sum"]
        else:
            assert "impossible shape" in refused(model)

    def test_a_range_without_end(self) -> None:
        build = Build(1, 8)
        steps = build.add("Range", build.constant(0), build.constant(1e30), build.constant(1e-30))
        network_from_onnx(build.model(build.add("Add", "x", build.add("ReduceMax", steps, keepdims=0))))


def test_reading_does_not_import_torch(tmp_path: Path) -> None:
    onnx.save(small_model(), tmp_path / "model.onnx")
    code = (
        "import sys; from dsonas_hw.kernel.onnx.from_onnx import network_from_onnx; "
        f"assert network_from_onnx({str(tmp_path / 'model.onnx')!r}).kernels; "
        "assert not {'torch', 'onnxruntime', 'onnx.reference'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
