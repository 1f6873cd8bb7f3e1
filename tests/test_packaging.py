"""What is installed: the wheel and the source archive hold every file of the package, and nothing else."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import tomllib

ROOT = Path(__file__).parents[1]
FOLDERS = {
    "dsonas_hw": "dsonas_hw",
    "cli": "dsonas_hw/cli",
    "devices": "dsonas_hw/devices",
    "profiles": "dsonas_hw/profiles",
}
"""Folder of the repository → where it is installed."""
LEFT_OUT = ("__pycache__", "*.egg-info", "*.lock", "*.pyc")


def installed_files() -> set[str]:
    """The repository's files under the names they should be installed by."""
    return {
        f"{target}/{path.relative_to(ROOT / folder).as_posix()}"
        for folder, target in FOLDERS.items()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and not any(part.match(name) for part in (path, path.parent) for name in LEFT_OUT)
    }


def build(kind: str, source: Path, out: Path) -> Path:
    """Run the build backend as pip does, without fetching it anew."""
    code = f"import sys, setuptools.build_meta as b; print(b.build_{kind}(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(out)], cwd=source, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return out / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A source archive of a copy of the repository, and the wheel that is built from that archive."""
    copy, out = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("dist")
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns(*LEFT_OUT))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    archive = build("sdist", copy, out)
    with tarfile.open(archive) as tar:
        tar.extractall(copy / "unpacked", filter="data")
    (unpacked,) = (copy / "unpacked").iterdir()
    return archive, build("wheel", unpacked, out)


def test_the_wheel_holds_the_package_and_nothing_else(archives: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(archives[1]) as wheel:
        names = set(wheel.namelist())
    about = {name for name in names if ".dist-info/" in name}
    assert names - about == installed_files()
    assert {name.split("/", 1)[1] for name in about} >= {"METADATA", "entry_points.txt", "licenses/LICENSE"}


def test_the_installed_package_finds_its_files(archives: tuple[Path, Path], tmp_path: Path) -> None:
    """Every kind of data file is read by the code that needs it, from the wheel alone."""
    with zipfile.ZipFile(archives[1]) as wheel:
        wheel.extractall(tmp_path / "site")
    code = """
import json
import dsonas_hw, dsonas_hw.cli.main
from dsonas_hw.config import load_preset, preset_names
from dsonas_hw.device.spec import list_devices
from dsonas_hw.profile.open import open_cost_model, shipped_profiles
from dsonas_hw.report.page import write_page
from dsonas_hw.report.parts import Page
from dsonas_hw.target import Target
from dsonas_hw.study.load import shipped_studies
print(json.dumps({
    "package": dsonas_hw.__file__,
    "presets": [load_preset(name)["preset"] for name in preset_names()],
    "devices": len(list_devices()),
    "studies": len(shipped_studies()),
    "estimate": open_cost_model(Target(device="1080ti", runtime="tensorrt")).target.device,
    "page": len(write_page(Page(title="A run", kicker="", heading="", subtitle="", sections=[]))) > 1000,
    "profiles": len(list(shipped_profiles().glob("*/*.calibration.json"))),
    "calibrated": open_cost_model(Target(device="1080ti", runtime="eager")).source,
}))
"""
    environment = {"PYTHONPATH": str(tmp_path / "site"), "DSONAS_HW_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert Path(found["package"]).is_relative_to(tmp_path / "site")
    assert {"digits", "fashion-mnist", "cifar10", "imagenet"} <= set(found["presets"])
    assert found["devices"] == len(list((ROOT / "devices").glob("*.toml")))
    assert found["studies"] == len(list((ROOT / "dsonas_hw" / "studies").glob("*.yaml")))
    assert (found["estimate"], found["page"], found["calibrated"]) == ("1080ti", True, "calibrated")
    assert found["profiles"] == len(list((ROOT / "profiles").glob("*/*")))


def test_pre_commit_takes_its_configuration() -> None:
    from pre_commit.clientlib import load_config

    load_config(str(ROOT / ".pre-commit-config.yaml"))


def test_version_is_written_once_and_the_same() -> None:
    import dsonas_hw

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == dsonas_hw.__version__


def test_make_help_names_every_target() -> None:
    make = shutil.which("make")
    if make is None:
        pytest.skip("make is not installed")
    text = subprocess.run([make, "-s", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in ("setup", "demo", "test", "lint", "clean"):
        assert f"make {target}" in text
