"""Networks on a real GPU: the same outputs as on the CPU, timings that agree with CUDA's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from dsonas_hw.architecture.architecture import complete_architecture
from dsonas_hw.architecture.onnx import build_onnx
from dsonas_hw.measure.measurement import Turn
from dsonas_hw.measure.rounds import Plan
from dsonas_hw.runtime.registry import get_runtime, open_session
from dsonas_hw.space.space import SearchSpace
from dsonas_hw.target import Target

pytestmark = pytest.mark.gpu
SPACE = SearchSpace(levels=2, stages=(1, 1), channels=16, input_shape=(3, 16, 16), num_classes=10)
PLAN = Plan(num_rounds=6, turns_per_round=2, period_seconds=0.0)
RUNTIMES = ("ort-cuda", "ort-tensorrt", "tensorrt", "eager")
TOLERANCE = {"fp32": 0.02, "fp16": 0.05}
"""Of the largest output; fp32 convolutions use TF32, of ten bits."""


def network() -> bytes:
    return bytes(build_onnx(complete_architecture(SPACE), batch_size=1).SerializeToString())


def on_gpu(runtime: str, precision: str = "fp32") -> Target:
    return Target(device="the GPU that is here", runtime=runtime, precision=precision)


def outputs(session: Any) -> Any:
    """What one run computes, on the CPU. Sessions of a runtime draw the same inputs everywhere."""
    found = session.run()
    session.synchronize()
    if session.runtime.startswith("ort-"):
        return session._binding.copy_outputs_to_cpu()[0]
    return found[0].float().cpu().numpy()


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("runtime", ["ort-cuda", "eager"])
def test_the_gpu_computes_what_the_cpu_does(
    runtime: str, precision: str, usable: Callable[[str], None]
) -> None:
    usable(runtime)
    cpu = "ort-cpu" if runtime.startswith("ort-") else runtime
    with open_session(network(), Target(runtime=cpu)) as session:
        wanted = outputs(session)
    with open_session(network(), on_gpu(runtime, precision)) as session:
        found = outputs(session)
    assert np.abs(found - wanted).max() < TOLERANCE[precision] * np.abs(wanted).max()


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_timing_converges_and_a_cuda_graph_is_no_slower(
    runtime: str, usable: Callable[[str], None]
) -> None:
    usable(runtime)
    with open_session(network(), on_gpu(runtime)) as session:
        measured = get_runtime(session.runtime).measure(session, plan=PLAN, with_cuda_graph=True)
    assert measured.converged
    assert measured.graph_ms is not None, measured.remarks
    assert measured.graph_ms < 1.2 * measured.median_ms


def test_a_cuda_graph_computes_the_same(usable: Callable[[str], None]) -> None:
    usable("eager")
    with open_session(network(), on_gpu("eager")) as session:
        wanted = outputs(session)
        with session.as_graph() as captured:  # type: ignore[attr-defined]
            captured.run()
            captured.synchronize()
            (found,) = captured.outputs
    assert np.allclose(found.float().cpu().numpy(), wanted, atol=0.02 * np.abs(wanted).max())


def test_eager_agrees_with_the_events_of_cuda(usable: Callable[[str], None]) -> None:
    """Over many runs in a row the events leave out only the waiting in between."""
    usable("eager")
    with open_session(network(), on_gpu("eager")) as session:
        measured = get_runtime(session.runtime).measure(session, plan=PLAN)
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        for _ in range(100):
            session.run()
        end.record()
        torch.cuda.synchronize()
        per_run_ms = start.elapsed_time(end) / 100
    assert 0.5 * measured.median_ms < per_run_ms < 1.1 * measured.median_ms


@pytest.mark.parametrize("runtime", ["ort-cuda", "tensorrt", "eager"])
def test_kernels_are_timed_where_they_run(runtime: str, usable: Callable[[str], None]) -> None:
    """Their sum is what the GPU does in an inference: about what a CUDA graph takes."""
    usable(runtime)
    target, how, data = on_gpu(runtime), get_runtime(runtime), network()
    if reason := how.why_untimed(target):
        pytest.skip(reason)
    with open_session(data, target) as session:
        measured = how.measure(session, plan=PLAN, with_cuda_graph=True)
        profiled = how.open_profiled(data, target, session)
        for _ in range(15):
            profiled.run()
        timing = profiled.finish([Turn(num_warmup=5, num_samples=10, low_ms=0.0)])
    assert timing.remarks == ()
    total_ms = sum(node.latency_ms for node in timing.nodes)
    assert measured.graph_ms is not None, measured.remarks
    assert 0.4 * measured.graph_ms < total_ms < 2 * measured.median_ms


def test_a_closed_session_gives_its_memory_back(usable: Callable[[str], None]) -> None:
    usable("eager")
    before = torch.cuda.memory_allocated()
    with open_session(network(), on_gpu("eager")) as session:
        session.run()
        assert torch.cuda.memory_allocated() > before
    assert torch.cuda.memory_allocated() == before
