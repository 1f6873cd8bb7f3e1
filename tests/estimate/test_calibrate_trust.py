"""A calibration holds beside the networks it rests on, and gives way to the estimate far from them."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsonas_hw.device.spec import load_device
from dsonas_hw.estimate.calibrate import Calibration, calibrate, million_image_elements
from dsonas_hw.estimate.calibrate_check import MeasuredNetwork
from dsonas_hw.estimate.calibrate_trust import Evidence, collect_evidence, mixed, work_vector
from dsonas_hw.estimate.calibrated import CalibratedLatency
from dsonas_hw.estimate.estimate import EstimatedLatency, load_estimate
from dsonas_hw.kernel.spec import Kernel
from dsonas_hw.profile.open import shipped_profiles
from dsonas_hw.target import Target

DEVICE = "1080ti"
BATCHES = (1, 2, 4, 8, 32, 64, 256)


def _network(width: int, *, size: int = 56, depth: int = 8, batch: int = 32) -> list[Kernel]:
    """A stem and `depth` pairs of a 3×3 convolution and a ReLU."""
    shape = (batch, width, size, size)
    relu = Kernel(op="unary", inputs=(shape,), output=shape, function="relu")
    kernels = []
    for channels in (3, *[width] * depth):
        conv = Kernel(
            op="conv",
            inputs=((batch, channels, size, size),),
            output=shape,
            kernel_size=(3, 3),
            num_weights=width * channels * 9,
        )
        kernels += [conv, relu]
    return kernels


def _model(batch: int = 32) -> EstimatedLatency:
    return load_estimate(Target(device=DEVICE, runtime="eager", batch_size=batch))


def _measured(*, factor: float = 2.0, extra_ms: float = 0.0, num: int = 6) -> list[MeasuredNetwork]:
    """Networks of width 64 to 96 on a card that takes `factor` times as long, and `extra_ms` more."""
    model = _model()
    found = []
    for index in range(num):
        kernels = _network(64 + 32 * index // (num - 1), depth=8 + index % 3)
        latency_ms = factor * model.predict(kernels).value + extra_ms
        found.append(MeasuredNetwork(name=str(index), kernels=kernels, batch_size=32, latency_ms=latency_ms))
    return found


def _calibrated(calibration: Calibration, batch: int = 32) -> CalibratedLatency:
    return CalibratedLatency(load_device(DEVICE), batch_size=batch, calibration=calibration)


def test_work_does_not_depend_on_the_batch() -> None:
    one, many = _network(64, batch=1), _network(64, batch=256)
    assert work_vector(one) == work_vector(many)
    assert million_image_elements(many) == 256 * million_image_elements(one) == 256 * 3 * 56 * 56 / 1e6
    assert million_image_elements(many[2:]) == 0


def test_trust_falls_with_the_distance_from_the_nearest_network() -> None:
    evidence = collect_evidence(np.array([[18.0, 15.0], [20.0, 16.0]]), reach=2.0)
    assert evidence.trust(np.array([[18.0, 15.0], [20.0, 16.0]])).tolist() == [1.0, 1.0]
    along = evidence.trust(np.array([[18.0 - d, 15.0] for d in np.linspace(0, 12, 121)]))
    assert np.all(np.diff(along) < 0)
    assert np.max(-np.diff(along)) < 0.04  # continuous: a tenth of a unit of distance changes little
    assert along[20] == pytest.approx(math.exp(-0.5))  # a reach away
    assert along[-1] < 1e-6
    assert Evidence().trust(np.array([[18.0, 15.0]])).tolist() == [0.0]


@given(trust=st.floats(0, 1), apart=st.floats(-5, 5), first=st.floats(1e-4, 1.0), second=st.floats(1e-4, 1.0))
def test_a_mixture_lies_between_and_covers_what_it_leaves(
    trust: float, apart: float, first: float, second: float
) -> None:
    mean, variance = mixed(trust, (apart, first), (0.0, second))
    assert min(0.0, apart) - 1e-9 <= mean <= max(0.0, apart) + 1e-9
    assert variance >= min(first, second) * (1 - 1e-12)
    if trust <= 0.7:
        assert abs(mean) <= 1.645 * math.sqrt(variance)


def test_networks_like_the_measured_ones_keep_the_calibration() -> None:
    networks = _measured()
    model = _calibrated(calibrate(_model(), networks))
    for network in networks:
        prediction = model.predict(network.kernels)
        assert prediction.value == pytest.approx(network.latency_ms, rel=0.05)
        assert prediction.source == "calibrated"


def test_one_network_at_several_batch_sizes_is_enough() -> None:
    networks = [
        MeasuredNetwork(name="", kernels=kernels, batch_size=batch, latency_ms=2 * ms)
        for batch in (16, 32, 64)
        for kernels in [_network(64, batch=batch)]
        for ms in [_model(batch).predict(kernels).value]
    ]
    assert calibrate(_model(), networks).mape < 0.05


def test_far_smaller_networks_are_estimated() -> None:
    """The card was twice as slow, and every network took 5 ms more: of a tiny one that says nothing."""
    calibration = calibrate(_model(), _measured(extra_ms=5.0))
    for batch in (1, 64):
        model, estimate = _calibrated(calibration, batch), _model(batch)
        for kernels in (
            _network(4, size=8, depth=2, batch=batch),
            [Kernel(op="gemm", inputs=((batch, 64),), output=(batch, 32), num_weights=2048)],
        ):
            found, plain = model.predict(kernels), estimate.predict(kernels)
            assert found.value == pytest.approx(plain.value, rel=0.01)
            assert found.low < plain.value < found.high
            assert found.source == "estimated"


def test_between_both_the_prediction_is_continuous_and_admits_both() -> None:
    model, estimate = _calibrated(calibrate(_model(), _measured(factor=3.0))), _model()
    ratios, trusts = [], []
    for width in range(4, 72, 4):
        kernels = _network(width)
        found, plain = model.predict(kernels), estimate.predict(kernels)
        trusts.append(float(model.evidence.trust(np.array([work_vector(kernels)]))[0]))
        ratios.append(math.log(found.value / plain.value))
        if trusts[-1] <= 0.7:
            assert found.low <= plain.value <= found.high
    assert min(np.diff(ratios)) > -0.01
    assert trusts[0] < 0.3 < 0.99 < trusts[-1]
    assert ratios[-1] == pytest.approx(math.log(3), rel=0.1)
    assert max(np.diff(ratios)) < 0.35


@pytest.mark.parametrize("width", [2, 16, 64, 256])
@pytest.mark.parametrize("extra_ms", [-3.0, 5.0])
def test_a_larger_batch_is_not_faster(width: int, extra_ms: float) -> None:
    calibration = calibrate(_model(), _measured(extra_ms=extra_ms))
    assert calibration.image_ms >= 0
    assert calibration.network_ms >= 0
    values = [_calibrated(calibration, b).predict(_network(width, batch=b)).value for b in BATCHES]
    assert values == sorted(values)


@pytest.mark.parametrize("name", ["v100/tensorrt-fp32", "1080ti/eager-fp32", "1080ti/eager-fp16"])
def test_a_larger_batch_is_hardly_faster_with_a_residual(name: str) -> None:
    """What was learned from measured networks nearby bends with the batch, as their times did."""
    from dsonas_hw.estimate.calibrated import load_calibration

    found = load_calibration(shipped_profiles() / f"{name}.calibration.json")
    for width, size in ((8, 8), (32, 32), (64, 56)):
        values = [
            CalibratedLatency(load_device(found.device), batch_size=b, calibration=found)
            .predict(_network(width, size=size, batch=b))
            .value
            for b in BATCHES
        ]
        assert min(np.diff(np.log(values))) > -0.05


def test_an_image_of_an_eighth_costs_an_eighth() -> None:
    """0.1 ms of every million elements of the images, on top of the card's time."""
    networks = [
        dataclasses.replace(n, latency_ms=n.latency_ms + 40 * million_image_elements(n.kernels))
        for n in [*_measured(factor=1.0), *_on_other_images()]
    ]
    calibration = calibrate(_model(), networks)
    assert calibration.image_ms == pytest.approx(40, rel=0.25)


def _on_other_images() -> list[MeasuredNetwork]:
    model = _model()
    found = []
    for size in (28, 40, 80, 112):
        kernels = _network(64, size=size)
        latency_ms = model.predict(kernels).value
        found.append(MeasuredNetwork(name=f"{size}", kernels=kernels, batch_size=32, latency_ms=latency_ms))
    return found
