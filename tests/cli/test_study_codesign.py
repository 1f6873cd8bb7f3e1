"""`study codesign` on the command line: what is refused, in one line, before anything runs."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from dsonas_hw.cli.main import main


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSONAS_HW_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line that a command is refused with."""
    with pytest.raises(SystemExit) as end:
        main(["study", *words])
    assert end.value.code == 2
    output = capsys.readouterr()
    assert output.out == ""
    (line,) = output.err.splitlines()
    return line


CODESIGN = ("codesign", "--dataset", "digits", "--budget", "mac=100k")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("table3", "--devices", "v100"), "--devices is only for `study codesign`, not for table3"),
        (("table3", "--skip-infeasible"), "--skip-infeasible is only for `study codesign`"),
        (("table3", "--config", "a.yaml"), "--config is only for `study codesign`"),
        (CODESIGN, "needs --devices"),
        (("codesign", "--dataset", "digits", "--devices", "v100"), "there is no budget"),
        ((*CODESIGN, "--devices", "v100,2080tii"), "Did you mean 2080ti"),
        ((*CODESIGN, "--devices", "v100,V100"), "listed twice"),
        ((*CODESIGN, "--devices", "v100", "--seeds", "0,x"), "'0,x' is neither a whole number nor a list"),
        ((*CODESIGN, "--devices", "v100", "--seeds", "0"), "give 1 to 1000 seeds, not 0"),
        (("table3", "--seeds", "-2"), "give 1 to 1000 seeds, not -2"),
        (
            ("table3", "--preset", "digits"),
            "the budgets of study table3 are for cifar10-small, cifar10, not",
        ),
        (("table3", "--preset", "cifar"), "unknown preset 'cifar'"),
        (("table3", "--budget", "params=3M"), "budget params=3M is above the largest network of this space"),
        (("table3", "--budget", "macs=3M"), "ambiguous"),
        (("table3", "--set", "transfer.seed=1"), "transfers nothing"),
        ((*CODESIGN, "--devices", "v100", "--seeds", "1,1"), "different numbers"),
        ((*CODESIGN, "--devices", "v100", "--set", "space.levls=2"), "Did you mean levels"),
        (
            ("codesign", "--dataset", "digit", "--devices", "v100", "--budget", "mac=1k"),
            "Did you mean digits",
        ),
    ],
)
def test_refused_in_one_line(
    words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert message in refused(capsys, *words)
    assert not (tmp_path / "studies").exists()


def test_a_dead_ray_address_is_refused_before_anything_else(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    line = refused(capsys, *CODESIGN, "--devices", "no-such-device", "--ray-address", f"127.0.0.1:{port}")
    assert f"no Ray cluster answers at 127.0.0.1:{port}" in line


def test_a_dry_run_lists_the_jobs(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    main(
        [
            "study",
            "codesign",
            "--dataset",
            "digits",
            "--budget",
            "mac=100k,200k",
            "--devices",
            "v100,t4",
            "--dry-run",
        ]
    )
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:-2]] == [
        "pretrain-s0",
        *(f"search-{device}-s0" for device in ("v100", "t4")),
        "evaluate-s0",
        *(f"derive-{device}-mac-{limit}k-s0" for device in ("v100", "t4") for limit in (100, 200)),
    ]
    assert not (tmp_path / "studies").exists()


def test_report_finds_what_a_directory_holds(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from dsonas_hw.config import load_preset
    from dsonas_hw.study.codesign import save_codesign
    from dsonas_hw.study.codesign_plan import plan_codesign

    save_codesign(tmp_path / "study", plan_codesign(["v100"], ["mac=100k"], {**load_preset("digits")}))
    main(["report", str(tmp_path / "study"), "--json"])
    page = Path(json.loads(capsys.readouterr().out)["report"])
    text = page.read_text(encoding="utf-8")
    assert "This study is not complete" in text
    assert "search-v100-s0: waits for pretrain-s0" in text
