"""Native TensorRT: what the builder is asked for, what is stored, what is timed, in 8.6, 10 and 11."""

from __future__ import annotations

import hashlib
import itertools
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from fake_tensorrt import API, make_tensorrt
from onnx import TensorProto, helper, numpy_helper

from dsonas_hw.errors import DeviceError, MissingDependencyError, ModelFileError, UserError
from dsonas_hw.measure.measurement import Turn
from dsonas_hw.measure.rounds import GPU
from dsonas_hw.runtime.base import NetworkTiming
from dsonas_hw.runtime.detect import DetectedDevice, Detection, RuntimeStatus
from dsonas_hw.runtime.model import name_nodes
from dsonas_hw.runtime.registry import get_runtime, open_session
from dsonas_hw.runtime.tensorrt import library as tensorrt_library
from dsonas_hw.runtime.tensorrt.build import (
    TIMING_ONLY,
    build_engine,
    default_timing_cache_path,
)
from dsonas_hw.runtime.tensorrt.engine_info import load_engine_info
from dsonas_hw.runtime.tensorrt.session import (
    TensorRTSession,
    measure_engine,
    open_engine,
    open_tensorrt_session,
)
from dsonas_hw.target import Target

CARD = "NVIDIA GeForce RTX 3090"
TARGET = Target(device="rtx3090", runtime="tensorrt")


class FakeCuda:
    """A GPU on which an inference takes what the test says."""

    stream_handle = 7
    versions = {"cuda": "13.0"}  # noqa: RUF012

    def __init__(self, name: str = CARD, times_ms: Callable[[], float] = lambda: 2.0) -> None:
        self.name, self._times_ms = name, times_ms
        self.buffers: list[tuple[tuple[int, ...], str, bool]] = []
        self.num_synchronized = 0

    def buffer(self, shape: Sequence[int], dtype: str, *, random: bool) -> tuple[object, int]:
        assert min(shape) >= 0
        self.buffers.append((tuple(shape), dtype, random))
        return object(), 0x1000 * len(self.buffers)

    def synchronize(self) -> None:
        self.num_synchronized += 1

    def capture(self, run: Callable[[], object]) -> Callable[[], object]:
        run()
        self._times_ms = lambda: self.graph_ms
        return lambda: None

    graph_ms = 0.5

    def elapsed_ms(self, run: Callable[[], object]) -> float:
        run()
        return self._times_ms()


def model(
    *,
    batch: int | str = 1,
    size: int | str = 8,
    op: str = "Relu",
    quantised: bool = False,
    zero_point: int = 0,
) -> bytes:
    """conv 3×3 → op, on 3 × size × size."""
    weight = np.ones((4, 3, 3, 3), np.float32)
    constants = [numpy_helper.from_array(weight, "w")]
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["h"], pads=[1, 1, 1, 1]),
        helper.make_node(op, ["h"], ["y"]),
    ]
    if quantised:
        constants += [
            numpy_helper.from_array(np.float32(0.1), "s"),
            numpy_helper.from_array(np.int8(zero_point), "z"),
        ]
        nodes[0].input[0] = "d"
        nodes = [
            helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
            *nodes,
        ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, size, size])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 4, size, size])],
        constants,
    )
    built = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(built.SerializeToString())


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSONAS_HW_HOME", str(tmp_path / "home"))


@pytest.fixture(params=["8", "10", "11"])
def major(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each version of the module in turn."""
    use(monkeypatch, request.param)
    return str(request.param)


def use(monkeypatch: pytest.MonkeyPatch, version: str, **options: bool) -> Any:
    module = make_tensorrt(version, **options)
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    return module


def build(folder: Path, data: bytes | None = None, **options: Any) -> dict[str, Any]:
    """What the engine was built with."""
    path = folder / "m.engine"
    where = {name: options.pop(name) for name in ("precision", "batch_size") if name in options}
    build_engine(data or model(), path, replace(TARGET, **where), cuda=FakeCuda(), **options)
    plan: dict[str, Any] = json.loads(path.read_bytes())
    return plan


def test_the_fakes_invent_nothing() -> None:
    recorded: dict[str, set[str]] = {}
    for names in API.values():
        for name, members in names.items():
            recorded.setdefault(name, set()).update(members)
    for version in API:
        for fake in make_tensorrt(version)._fakes:
            own = {name for name in vars(fake) if not name.startswith("_")}
            assert own <= recorded[fake.__name__], fake
    assert {"INTERNAL_ERROR", "ERROR", "WARNING", "INFO"} <= recorded["ILogger.Severity"]


def test_the_recorded_names_are_those_of_an_installed_tensorrt() -> None:
    tensorrt = pytest.importorskip("tensorrt")
    if not hasattr(tensorrt, "Builder"):
        pytest.skip("only type stubs are installed")
    for name, members in API[tensorrt.__version__.split(".")[0]].items():
        if name not in ("__version__", "ILogger.Severity"):
            assert set(members) <= set(dir(getattr(tensorrt, name))), name


def test_fp32_is_what_tensorrt_makes_of_it(major: str, tmp_path: Path) -> None:
    assert build(tmp_path)["flags"] == ["TF32"]  # as the estimate of a GPU has it


def test_fp16(major: str, tmp_path: Path) -> None:
    plan = build(tmp_path, precision="fp16")
    if major == "11":  # in the model: half-precision weights, fp32 at the ends
        assert plan["flags"] == ["TF32"]
        assert plan["half_weights"] == 1
    else:
        assert plan["flags"] == ["FP16", "TF32"]
        assert plan["half_weights"] == 0
    assert [kind for _, _, kind in plan["inputs"] + plan["outputs"]] == ["FLOAT", "FLOAT"]


def test_int8_from_a_quantised_model(major: str, tmp_path: Path) -> None:
    plan = build(tmp_path, model(quantised=True), precision="int8")
    assert plan["flags"] == (["TF32"] if major == "11" else ["FP16", "INT8", "TF32"])
    assert plan["ranges"] == []
    # Recorded, since it is not the same in all versions.
    (remark,) = load_engine_info(tmp_path / "m.engine").remarks
    assert remark == f"layers without int8 run in {'fp32' if major == '11' else 'fp16'}"


def test_int8_that_tensorrt_would_refuse_is_not_built(major: str, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="quantised around a zero point of -128; quantise it with"):
        build(tmp_path, model(quantised=True, zero_point=-128), precision="int8")


def test_int8_without_ranges_is_refused_or_only_timed(major: str, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="quantise it with"):
        build(tmp_path, precision="int8")
    if major == "11":
        with pytest.raises(ModelFileError, match="quantise it with"):
            build(tmp_path, precision="int8", placeholder_ranges=True)
        return
    plan = build(tmp_path, precision="int8", placeholder_ranges=True)
    assert plan["ranges"] == [[-4.0, 4.0]] * 3  # the input, and what conv and relu make
    assert load_engine_info(tmp_path / "m.engine").remarks == (
        "layers without int8 run in fp16",
        TIMING_ONLY,
    )


def test_batch_size(major: str, tmp_path: Path) -> None:
    build(tmp_path, model(batch="n"), batch_size=32)
    cuda = FakeCuda()
    with open_engine(tmp_path / "m.engine", cuda=cuda) as session:
        assert cuda.buffers == [((32, 3, 8, 8), "float32", True), ((32, 4, 8, 8), "float32", False)]
        session.run()
    with pytest.raises(ModelFileError, match="fixed to a batch of 1, asked for 32"):
        build(tmp_path, batch_size=32)
    with pytest.raises(ModelFileError, match="only the first size, the batch, may be symbolic"):
        build(tmp_path, model(batch="n", size="s"), batch_size=32)


def test_timing_cache_is_shared_kept_and_replaced(
    major: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    version = API[major]["__version__"]
    cache = default_timing_cache_path(CARD)
    assert cache.is_relative_to(tmp_path / "home")
    assert build(tmp_path)["cache"] == version  # it began empty
    assert build(tmp_path)["cache"] == f"{version}+1"  # and goes on from there
    assert cache.read_text() == f"{version}+1+1"
    for content in (b"damaged", b"9.9.9 of another TensorRT"):
        cache.write_bytes(content)
        caplog.clear()
        assert build(tmp_path)["cache"] == version
        assert "does not fit" in caplog.text
    own = tmp_path / "own.timing"
    build(tmp_path, timing_cache_path=own)
    assert own.read_text() == f"{version}+1"
    assert load_engine_info(tmp_path / "m.engine").timing_cache == str(own)


def test_a_cache_that_cannot_be_kept_is_a_warning(
    major: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    build(tmp_path, timing_cache_path=tmp_path / "file" / "cache.timing")
    assert "the timing cache is lost" in caplog.text


def test_failures_are_one_line(major: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelFileError, match=r"does not take this model: In node 0 \(NonZero\)"):
        build(tmp_path, model(op="NonZero"))
    file = tmp_path / "m.onnx"
    file.write_bytes(model(op="NonZero"))
    with pytest.raises(ModelFileError, match=r"does not take .*m\.onnx"):
        build_engine(file, tmp_path / "m.engine", TARGET, cuda=FakeCuda())
    use(monkeypatch, major, fail_build=True)
    with pytest.raises(DeviceError, match="Could not find any implementation for node conv"):
        build(tmp_path)
    use(monkeypatch, major, fail_start=True)
    with pytest.raises(DeviceError, match="does not start: CUDA initialization failure"):
        build(tmp_path)
    assert not (tmp_path / "m.engine").exists()


def test_an_engine_is_checked_before_it_is_loaded(
    major: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.engine"
    info = build_engine(model(), path, TARGET, cuda=FakeCuda())
    assert load_engine_info(path) == info
    with pytest.raises(DeviceError, match=r"was built for GPU .*3090, here is Tesla T4: engines do not move"):
        open_engine(path, cuda=FakeCuda("Tesla T4"))
    other = use(monkeypatch, major)
    other.__version__ = "10.0.0"
    with pytest.raises(DeviceError, match=r"was built for TensorRT .*, here is 10.0.0"):
        open_engine(path, cuda=FakeCuda())
    use(monkeypatch, major)
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(DeviceError, match="not the engine that its description is about"):
        open_engine(path, cuda=FakeCuda())
    path.unlink()
    with pytest.raises(DeviceError, match="cannot read the engine"):
        open_engine(path, cuda=FakeCuda())
    description = tmp_path / "m.engine.json"
    description.write_text(json.dumps({**json.loads(description.read_text()), "schema": 99}))
    with pytest.raises(UserError, match="does not describe an engine"):
        open_engine(path, cuda=FakeCuda())


def test_an_engine_that_tensorrt_refuses(major: str, tmp_path: Path) -> None:
    path = tmp_path / "m.engine"
    build_engine(model(), path, TARGET, cuda=FakeCuda())
    path.write_bytes(b"garbage")
    description = tmp_path / "m.engine.json"
    values = json.loads(description.read_text())
    values["sha256"] = hashlib.sha256(b"garbage").hexdigest()
    description.write_text(json.dumps(values))
    with pytest.raises(DeviceError, match=r"cannot load .*: Serialization assertion.*build it again"):
        open_engine(path, cuda=FakeCuda())


def test_a_session_runs_and_closes(major: str) -> None:
    cuda = FakeCuda()
    session = open_tensorrt_session(model(), TARGET, cuda=cuda)
    assert session.runtime == "tensorrt"
    assert session.versions == {"tensorrt": API[major]["__version__"], "cuda": "13.0"}
    session.run()
    session.synchronize()
    assert cuda.num_synchronized == 1
    session.close()
    with pytest.raises(DeviceError, match="could not start"):
        session.run()


def test_latency_is_what_the_events_say(major: str) -> None:
    times = itertools.chain([9.0] * 56, itertools.cycle([2.0, 2.01, 2.02, 2.03]))  # 56 · 9 ms: warming up
    session = open_tensorrt_session(model(), TARGET, cuda=FakeCuda(times_ms=lambda: next(times)))
    measured = measure_engine(session, clock_s=lambda: 0.0)
    assert measured.converged
    assert len(measured.rounds_ms) == GPU.num_rounds
    assert min(measured.samples_ms) == pytest.approx(2.0)
    assert max(measured.samples_ms) == pytest.approx(2.03)  # those of the warm-up are not among them
    assert measured.latency_ms == pytest.approx(2.0)
    assert measured.warnings == ()


def test_a_host_that_limits_is_remarked(major: str) -> None:
    session = open_tensorrt_session(model(), TARGET, cuda=FakeCuda())
    now = iter(0.0009 * index for index in range(10**6))  # 0.9 ms to enqueue, 1 ms on the GPU
    session.cuda._times_ms = lambda: 1.0  # type: ignore[attr-defined]
    measured = measure_engine(session, clock_s=lambda: next(now))
    assert measured.remarks == ("bound by the host: the CPU takes 90% of an inference to start it",)


def test_a_first_run_that_loads_kernels_is_not_the_host_s_share(major: str) -> None:
    """It takes 5 s (CUDA loads them when they are first used); the others take a tenth of the GPU's time."""
    session = open_tensorrt_session(model(), TARGET, cuda=FakeCuda(times_ms=lambda: 1.0))
    step_s = itertools.chain([5.0], itertools.repeat(0.0001))
    now = itertools.accumulate(step_s)
    assert measure_engine(session, clock_s=lambda: next(now)).remarks == ()


def test_an_engine_as_a_cuda_graph_has_no_gaps_between_its_launches(major: str) -> None:
    with open_tensorrt_session(model(), TARGET, cuda=FakeCuda()) as session:
        measured = measure_engine(session, with_cuda_graph=True, clock_s=itertools.count().__next__)
        assert measured.median_ms == pytest.approx(2.0)
        assert measured.graph_ms == pytest.approx(0.5)
        assert any("a CUDA graph would save 1.5 ms" in remark for remark in measured.remarks)


def profiled(session: TensorRTSession, data: bytes, batch_size: int = 1) -> NetworkTiming:
    """Seven inferences, of which the first two warm up."""
    target = Target(device="h100", runtime="tensorrt", batch_size=batch_size)
    watched = get_runtime("tensorrt").open_profiled(data, target, session)
    for _ in range(7):
        watched.run()
    return watched.finish([Turn(num_warmup=2, num_samples=5, low_ms=0.0)])


def test_layers(major: str) -> None:
    data = name_nodes(model())
    with open_tensorrt_session(data, TARGET, cuda=FakeCuda()) as session:
        (kernel,) = profiled(session, data).nodes  # of runs 3 to 7 the median is run 5's
        assert session.context is not None
        assert session.context.profiler is None  # the session's own context is undisturbed
    assert kernel.kernel.key == "conv(1x3x8x8)->1x4x8x8;k3x3,s1x1+relu"
    assert kernel.latency_ms == pytest.approx(0.105 + 0.205)
    with pytest.raises(DeviceError, match="closed"):
        profiled(session, data)


def test_layers_of_an_engine_whose_batch_was_symbolic(major: str) -> None:
    """Its shapes come with a profile, which in 8.6 only one context may have unless it is told otherwise."""
    data = name_nodes(model(batch="n"))
    with open_tensorrt_session(data, replace(TARGET, batch_size=4), cuda=FakeCuda()) as session:
        (kernel,) = profiled(session, data, batch_size=4).nodes
        assert session.run() is None
    assert kernel.kernel.batch_size == 4


def detection(*gpus: tuple[str, str], reason: str = "") -> Detection:
    """GPUs with the reason why TensorRT cannot serve them ("" = it can)."""
    devices = [
        DetectedDevice(
            name=name,
            title=name,
            fingerprint="",
            device=None,
            index=0,
            uuid=None,
            driver_version=None,
            compute_capability=None,
            runtimes=(RuntimeStatus(runtime="tensorrt", usable=not why, reason=why),),
        )
        for name, why in gpus
    ]
    return Detection(devices=tuple(devices), no_gpu_reason=reason)


def test_the_reason_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def here(found: Detection) -> None:
        monkeypatch.setattr(tensorrt_library, "detect_devices", lambda: found)

    here(detection(reason="no NVIDIA driver: ..."))
    with pytest.raises(DeviceError, match=r"^runtime tensorrt cannot run here: no NVIDIA driver"):
        open_session(model(), Target(runtime="tensorrt"))
    here(detection(("1080ti", "needs tensorrt >=8.6,<10.0")))
    with pytest.raises(DeviceError, match=r"needs tensorrt >=8\.6,<10\.0"):
        open_session(model(), Target(runtime="tensorrt"))
    # Two GPUs: the one that CUDA uses decides.
    monkeypatch.setattr(tensorrt_library, "TorchCuda", lambda: FakeCuda("Tesla T4"))
    here(detection(("1080ti", "too old"), ("t4", "")))
    use(monkeypatch, "10")
    assert open_session(model(), Target(runtime="tensorrt")).runtime == "tensorrt"
    here(detection(("1080ti", ""), ("t4", "broken")))
    with pytest.raises(DeviceError, match="broken"):
        open_session(model(), Target(runtime="tensorrt"))


def test_a_module_that_does_not_import(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'dsonas-hw\[tensorrt\]'"):
        tensorrt_library.tensorrt_version()
    monkeypatch.delitem(sys.modules, "tensorrt")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (tmp_path / "tensorrt").mkdir()  # what tensorrt-stubs leaves behind
    with pytest.raises(MissingDependencyError, match="cannot be imported"):
        tensorrt_library.tensorrt_version()
    monkeypatch.delitem(sys.modules, "tensorrt")
    (tmp_path / "tensorrt" / "__init__.py").write_text(
        "raise ImportError('libcudnn.so.8: cannot open shared object file')"
    )
    with pytest.raises(MissingDependencyError, match=r"pascal-tensorrt\.txt"):
        tensorrt_library.tensorrt_version()


def test_models_are_valid() -> None:
    for data in (model(), model(batch="n"), model(quantised=True)):
        onnx.checker.check_model(onnx.load_model_from_string(data))
