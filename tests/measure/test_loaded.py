"""Networks on a GPU whose clock the test holds in its hands."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from dsonas_hw.errors import DeviceError
from dsonas_hw.measure.loaded import Graph, measure_loaded
from dsonas_hw.measure.measurement import LatencyMeasurement
from dsonas_hw.measure.rounds import GPU


class Gpu:
    """A stream of runs: the CPU needs `start_ms` to start one, the GPU `work_ms` times its slowness then."""

    def __init__(
        self, work_ms: float, *, start_ms: float = 0.0, slowness: Callable[[float], float] = lambda now_s: 1.0
    ) -> None:
        self.work_s, self.start_s, self.slowness = work_ms / 1e3, start_ms / 1e3, slowness
        self.now_s = self.free_at_s = 100.0
        self.begun_s: float | None = None
        self.num_looks_at_rest = 0
        self.num_looks = 0

    def run(self) -> None:
        self.begun_s = self.now_s if self.begun_s is None else self.begun_s
        self.now_s += self.start_s + 1e-6
        busy_s = self.work_s * self.slowness(self.now_s - self.begun_s)
        self.free_at_s = max(self.free_at_s, self.now_s) + busy_s

    def synchronize(self) -> None:
        self.now_s = max(self.now_s, self.free_at_s)

    def clock_s(self) -> float:
        return self.now_s

    def look(self) -> None:
        self.num_looks += 1
        self.num_looks_at_rest += self.free_at_s <= self.now_s

    def as_graph(self, work_ms: float) -> Graph:
        @contextmanager
        def opened() -> Iterator[Gpu]:
            self.work_s, self.start_s = work_ms / 1e3, 0.0
            yield self

        return opened

    def measure(self, *, returns_early: bool = False, graph: Graph | None = None) -> LatencyMeasurement:
        return measure_loaded(
            self, returns_early=returns_early, graph=graph, look=self.look, clock_s=self.clock_s
        )


def test_a_cold_gpu_is_warmed_up_by_time() -> None:
    """0.3 ms on a card that is 2.6 times slow for 150 ms: ten runs to warm up would read 0.78 ms."""
    measured = Gpu(0.3, slowness=lambda busy_s: 2.6 if busy_s < 0.15 else 1.0).measure()
    assert measured.converged
    assert measured.latency_ms == pytest.approx(0.3, rel=0.01)
    assert max(measured.samples_ms) == pytest.approx(0.3, rel=0.01)
    assert measured.warnings == ()


def test_it_is_timed_for_about_a_second() -> None:
    for work_ms in (1.0, 20.0):
        assert len(Gpu(work_ms).measure().rounds_ms) == GPU.num_rounds
        assert sum(Gpu(work_ms).measure().samples_ms) > 950


@pytest.mark.parametrize(("change", "word"), [(-0.4, "fell"), (0.4, "rose")])
def test_clocks_that_still_move_are_told(change: float, word: str) -> None:
    measured = Gpu(1.0, slowness=lambda busy_s: max(0.5, 1.5 + change * busy_s)).measure()
    assert not measured.converged
    assert any(remark.startswith(f"the timing {word} by ") for remark in measured.remarks)


def test_the_driver_is_asked_while_the_gpu_works() -> None:
    for work_ms in (0.05, 5.0):
        gpu = Gpu(work_ms)
        measured = gpu.measure()
        assert 0.3 * sum(measured.samples_ms) / 100 < gpu.num_looks <= len(measured.turns)
        assert gpu.num_looks_at_rest == 0


def test_a_network_whose_start_takes_longer_than_its_work_is_bound_by_the_host() -> None:
    (remark,) = Gpu(0.1, start_ms=0.9).measure(returns_early=True).remarks
    assert remark == "bound by the host: the CPU takes 90% of an inference to start it"
    assert Gpu(0.9, start_ms=0.1).measure(returns_early=True).remarks == ()
    assert Gpu(0.1, start_ms=0.9).measure().remarks == ()  # it may only seem so: nothing returns early


def test_what_a_cuda_graph_saves_is_told() -> None:
    gpu = Gpu(0.4, start_ms=0.6)
    measured = gpu.measure(graph=gpu.as_graph(0.4))
    assert measured.graph_ms == pytest.approx(0.4, rel=0.01)
    assert measured.median_ms == pytest.approx(1.0, rel=0.01)
    (remark,) = measured.remarks
    assert remark.startswith("bound by launches: of 1 ms a CUDA graph would save 0.6 ms")
    gpu = Gpu(0.9, start_ms=0.1)
    assert gpu.measure(graph=gpu.as_graph(0.9)).remarks == ()


@pytest.mark.parametrize("error", [DeviceError("not on this runtime"), RuntimeError("capture\n failed")])
def test_where_no_graph_can_be_captured_the_timing_stands(error: Exception) -> None:
    @contextmanager
    def fails() -> Iterator[Gpu]:
        raise error
        yield

    measured = Gpu(1.0).measure(graph=fails)
    assert measured.graph_ms is None
    assert measured.latency_ms == pytest.approx(1.0, rel=0.01)
    (remark,) = measured.remarks
    assert remark == f"no CUDA graph could be made of it: {' '.join(str(error).split())}"
