"""ONNX Runtime's GPU providers: what is asked of them, without a GPU."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from dsonas_hw.errors import DeviceError, ModelFileError
from dsonas_hw.runtime.ort import session as ort
from dsonas_hw.runtime.ort_cuda.runtime import OrtCuda
from dsonas_hw.runtime.ort_tensorrt.runtime import OrtTensorRT
from dsonas_hw.runtime.registry import open_session
from dsonas_hw.target import Target


def network(*, quantised: bool = False) -> bytes:
    """A ReLU, behind Q/DQ nodes or not."""
    nodes = [helper.make_node("Relu", ["d" if quantised else "x"], ["y"])]
    constants = []
    if quantised:
        constants = [numpy_helper.from_array(np.float32(0.1), "s"), numpy_helper.from_array(np.int8(0), "z")]
        nodes = [
            helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
            *nodes,
        ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in "xy"]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


class Library:
    """The module onnxruntime, whose GPU providers start; notes what is asked of it."""

    __version__ = "1.26.0"

    def __init__(self, started: str) -> None:
        import onnxruntime

        self.SessionOptions = onnxruntime.SessionOptions
        self.ExecutionMode = onnxruntime.ExecutionMode
        self.OrtValue = self
        self.started = started
        self.providers: list[Any] = []
        self.placed: list[tuple[str, int]] = []

    # -- the module --

    def InferenceSession(self, data: bytes, options: Any, providers: list[Any]) -> Library:  # noqa: N802
        assert options.get_session_config_entry("session.disable_cpu_ep_fallback") == "1"
        self.providers = providers
        self.model = onnx.load_model_from_string(data)
        return self

    def ortvalue_from_numpy(self, value: Any, device: str, index: int) -> object:
        self.placed.append((device, index))
        return value

    def ortvalue_from_shape_and_type(self, shape: Any, kind: Any, device: str, index: int) -> object:
        self.placed.append((device, index))
        return np.zeros(shape, kind)

    # -- a session and its binding --

    def get_providers(self) -> list[str]:
        return [self.started, "CPUExecutionProvider"]

    def disable_fallback(self) -> None:
        """The library's own, at a run."""

    def io_binding(self) -> Library:
        return self

    def bind_ortvalue_input(self, name: str, value: object) -> None:
        assert name == "x"

    def bind_ortvalue_output(self, name: str, value: object) -> None:
        assert name == "y"

    def get_inputs(self) -> list[Any]:
        return [Value("x", self.model)]

    def get_outputs(self) -> list[Any]:
        return [Value("y", self.model)]


class Value:
    def __init__(self, name: str, model: Any) -> None:
        (info,) = [v for v in (*model.graph.input, *model.graph.output) if v.name == name]
        half = info.type.tensor_type.elem_type == TensorProto.FLOAT16
        self.name, self.shape, self.type = name, [1, 4], "tensor(float16)" if half else "tensor(float)"


def use(monkeypatch: pytest.MonkeyPatch, provider: str) -> Library:
    library = Library(provider)
    monkeypatch.setattr(ort, "import_onnxruntime", lambda: library)
    monkeypatch.setattr(ort, "why_no_gpu", lambda provider: None)
    return library


def test_int8_of_a_model_without_ranges_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorRT falls back to fp16 without a word where it knows no ranges."""
    library = use(monkeypatch, "TensorrtExecutionProvider")
    with pytest.raises(ModelFileError, match="would run this model in fp16 for int8"):
        open_session(network(), Target(runtime="ort-tensorrt", precision="int8"))
    open_session(network(quantised=True), Target(runtime="ort-tensorrt", precision="int8"))
    ((provider, options),) = library.providers
    assert provider == "TensorrtExecutionProvider"
    assert options == {"trt_fp16_enable": "True", "trt_int8_enable": "True"}
    assert library.placed == [("cuda", 0)] * 2


def test_half_precision_is_in_the_model_for_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    library = use(monkeypatch, "CUDAExecutionProvider")
    open_session(network(), Target(runtime="ort-cuda", precision="fp16"))
    assert [v.type for v in (*library.get_inputs(), *library.get_outputs())] == ["tensor(float16)"] * 2
    assert [node.op_type for node in library.model.graph.node] == ["Relu"]  # nothing is cast in between


def test_a_fallback_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, "CPUExecutionProvider")
    with pytest.raises(DeviceError, match="was asked for, but ONNX Runtime fell back to CPU"):
        open_session(network(), Target(runtime="ort-cuda"))


def test_tensorrt_is_found_in_its_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The provider links to a library that lies where only the wheel's own module looks."""

    def compile_library(path: Path, *options: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        source = tmp_path / "empty.c"
        source.write_text("")
        command = ["cc", "-shared", f"-Wl,-soname,{path.name}", "-o", str(path), str(source), *options]
        subprocess.run(command, check=True)

    wheel = tmp_path / "tensorrt_libs"
    compile_library(wheel / "libnvinfer.so.99")
    (wheel / "__init__.py").write_text(
        "import ctypes, pathlib\nctypes.CDLL(str(pathlib.Path(__file__).with_name('libnvinfer.so.99')))\n"
    )
    provider = tmp_path / "onnxruntime" / "capi" / "libonnxruntime_providers_tensorrt.so"
    compile_library(provider, "-Wl,--no-as-needed", f"-L{wheel}", "-l:libnvinfer.so.99")
    module = SimpleNamespace(
        __file__=str(tmp_path / "onnxruntime" / "__init__.py"),
        get_available_providers=lambda: ["TensorrtExecutionProvider"],
        preload_dlls=lambda: None,
    )
    monkeypatch.setattr(ort, "why_no_driver", lambda: None)
    reason = ort.why_no_gpu(OrtTensorRT.provider, module)
    assert reason is not None
    assert "a library is missing: libnvinfer.so.99" in reason
    monkeypatch.syspath_prepend(tmp_path)
    assert ort.why_no_gpu(OrtTensorRT.provider, module) is None


@pytest.mark.skipif(ort.why_no_driver() is None, reason="there is a GPU")
@pytest.mark.parametrize("provider", [OrtCuda.provider, OrtTensorRT.provider], ids=str)
def test_the_library_itself_does_not_run_on_the_cpu(
    provider: ort.Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real one, told that nothing stands in the way."""
    runtime = provider.runtime
    if provider.name not in ort.import_onnxruntime().get_available_providers():
        pytest.skip("another wheel of onnxruntime is installed")
    monkeypatch.setattr(ort, "why_no_gpu", lambda provider: None)
    with pytest.raises(DeviceError, match=f"runtime {runtime} would have run on the CPU: ") as raised:
        open_session(network(), Target(runtime=runtime))
    assert "\n" not in str(raised.value)
