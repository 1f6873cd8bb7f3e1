"""Calibration: recovers a synthetic device, shrugs off an outlier, refuses unit slips and contradictions."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dsonas_hw.device.spec import load_device
from dsonas_hw.errors import ProfileError
from dsonas_hw.estimate.calibrate import Calibration, calibrate, group_of, streams_of
from dsonas_hw.estimate.calibrate_check import MeasuredNetwork
from dsonas_hw.estimate.calibrate_fit import FACTORS, Adjustment, Streams, combined, fit_adjustment
from dsonas_hw.estimate.calibrated import (
    CalibratedLatency,
    calibration_path,
    load_calibration,
    open_calibrated,
    save_calibration,
)
from dsonas_hw.estimate.estimate import EstimatedLatency, load_estimate
from dsonas_hw.kernel.spec import Kernel
from dsonas_hw.target import Target

BATCH = 128


def _network(rng: random.Random) -> list[Kernel]:
    kernels = []
    for _ in range(20):
        c = rng.choice([32, 64, 96])
        shape = (BATCH, c, 28, 28)
        choice = rng.choice(["window", "point", "depthwise", "pool", "relu", "norm"])
        if choice in ("window", "point", "depthwise"):
            k, groups = (1, 1) if choice == "point" else (3, c if choice == "depthwise" else 1)
            kernels.append(
                Kernel(
                    op="conv", inputs=(shape,), output=shape, kernel_size=(k, k), groups=groups,
                    num_weights=c * (c // groups) * k * k,
                )
            )  # fmt: skip
        elif choice == "pool":
            kernels.append(Kernel(op="avgpool", inputs=(shape,), output=shape, kernel_size=(3, 3)))
        elif choice == "norm":
            kernels.append(Kernel(op="batchnorm", inputs=(shape,), output=shape, num_weights=2 * c))
        else:
            kernels.append(Kernel(op="unary", inputs=(shape,), output=shape, function="relu"))
    return kernels


def _model(device: str = "1080ti") -> EstimatedLatency:
    return load_estimate(Target(device=device, runtime="eager", batch_size=BATCH))


def _true_latency_ms(model: EstimatedLatency, kernels: list[Kernel], noise: float = 1.0) -> float:
    """A synthetic device: 1.3 × slower, pools 1.5 ×, pointwise 0.8 ×, and 0.5 ms a network."""
    factors = {"pool": 1.5, "point_conv": 0.8}
    times = zip(kernels, model.times(kernels), strict=True)
    return noise * (0.5 + 1.3 * sum(gpu * factors.get(group_of(kernel), 1.0) for kernel, (gpu, _) in times))


def _networks(num: int, seed: int = 0, noise: float = 0.01) -> list[MeasuredNetwork]:
    rng, model = random.Random(seed), _model()
    found = []
    for index in range(num):
        kernels = _network(rng)
        latency = _true_latency_ms(model, kernels, 1 + rng.gauss(0, noise))
        found.append(MeasuredNetwork(name=f"n{index}", kernels=kernels, batch_size=BATCH, latency_ms=latency))
    return found


def _error(model: EstimatedLatency, networks: list[MeasuredNetwork]) -> float:
    return float(np.mean([abs(model.predict(n.kernels).value / n.latency_ms - 1) for n in networks]))


def _calibrated(calibration: Calibration) -> CalibratedLatency:
    return CalibratedLatency(load_device("1080ti"), batch_size=BATCH, calibration=calibration)


@pytest.mark.parametrize(("num", "limit"), [(3, 0.10), (10, 0.04), (40, 0.02)])
def test_error_falls_with_measurements(num: int, limit: float) -> None:
    unseen = _networks(40, seed=1)
    assert _error(_model(), unseen) > 0.2
    model = _calibrated(calibrate(_model(), _networks(num)))
    assert _error(model, unseen) < limit
    assert model.source == "calibrated"


@pytest.mark.parametrize("num", [3, 5, 10, 20])
@pytest.mark.parametrize("grouped", [False, True])
def test_never_worse_than_one_scale_factor(num: int, grouped: bool) -> None:
    """By resampling: mean error on 40 unseen networks, of a device that is slower throughout or by group."""
    model, unseen = _model(), _networks(40, seed=99, noise=0.05)
    everything = [*_networks(60, seed=7, noise=0.05), *unseen]
    estimated = np.array([model.predict(n.kernels).value for n in everything])
    measured = np.array([n.latency_ms for n in everything])
    if not grouped:
        rng = np.random.default_rng(0)
        measured = 1.3 * estimated * np.exp(rng.normal(0, 0.05, len(measured)))
    networks = [
        dataclasses.replace(n, latency_ms=float(ms)) for n, ms in zip(everything, measured, strict=True)
    ]
    ours, scaled = [], []
    for draw in range(6):
        chosen = random.Random(draw).sample(range(60), num)
        scale = float(np.exp(np.median(np.log(measured[chosen] / estimated[chosen]))))
        ours.append(_error(_calibrated(calibrate(model, [networks[i] for i in chosen])), networks[60:]))
        scaled.append(float(np.mean(np.abs(scale * estimated[60:] / measured[60:] - 1))))
    assert np.mean(ours) < np.mean(scaled) + 0.001
    if grouped and num >= 10:
        assert np.mean(ours) < 0.85 * np.mean(scaled)


def test_factors_are_recovered() -> None:
    found = calibrate(_model(), _networks(50, noise=0.002)).factors
    # Only products are identified: pool × gpu = 1.5 × 1.3 and so on.
    assert found["pool"] * found["gpu"] == pytest.approx(1.95, rel=0.1)
    assert found["point_conv"] * found["gpu"] == pytest.approx(1.04, rel=0.1)
    assert found["window_conv"] * found["gpu"] == pytest.approx(1.3, rel=0.1)


def test_cross_validated_error_and_interval_are_honest() -> None:
    calibration = calibrate(_model(), _networks(12, noise=0.03))
    assert calibration.mape < calibration.mape_before
    unseen = _networks(100, seed=2, noise=0.03)
    model = _calibrated(calibration)
    assert _error(model, unseen) < 2 * calibration.mape
    inside = [p.low <= n.latency_ms <= p.high for n in unseen for p in [model.predict(n.kernels)]]
    assert np.mean(inside) > 0.8


def test_an_outlier_is_named_and_moves_little() -> None:
    networks = _networks(12)
    wrong = dataclasses.replace(networks[5], latency_ms=networks[5].latency_ms * 3)
    networks[5] = wrong
    calibration = calibrate(_model(), networks)
    assert calibration.outliers == ("n5",)
    assert _error(_calibrated(calibration), _networks(40, seed=1)) < 0.06


@pytest.mark.parametrize(
    ("factor", "unit"),
    [
        (1e-3, "like seconds"),
        (1e3, "microseconds"),
        (1 / BATCH, "milliseconds per image"),
        (50.0, "check the device"),
    ],
)
def test_other_units_are_named(factor: float, unit: str) -> None:
    networks = [dataclasses.replace(n, latency_ms=n.latency_ms * factor) for n in _networks(5)]
    with pytest.raises(ProfileError, match=unit):
        calibrate(_model(), networks)


def test_one_row_in_seconds_is_named() -> None:
    networks = _networks(6)
    networks[2] = dataclasses.replace(networks[2], latency_ms=networks[2].latency_ms / 1000)
    with pytest.raises(ProfileError, match=r"n2.*seconds"):
        calibrate(_model(), networks)


@pytest.mark.parametrize("factor", [1e-23, 1e-2 / 3, 3e2, 1e23])
def test_one_row_far_from_all_others_is_named(factor: float) -> None:
    networks = _networks(6)
    networks[2] = dataclasses.replace(networks[2], latency_ms=factor * networks[2].latency_ms)
    with pytest.raises(ProfileError, match=r"n2.* what the other rows suggest; .*(measure it again|seconds)"):
        calibrate(_model(), networks)


def test_contradictions_are_refused() -> None:
    networks = _networks(8)
    wild = [
        dataclasses.replace(n, latency_ms=n.latency_ms * (0.3, 3.3)[i % 2]) for i, n in enumerate(networks)
    ]
    with pytest.raises(ProfileError, match="contradict"):
        calibrate(_model(), wild)
    twice = [*networks, dataclasses.replace(networks[0], name="again", latency_ms=2 * networks[0].latency_ms)]
    with pytest.raises(ProfileError, match=r"n0 .* and again"):
        calibrate(_model(), twice)


@pytest.mark.parametrize("num", [0, 2, 51])
def test_three_to_fifty_rows(num: int) -> None:
    with pytest.raises(ProfileError, match="3 to 50"):
        calibrate(_model(), _networks(num))


def test_host_bound_networks_move_the_host_alone() -> None:
    model = load_estimate(Target(device="v100", runtime="eager"))
    rng = random.Random(0)
    shape = (1, 16, 7, 7)
    relu = Kernel(op="unary", inputs=(shape,), output=shape, function="relu")
    conv = Kernel(op="conv", inputs=(shape,), output=shape, kernel_size=(3, 3), num_weights=16 * 16 * 9)
    networks = []
    for index in range(8):
        kernels = [rng.choice([relu, conv]) for _ in range(rng.randrange(40, 120))]
        latency = 1.5 * model.totals(kernels)[1]
        networks.append(MeasuredNetwork(name=str(index), kernels=kernels, batch_size=1, latency_ms=latency))
    factors = calibrate(model, networks).factors
    assert factors["host"] == pytest.approx(1.5, rel=0.1)
    assert factors["gpu"] == pytest.approx(1.0, rel=0.15)


def test_fit_agrees_with_finite_differences() -> None:
    """At the optimum the penalised objective is stationary."""
    rng = np.random.default_rng(0)
    streams = streams_of(_model(), _networks(6))
    assert isinstance(streams, Streams)
    measured = combined(*Adjustment(np.full(len(FACTORS), 0.05)).apply(streams), 6.0)
    found = fit_adjustment(streams, measured * np.exp(rng.normal(0, 0.005, 6)), 6.0, 0.01)
    predicted = combined(*found.apply(streams), 6.0)
    assert np.max(np.abs(np.log(measured / predicted))) < 0.03


def test_round_trip_and_refusals(tmp_path: Path) -> None:
    calibration = dataclasses.replace(calibrate(_model(), _networks(5)), created="2026-01-01T00:00:00+00:00")
    path = calibration_path(tmp_path, Target(device="1080ti", runtime="eager"))
    target = Target(device="1080ti", runtime="eager", batch_size=BATCH)
    assert open_calibrated(target, tmp_path) is None
    save_calibration(calibration, path)
    assert load_calibration(path) == calibration
    opened = open_calibrated(target, tmp_path)
    assert opened is not None
    kernels = _networks(1)[0].kernels
    assert opened.predict(kernels) == _calibrated(calibration).predict(kernels)
    with pytest.raises(ProfileError, match="another estimate"):
        CalibratedLatency(load_device("titan-xp"), batch_size=BATCH, calibration=calibration)


@pytest.mark.parametrize(
    "damage",
    [
        lambda d: d | {"schema_version": 7},
        lambda d: {k: v for k, v in d.items() if k != "factors"},
        lambda d: d | {"factors": d["factors"] | {"gpu": -1}},
        lambda d: d | {"mape": "small"},
        lambda d: d | {"num_networks": True},
        lambda d: d | {"network_ms": None},
        lambda d: d | {"extra": 1},
        lambda d: d | {"mape": 10**400},
        lambda d: d | {"anchors": [[1.0, 2.0]]},
        lambda d: d | {"anchors": "many"},
        lambda d: d | {"measured_by": None},
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, damage: Callable[[dict[str, object]], object]) -> None:
    path = tmp_path / "c.json"
    save_calibration(calibrate(_model(), _networks(3)), path)
    path.write_text(json.dumps(damage(json.loads(path.read_text()))))
    with pytest.raises(ProfileError, match=r"cannot be used: .*; calibrate again, or delete it"):
        load_calibration(path)
    path.write_text("{")
    with pytest.raises(ProfileError, match=r"cannot be used: .*; calibrate again, or delete it"):
        load_calibration(path)
