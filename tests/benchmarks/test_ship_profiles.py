"""The shipped calibrations belong to the shipped constants, say where they come from, and are used."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.known_networks import fbnet_kernels, nasbench201_kernels
from benchmarks.ship_profiles import PROFILES
from dsonas_hw.device.spec import load_device
from dsonas_hw.estimate.calibrated import (
    CalibratedLatency,
    calibration_path,
    load_calibration,
    save_calibration,
)
from dsonas_hw.estimate.estimate import load_estimate
from dsonas_hw.profile.open import is_measured_here, open_cost_model
from dsonas_hw.target import Target

STALE = "the shipped calibrations are stale: python -m benchmarks.ship_profiles --measurements DIR"
FILES = sorted(PROFILES.glob("*/*"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_every_file_is_read_by_the_commands(path: Path, tmp_path: Path) -> None:
    found = load_calibration(path)
    assert path == calibration_path(PROFILES, found.target)
    model = open_cost_model(
        found.target,
        profiles_directory=tmp_path,
    )
    assert isinstance(model, CalibratedLatency), STALE
    assert model.calibration == found
    assert not is_measured_here(model)
    assert f"calibrated on {found.num_networks} networks measured by others" in model.disclaimer
    assert "(MIT)" in found.measured_by or "Apache-2.0" in found.measured_by or "BSD" in found.measured_by


def test_the_1080_ti_is_among_them() -> None:
    found = load_calibration(PROFILES / "1080ti" / "eager-fp32.calibration.json")
    assert "HELP (MIT)" in found.measured_by
    assert found.num_networks > 500
    assert found.mape < 0.06
    assert found.mape < found.mape_before / 2


def test_published_times_of_a_1080_ti_are_met() -> None:
    """Rows 1 and 2 of HELP's tables: NAS-Bench-201 at batch 256, FBNet at batch 64, in ms."""
    arch = "|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_3x3~1|skip_connect~2|"
    model = open_cost_model(Target(device="1080ti", runtime="eager", batch_size=256))
    assert model.predict(nasbench201_kernels(arch, 256)).value == pytest.approx(24.90, rel=0.1)
    choice = [8, 2, 1, 5, 1, 8, 4, 6, 6, 2, 5, 2, 5, 1, 2, 5, 2, 8, 2, 3, 5, 0]
    model = open_cost_model(Target(device="1080ti", runtime="eager", batch_size=64))
    assert model.predict(fbnet_kernels(choice, 64)).value == pytest.approx(13.14, rel=0.1)


def test_a_calibration_of_the_users_own_comes_first(tmp_path: Path) -> None:
    shipped = load_calibration(PROFILES / "1080ti" / "eager-fp32.calibration.json")
    own = {"measured_by": "", "num_networks": 7}
    path = calibration_path(tmp_path, Target(device="1080ti", runtime="eager"))
    import dataclasses

    save_calibration(dataclasses.replace(shipped, **own), path)  # type: ignore[arg-type]
    model = open_cost_model(Target(device="1080ti", runtime="eager"), profiles_directory=tmp_path)
    assert isinstance(model, CalibratedLatency)
    assert model.calibration.num_networks == 7
    assert is_measured_here(model)


def test_a_device_file_of_the_users_own_is_another_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shipped calibration of a 1080 Ti is not applied to a 1080 Ti with other numbers."""
    monkeypatch.setenv("DSONAS_HW_HOME", str(tmp_path))
    text = (PROFILES.parent / "devices" / "1080ti.toml").read_text()
    (tmp_path / "devices").mkdir()
    (tmp_path / "devices" / "1080ti.toml").write_text(text.replace("= 484.4", "= 300.0"))
    assert load_device("1080ti").memory_bandwidth_gb_s == 300.0
    assert open_cost_model(Target(device="1080ti", runtime="eager")).source == "estimated"


def test_a_card_without_measurements_is_estimated(tmp_path: Path) -> None:
    model = open_cost_model(Target(device="titan-xp", runtime="eager"), profiles_directory=tmp_path)
    assert model.source == "estimated"
    estimate = load_estimate(Target(device="titan-xp", runtime="eager"))
    assert model.disclaimer == estimate.disclaimer
