"""Timing networks on a GPU that is here, while the driver is asked what it does to the clocks.

    network by network:   the whole network, no profiler     CUDA events or wall clock (`Runtime.measure`)
                          the same session, kernel by kernel the runtime's profiler (`Runtime.open_profiled`)

Where a runtime cannot time kernels, their estimate stands in for the times, and the whole networks calibrate
it: the table says `calibrated`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property

from dsonas_hw.cost.model import CostModel
from dsonas_hw.device.lock import exclusive_device
from dsonas_hw.device.watch import GpuWatch, disturbances, watch_gpu
from dsonas_hw.errors import DeviceError
from dsonas_hw.measure.loaded import BOUND_BY_HOST as HOST
from dsonas_hw.measure.measurement import Turn
from dsonas_hw.measure.probe import Probe
from dsonas_hw.measure.reference import Speed
from dsonas_hw.profile.bench import LOCKED
from dsonas_hw.profile.network_measurement import NetworkMeasurement, with_energy
from dsonas_hw.runtime.base import NetworkTiming, NodeTiming, Runtime, Session
from dsonas_hw.runtime.cuda_order import as_cuda_gives_it
from dsonas_hw.runtime.detect import DetectedDevice, detect_devices
from dsonas_hw.runtime.model import name_nodes
from dsonas_hw.runtime.registry import get_runtime, open_session
from dsonas_hw.table.rows import Scalar, TableHeader
from dsonas_hw.table.table import now_utc
from dsonas_hw.target import Target

NUM_WARMUP, NUM_SAMPLES = 5, 30
"""Inferences of a network whose kernels are timed."""
BUSY = 0.5
"""Fraction of an inference below which its kernels are not what it takes."""
IN_SITU = Turn(num_warmup=NUM_WARMUP, num_samples=NUM_SAMPLES, low_ms=0.0)


@dataclass(frozen=True, kw_only=True)
class GpuBench:
    """A GPU (`bench.Bench`)."""

    target: Target
    detected: DetectedDevice
    watch: GpuWatch
    untimed: str = ""
    """Why kernels are not timed one by one; empty: they are."""
    networks_at_once: int = 1

    @property
    def header(self) -> TableHeader:
        runtime, status = self._runtime, self.detected.status(self.target.runtime)
        settings: dict[str, Scalar] = {
            "device_title": self.detected.title,
            "driver": self.detected.driver_version or "",
            **runtime.settings_here(),
            "method": f"whole networks: {self.untimed}" if self.untimed else "in situ",
            # A clock that is held is a condition: timings under another are not mixed with these.
            LOCKED: self.watch.locked_mhz,
        }
        return TableHeader(
            target=self.target,
            fingerprint=self.detected.fingerprint,
            source="calibrated" if self.untimed else "measured",
            created=now_utc(),
            versions={**runtime.versions(), runtime.module: status.version or ""},
            settings=settings,
        )

    @property
    def clocks(self) -> dict[str, Scalar]:
        return dict(self.watch.clocks) if self.watch.states else {}

    @property
    def remarks(self) -> tuple[str, ...]:
        untimed = (f"kernels were not timed: {self.untimed}",) if self.untimed else ()
        return (*untimed, *self.watch.remarks)

    def measure(self, models: Sequence[bytes]) -> list[NetworkMeasurement]:
        found = []
        for model in models:
            with self._opened(model) as session:
                found.append(self._measure(session))
        return found

    def time_kernels(
        self, probes: Sequence[Probe], unit: Speed | None
    ) -> list[tuple[NetworkMeasurement, NetworkTiming]]:
        found = []
        for probe in probes:
            model = name_nodes(probe.build())
            with self._opened(model) as session:
                measured = self._measure(session)
                timing = self._estimate(probe) if self.untimed else self._time(model, session, measured)
                found.append((measured, timing))
        return found

    @property
    def _runtime(self) -> Runtime:
        return get_runtime(self.target.runtime)

    @contextmanager
    def _opened(self, model: bytes) -> Iterator[Session]:
        """A session of a network; no one else measures meanwhile.

        Raises:
            DeviceError: the GPU failed, or was taken away.
        """
        try:
            with exclusive_device(self.detected.lock_name), open_session(model, self.target) as session:
                yield session
        except self._runtime.device_errors() as error:
            reason = " ".join(str(error).split())[:300]
            raise DeviceError(
                f"{self.detected.title} failed or was taken away while it was measured: {reason}; "
                "what was measured is kept: the same command goes on where it stopped"
            ) from error

    def _measure(self, session: Session) -> NetworkMeasurement:
        """Latency and energy, with all that is doubtful among the remarks."""
        num_before = len(self.watch.states)
        latency = self._runtime.measure(session, look=self.watch.look)
        seen = disturbances(self.watch.states[num_before:])
        latency = replace(latency, remarks=(*latency.warnings, *seen))
        return with_energy(latency, session, self.watch.gpu)

    def _time(self, model: bytes, session: Session, whole: NetworkMeasurement) -> NetworkTiming:
        """The kernels, with a remark where the GPU mostly waits for their launches."""
        profiled = self._runtime.open_profiled(model, self.target, session)
        for _ in range(NUM_WARMUP + NUM_SAMPLES):
            profiled.run()
        timing = profiled.finish([IN_SITU])
        busy = sum(node.latency_ms for node in timing.nodes) / whole.latency.latency_ms
        if busy >= BUSY or any(remark.startswith(HOST) for remark in whole.latency.remarks):
            return timing
        remark = f"{HOST}: its kernels take {busy:.0%} of the time, in the rest the GPU waits for launches"
        return replace(timing, remarks=(*timing.remarks, remark))

    @cached_property
    def _model(self) -> CostModel:
        """What its datasheet lets expect."""
        from dsonas_hw.estimate.estimate import load_estimate

        return load_estimate(self.target)

    def _estimate(self, probe: Probe) -> NetworkTiming:
        model = self._model
        kernels = [step.kernel for step in probe.schedule.kernels]
        return NetworkTiming(
            nodes=tuple(NodeTiming(kernel=k, latency_ms=model.kernel_cost(k)) for k in kernels)
        )


@contextmanager
def open_gpu(target: Target, *, sm_clock_mhz: int | None = None) -> Iterator[GpuBench]:
    """Watch a GPU that is here; see `open_bench`.

    Raises:
        DeviceError: it is not here, or its runtime cannot run on it.
    """
    detection = detect_devices()
    detected = detection.find(target.device)
    if detected is None:
        raise DeviceError(
            f"{target.device} is not here ({detection.no_gpu_reason or 'another GPU is'}), "
            "so it cannot be measured; --mode estimate lists what its datasheet lets expect"
        )
    detected = as_cuda_gives_it(detection, detected)
    status = detected.status(target.runtime)
    if not status.usable:
        raise DeviceError(f"{detected.title} is here, but {target.runtime} cannot run: {status.reason}")
    untimed = get_runtime(target.runtime).why_untimed(target)
    assert detected.index is not None
    with watch_gpu(detected.index, sm_clock_mhz=sm_clock_mhz) as watch:
        yield GpuBench(target=target, detected=detected, watch=watch, untimed=untimed)


def is_here(device: str) -> bool:
    """Whether a GPU of this name is in this machine."""
    return detect_devices().find(device) is not None
