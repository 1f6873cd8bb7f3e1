"""`dsonas-hw devices`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dsonas_hw.cli.main import main


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSONAS_HW_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "160")


def test_one_json_line_per_device(capsys: pytest.CaptureFixture[str]) -> None:
    main(["devices", "--json"])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    by_name = {row["name"]: row for row in rows}
    assert rows[0]["name"] == "local"
    assert by_name["local"]["here"]
    assert len(by_name) == len(rows) > 50
    card = by_name["1080ti"]
    assert card["compute_capability"] == "6.1"
    assert card["supported"]["tensorrt"]["versions"] == ">=8.6,<10.0"
    assert card["here"] or card["why_not_here"]


def test_the_table_names_devices_and_reasons(capsys: pytest.CaptureFixture[str]) -> None:
    main(["devices"])
    out = capsys.readouterr().out
    for name in ("local", "1080ti", "rtx5090", "jetson-orin"):
        assert name in out
    assert "ort-cpu" in out


def test_only_what_is_here(capsys: pytest.CaptureFixture[str]) -> None:
    main(["devices", "--here", "--json"])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert all(row["here"] for row in rows)
    assert rows[0]["name"] == "local"


def test_details_of_one_device(capsys: pytest.CaptureFixture[str]) -> None:
    main(["devices", "GTX 1080 Ti"])
    out = capsys.readouterr().out
    assert "28 at 1582 MHz" in out
    assert "484.4 GB/s" in out
    assert "cu126" in out
    assert "no counter" in out


def test_a_mistyped_name_is_one_line_and_exit_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["devices", "1080to"])
    assert stop.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert "Did you mean 1080ti" in captured.err


def test_a_damaged_file_of_the_user_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "devices").mkdir()
    (tmp_path / "devices" / "mine.toml").write_text("num_sms = [red]-1")
    with pytest.raises(SystemExit) as stop:
        main(["devices"])
    assert stop.value.code == 2
    assert "mine.toml" in capsys.readouterr().err


def test_a_users_device_is_listed_and_its_markup_is_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from dsonas_hw.device import spec

    shipped = spec._device_files(None)["gtx1080"].read_text()
    (tmp_path / "devices").mkdir()
    (tmp_path / "devices" / "mine.toml").write_text(
        shipped.replace('title = "NVIDIA GeForce GTX 1080"', 'title = "[bold]Mine[/nonsense]"')
        .replace('aliases = ["1080", "gtx-1080"]', "aliases = []")
        .replace('nvml_names = ["NVIDIA GeForce GTX 1080", "GeForce GTX 1080"]', "nvml_names = []")
    )
    main(["devices", "mine"])
    assert "[bold]Mine[/nonsense]" in capsys.readouterr().out


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    main(["devices", "--help"])
    assert "dsonas-hw devices 1080ti" in capsys.readouterr().out
