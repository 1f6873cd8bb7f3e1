"""The shipped profiles are what the estimate says today, and say that they are estimates."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.ship_profiles import DEVICES, PROFILES, shipped_tables
from dsonas_hw.architecture.architecture import complete_architecture
from dsonas_hw.architecture.lower import lower
from dsonas_hw.config import DeviceConfig, build_config, load_preset, preset_names
from dsonas_hw.profile.open import find_table, open_latency_model, resolve_target, shipped_profiles
from dsonas_hw.table.table import load_table, table_path
from dsonas_hw.train.images import space_of_config

STALE = "the shipped profiles are stale; write them again with: python -m benchmarks.ship_profiles"


def test_the_shipped_profiles_are_not_stale() -> None:
    wanted = {}
    for header, rows in shipped_tables():
        path = table_path(PROFILES, header.target)
        wanted[path] = rows
        assert path.is_file(), STALE
        found = load_table(path)
        assert found.header == header, STALE
        assert list(found.kernels) == [row.kernel.key for row in rows], STALE
        for row in rows:
            # Four digits are stored; a logarithm may round otherwise on another processor.
            stored = found.kernels[row.kernel.key].latency_ms
            assert stored == pytest.approx(row.latency_ms, rel=1e-3), STALE
    assert set(PROFILES.glob("*/*")) == set(wanted), STALE


def test_every_gpu_of_the_catalogue_has_a_table_whose_every_line_is_marked() -> None:
    tables = {path.parent.name: path for path in PROFILES.glob("*/*.jsonl")}
    assert set(tables) == {path.stem for path in DEVICES.glob("*.toml")}
    for path in tables.values():
        assert all('"source": "estimated"' in line for line in path.read_text().splitlines())
    table = load_table(tables["1080ti"])
    assert table.header.source == "estimated"
    assert {row.source for row in table.kernels.values()} == {"estimated"}
    assert "ESTIMATED, NOT MEASURED" in str(table.header.settings["caution"])
    assert sum(path.stat().st_size for path in tables.values()) < 4_000_000


@pytest.mark.parametrize("preset", preset_names())
def test_a_table_covers_every_preset(preset: str) -> None:
    kernels = lower(complete_architecture(space_of_config(build_config(load_preset(preset)))), batch_size=1)
    table = load_table(next((PROFILES / "1080ti").iterdir()))
    assert preset in str(table.header.settings["presets"])
    assert {kernel.key for kernel in kernels} <= set(table.kernels)


@pytest.mark.parametrize("device", ["1080ti", "a100", "jetson-orin", "rtx5090"])
def test_a_device_with_a_shipped_profile_is_ready_to_search_for(device: str, tmp_path: Path) -> None:
    target = resolve_target(DeviceConfig(device=device))
    model = open_latency_model(target, profiles_directory=tmp_path)
    path = find_table(target, profiles_directory=tmp_path)
    assert path is not None
    assert path.is_relative_to(shipped_profiles())
    table = load_table(path)
    assert model.source == table.header.source == "estimated"
    assert model.caution == table.header.settings["caution"]
    for row in list(table.kernels.values())[::20]:
        assert model.kernel_latency_ms(row.kernel) == pytest.approx(row.latency_ms, rel=1e-3)
