"""What the estimate is compared with. Each baseline predicts left-out observations from training ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.measurements import Observation
from dsonas_hw.device.spec import load_device
from dsonas_hw.estimate.machine import ELEMENT_BYTES

Array = NDArray[np.float64]
Baseline = Callable[[Sequence[Observation], Sequence[Observation]], Array]


def _alike(training: Sequence[Observation], o: Observation) -> list[Observation]:
    """Training rows of the same kind: same source if there is one, else networks or single kernels."""
    same = [t for t in training if t.table[0] == o.source and t.table[2:] == o.table[2:]]
    return same or [t for t in training if t.is_network == o.is_network] or list(training)


def _roofline_ms(o: Observation) -> float:
    """Sum over kernels of the longer of arithmetic and traffic, at the datasheet's peaks."""
    device = load_device(o.device)
    tensor = device.peak("tf32_tensor") if o.precision == "fp32" else device.peak("fp16_tensor")
    peak = (tensor or device.peak("fp32") or 1.0) * 1e12 / 2
    moved = ELEMENT_BYTES[o.precision] / (device.memory_bandwidth_gb_s * 1e9)
    return sum(count * 1e3 * max(k.flops / peak, k.mac * moved) for k, count in o.kernels.items())


def _flops(o: Observation) -> float:
    return float(sum(kernel.flops * count for kernel, count in o.kernels.items()))


def roofline(training: Sequence[Observation], observations: Sequence[Observation]) -> Array:
    """The roofline times one factor: the median of measured over roofline in training."""
    alike = _alike(training, observations[0])
    factor = np.median([t.latency_ms / _roofline_ms(t) for t in alike])
    return np.array([factor * _roofline_ms(o) for o in observations])


def flops_line(training: Sequence[Observation], observations: Sequence[Observation]) -> Array:
    """latency · peak = a + b · flops, fitted to relative errors."""
    alike = _alike(training, observations[0])
    peaks = np.array([load_device(t.device).peak("fp32") or 1.0 for t in alike])
    scaled = np.array([t.latency_ms for t in alike]) * peaks
    basis = np.stack([np.ones(len(alike)), [_flops(t) for t in alike]], axis=1)
    line, *_ = np.linalg.lstsq(basis / scaled[:, None], np.ones(len(alike)), rcond=None)
    peak = load_device(observations[0].device).peak("fp32") or 1.0
    predicted = np.array([line[0] + line[1] * _flops(o) for o in observations]) / peak
    return np.asarray(np.maximum(predicted, 1e-6))


def median(training: Sequence[Observation], observations: Sequence[Observation]) -> Array:
    """The median latency in training, whatever the network."""
    middle = np.median([t.latency_ms for t in _alike(training, observations[0])])
    return np.full(len(observations), middle)


BASELINES: dict[str, Baseline] = {"roofline": roofline, "FLOPs line": flops_line, "median": median}
