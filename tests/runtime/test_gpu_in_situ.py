"""From traces of a GPU to the times of kernels. What the traces hold: traces/README.md."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from dsonas_hw.errors import ProfileError
from dsonas_hw.kernel.network import Schedule
from dsonas_hw.measure.measurement import Turn
from dsonas_hw.runtime import cupti
from dsonas_hw.runtime.attribution import FREE_MS, LayerTime, schedule_of, tensors_of_nodes, time_kernels
from dsonas_hw.runtime.base import NetworkTiming
from dsonas_hw.runtime.cupti import RUN, GpuWork, Span, Trace, read_trace
from dsonas_hw.runtime.eager.in_situ import NODE, EagerProfiledSession, spans_inside
from dsonas_hw.runtime.eager.session import open_eager_session
from dsonas_hw.runtime.launched import node_times, work_of_spans
from dsonas_hw.runtime.model import onnx_graph
from dsonas_hw.runtime.ort.trace import OrtProfiler, split_runs
from dsonas_hw.runtime.ort_cpu.session import open_cpu_session
from dsonas_hw.runtime.ort_cuda.in_situ import node_spans
from dsonas_hw.runtime.tensorrt.in_situ import layer_times_ms, nodes_of
from dsonas_hw.target import Target

TRACES = Path(__file__).with_name("traces")
TURN = Turn(num_warmup=1, num_samples=2, low_ms=0.0)
TARGET = Target(device="h100", runtime="eager")
MADE_UP_MS = {"conv1": 0.030, "relu1": 0.004, "conv2": 0.040, "sum": 0.006, "gap": 0.005, "logits": 0.008}
"""By the tensor that is written: what the traces were made of."""


def network() -> bytes:
    """image → conv1 → relu1 → conv2 → + relu1 → global pool → flat → fc."""
    rng = np.random.default_rng(0)
    weights = {
        "w1": rng.standard_normal((8, 3, 3, 3)),
        "w2": rng.standard_normal((8, 8, 3, 3)),
        "w3": rng.standard_normal((10, 8)),
    }
    window = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["image", "w1"], ["conv1"], name="conv1", **window),
        helper.make_node("Relu", ["conv1"], ["relu1"], name="relu1"),
        helper.make_node("Conv", ["relu1", "w2"], ["conv2"], name="conv2", **window),
        helper.make_node("Add", ["conv2", "relu1"], ["sum"], name="add"),
        helper.make_node("GlobalAveragePool", ["sum"], ["gap"], name="gap"),
        helper.make_node("Flatten", ["gap"], ["flat"], name="flat"),
        helper.make_node("Gemm", ["flat", "w3"], ["logits"], name="fc", transB=1),
    ]
    return model_of(nodes, weights)


def optimised() -> bytes:
    """The same as ONNX Runtime writes it for CUDA: activations and sums run in the convolutions."""
    nodes = [
        helper.make_node("FusedConv", ["image", "w1"], ["relu1"], name="fused conv1", domain="com.microsoft"),
        helper.make_node(
            "FusedConv", ["relu1", "w2", "", "relu1"], ["sum"], name="fused conv2", domain="com.microsoft"
        ),
        helper.make_node("GlobalAveragePool", ["sum"], ["gap"], name="gap"),
        helper.make_node("Flatten", ["gap"], ["flat"], name="flat"),
        helper.make_node("Gemm", ["flat", "w3"], ["logits"], name="fc", transB=1),
    ]
    return model_of(nodes, {})


def model_of(nodes: Sequence[Any], weights: dict[str, Any]) -> bytes:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 16, 16])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 10])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())


def schedule(*, fuse: bool) -> Schedule:
    return schedule_of(network(), TARGET, fuse)


def eager(trace: Trace) -> NetworkTiming:
    graph = onnx_graph(network())
    tensors = {name: (name,) for node in graph.node for name in node.output}
    nodes = spans_inside(trace.spans(RUN), trace.spans(NODE))
    return time_kernels(node_times(nodes, trace.gpu_work(), [TURN], tensors), graph, schedule(fuse=False))


def in_ms(timing: NetworkTiming) -> list[float]:
    return [node.latency_ms for node in timing.nodes]


# -- the traces -------------------------------------------------------------------------------------------


def test_the_calls_of_pytorch_have_the_times_of_what_they_launched() -> None:
    """conv2 launches two kernels, one by the driver's own call; flat is a view and launches none."""
    timing = eager(read_trace(TRACES / "pytorch_eager.json"))
    assert in_ms(timing) == pytest.approx(list(MADE_UP_MS.values()))
    assert [node.kernel.op for node in timing.nodes] == [
        "conv",
        "unary",
        "conv",
        "sum",
        "global_avgpool",
        "gemm",
    ]
    assert timing.remarks == ()


def test_the_nodes_of_onnx_runtime_have_the_times_of_what_was_launched_in_them() -> None:
    trace = read_trace(TRACES / "pytorch_beside_onnxruntime.json")
    runs = split_runs(json.loads((TRACES / "onnxruntime_cuda.json").read_text()))
    graph = onnx_graph(optimised())
    spans = node_spans(runs, trace.spans(RUN), offset_us=4997.0)  # 3 µs less than they are apart
    layers = node_times(spans, trace.gpu_work(), [TURN], tensors_of_nodes(graph))
    timing = time_kernels(layers, graph, schedule(fuse=True))
    conv1, conv2, add, pool, product = in_ms(timing)
    assert (conv1, pool, product) == pytest.approx((0.032, 0.005, 0.008))
    assert conv2 + add == pytest.approx(0.046)  # one node of the optimised graph
    assert conv2 > 3 * add > 0


def test_the_layers_of_an_engine_are_those_of_its_nodes() -> None:
    values = json.loads((TRACES / "tensorrt_engine.json").read_text())
    graph = onnx_graph(network())
    tensors = tensors_of_nodes(graph)
    of = {layer["Name"]: nodes_of(layer, tensors) for layer in values["engine"]["Layers"]}
    assert list(of.values()) == [
        ["conv1", "relu1"], ["conv1", "relu1"], ["conv2", "add"], ["gap"], ["fc", "flat"], [],
    ]  # fmt: skip
    layers = [
        LayerTime(name=name, tensors=tuple(t for node in of[name] for t in tensors[node]), latency_ms=ms)
        for name, ms in layer_times_ms(values["runs_ms"][1:]).items()
    ]
    timing = time_kernels(layers, graph, schedule(fuse=True))
    conv1, conv2, add, pool, product = in_ms(timing)
    assert (conv1, pool, product) == pytest.approx((0.032, 0.005, 0.008))  # the copy for conv1 is its own
    assert conv2 + add == pytest.approx(0.046)
    assert sum(in_ms(timing)) + 0.001 == pytest.approx(sum(layer.latency_ms for layer in layers))


# -- what is missing --------------------------------------------------------------------------------------


def changed(**keep: Any) -> Trace:
    trace = read_trace(TRACES / "pytorch_eager.json")
    return Trace(events=[event for event in trace.events if keep["keep"](event)])


def test_a_user_without_permission_is_told_so() -> None:
    """CUPTI then records what the CPU does, and nothing of the GPU."""
    with pytest.raises(
        ProfileError, match=r"CUPTI_ERROR_INSUFFICIENT_PRIVILEGES.*RestrictProfilingToAdmin"
    ) as e:
        eager(changed(keep=lambda event: event["cat"] != "kernel"))
    assert "\n" not in str(e.value)


def test_a_trace_without_a_node_is_refused() -> None:
    nodes = changed(keep=lambda event: event["name"] != f"{NODE}conv2")
    with pytest.raises(ProfileError, match=r"no time of 1 of 6 kernels, such as conv\(1x8x16x16\)"):
        eager(nodes)


def test_clocks_that_disagree_are_refused() -> None:
    trace = read_trace(TRACES / "pytorch_beside_onnxruntime.json")
    runs = split_runs(json.loads((TRACES / "onnxruntime_cuda.json").read_text()))
    with pytest.raises(ProfileError, match=r"clocks .* are 9.. µs apart"):
        node_spans(runs, trace.spans(RUN), offset_us=4000.0)


def test_a_trace_without_an_inference_is_refused() -> None:
    last = max(e["ts"] for e in read_trace(TRACES / "pytorch_eager.json").events if e["name"] == RUN)
    with pytest.raises(ProfileError, match="holds 2 of 3 inferences"):
        eager(changed(keep=lambda event: event["ts"] < last))


def test_a_trace_whose_inferences_differ_is_refused() -> None:
    last = max(e["ts"] for e in read_trace(TRACES / "pytorch_eager.json").events if e["name"] == f"{NODE}gap")
    with pytest.raises(ProfileError, match="do not run the same nodes"):
        eager(changed(keep=lambda event: (event["name"], event["ts"]) != (f"{NODE}gap", last)))


@pytest.mark.parametrize("content", ["", "[]", '{"traceEvents": 1}', '{"traceEvents": [1]}'])
def test_what_is_no_trace_is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    path.write_text(content)
    with pytest.raises(ProfileError, match="not understood"):
        read_trace(path)


def test_an_engine_whose_inferences_differ_is_refused() -> None:
    with pytest.raises(ProfileError, match="layer 'b' is not in each of 2 inferences"):
        layer_times_ms([{"a": 1.0, "b": 1.0}, {"a": 1.0}])
    with pytest.raises(ProfileError, match="no layer in any of 1"):
        layer_times_ms([{}])


# -- which kernel a layer is of ---------------------------------------------------------------------------


def layer(latency_ms: float, *tensors: str) -> LayerTime:
    return LayerTime(name=f"layer of {tensors}", tensors=tensors, latency_ms=latency_ms)


def test_no_time_is_lost_however_layers_are_cut() -> None:
    cuts = [
        [layer(1.0, "conv1", "relu1", "conv2", "sum", "gap", "flat", "logits")],
        [layer(0.5, "conv1"), layer(0.2, "relu1"), layer(0.1, "conv2", "sum"), layer(0.2, "gap", "logits")],
    ]
    for layers in cuts:
        for fuse in (True, False):
            timing = time_kernels(layers, onnx_graph(network()), schedule(fuse=fuse))
            assert sum(in_ms(timing)) == pytest.approx(1.0, abs=10 * FREE_MS)


def test_what_stands_for_no_node_is_named() -> None:
    all_nodes = layer(0.9, "conv1", "relu1", "conv2", "sum", "gap", "flat", "logits")
    for copy_ms, is_named in ((0.01, False), (0.1, True)):
        timing = time_kernels([all_nodes, layer(copy_ms)], onnx_graph(network()), schedule(fuse=True))
        assert sum(in_ms(timing)) == pytest.approx(0.9)
        assert bool(timing.remarks) is is_named
    assert timing.remarks == ("10% of the kernels' time stands for no node of the network: layer of ()",)


def test_a_launch_between_two_nodes_is_the_nearer_one_s() -> None:
    spans = [Span(name="a", begin_us=100, end_us=110), Span(name="b", begin_us=120, end_us=130)]
    work = [GpuWork(name=str(at), launched_us=at, latency_ms=1.0) for at in (85, 112, 119, 125, 151)]
    times_ms, elsewhere = work_of_spans(work, spans)
    assert times_ms == [2.0, 2.0]
    assert [item.name for item in elsewhere] == ["151"]


# -- the profilers that are here --------------------------------------------------------------------------


def test_both_profilers_tell_the_time_of_the_same_clock() -> None:
    """PyTorch's and ONNX Runtime's own, on the CPU: what the system's clocks say fits the annotations."""
    profiler, recorder = OrtProfiler(), cupti.Recorder()
    session = open_cpu_session(network(), Target(runtime="ort-cpu"), configure=profiler.configure)
    begin_us = session.session.get_profiling_start_time_ns() / 1e3
    recorder.start()
    for _ in range(20):
        with recorder.span(RUN):
            session.run()
    trace = recorder.stop()
    outer = trace.spans(RUN)
    with profiler.ending(session) as runs:
        spans = node_spans(runs, outer, offset_us=begin_us - trace.epoch_us)
        assert len(spans) == len(outer) == 20
        shifts = [run[0].begin_us - float(of.nodes[0]["ts"]) for run, of in zip(spans, runs, strict=True)]
    assert np.median(np.abs(np.array(shifts) - (begin_us - trace.epoch_us))) < 5
    for whole, nodes in zip(outer, spans, strict=True):
        assert whole.begin_us - 2 <= nodes[0].begin_us
        assert nodes[-1].end_us <= whole.end_us + 2


def test_eager_s_profiled_session_reads_what_pytorch_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the CPU, with work made up for what each annotated call would have launched."""

    def launched(trace: Trace) -> list[GpuWork]:
        return [
            GpuWork(name="made up", launched_us=span.end_us - 0.1, latency_ms=MADE_UP_MS[span.name])
            for span in trace.spans(NODE)
            if span.name in MADE_UP_MS
        ]

    monkeypatch.setattr(Trace, "gpu_work", launched)
    with open_eager_session(network(), Target(runtime="eager")) as plain:
        session = EagerProfiledSession(network(), TARGET, plain)
        for _ in range(3):
            session.run()
        timing = session.finish([TURN])
        assert isinstance(plain.run(), list)  # the plain session is as it was
    assert in_ms(timing) == pytest.approx(list(MADE_UP_MS.values()))
    onnx.checker.check_model(onnx.load_model_from_string(network()))
