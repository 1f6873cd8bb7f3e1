"""`profile` of a space of one's own, messages that advise it, commands that measure what is missing."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from dsonas_hw.architecture.architecture import complete_architecture
from dsonas_hw.architecture.onnx import model_bytes
from dsonas_hw.cli.options import config_from_options
from dsonas_hw.config import RunConfig, preset_names, space_options
from dsonas_hw.profile.profile_space import SpaceProfile, is_profiled
from dsonas_hw.space.space import SearchSpace
from dsonas_hw.target import Target
from dsonas_hw.train.images import build_space, space_of_config

SHORT = ["--networks", "4", "--no-check"]
SMALL = {"levels": 1, "stages": [1], "channels": 8, "operations": ["sep3"], "width_step": 4}
OTHER = {"levels": 2, "stages": [1, 1], "channels": 8, "operations": ["conv3", "max3"]}
"""Has kernels that a table of `SMALL` lacks."""


def config_file(folder: Path, space: dict[str, Any], **more: Any) -> Path:
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump({"preset": "digits", "space": space, **more}))
    return path


def configured(*options: str) -> RunConfig:
    """The configuration that `--preset`, `--config` and `--set` make."""
    pairs = list(zip(options[::2], options[1::2], strict=True))
    files = [Path(value) for name, value in pairs if name == "--config"]
    found: RunConfig = config_from_options(
        preset=next((value for name, value in pairs if name == "--preset"), None),
        config_file=files[0] if files else None,
        settings=tuple(value for name, value in pairs if name == "--set"),
        budget=(),
    )
    return found


@pytest.fixture(scope="module")
def small_home(tmp_path_factory: pytest.TempPathFactory, dsonas: Any) -> Path:
    """A data directory with a table of `SMALL`, from a profile with `--config`."""
    folder = tmp_path_factory.mktemp("small")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DSONAS_HW_HOME", str(folder))
        result = dsonas("profile", "--config", config_file(folder, SMALL), *SHORT)
        assert result.code == 0, result.err
    return folder


@pytest.fixture
def home(small_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it."""
    import shutil

    folder = Path(shutil.copytree(small_home, tmp_path / "home"))
    monkeypatch.setenv("DSONAS_HW_HOME", str(folder))
    monkeypatch.chdir(tmp_path)
    return folder


def test_a_space_from_a_file_is_profiled(home: Path) -> None:
    space = space_of_config(configured("--config", str(home / "mine.yaml")))
    assert space.operations == ("sep3",)
    assert is_profiled(space, Target(runtime="ort-cpu"), profiles_directory=home / "profiles")


def test_settings_change_every_preset_and_the_target_is_the_files(
    tmp_path: Path, empty_folder: Path, monkeypatch: pytest.MonkeyPatch, dsonas: Any
) -> None:
    from dsonas_hw.profile import generic_profile
    from dsonas_hw.profile import profile_space as profiling

    asked: list[tuple[str, SearchSpace, Target]] = []
    asked_any: list[Target] = []

    def note(space: SearchSpace, conditions: Target, *, name: str, **_: object) -> SpaceProfile:
        asked.append((name, space, conditions))
        return SpaceProfile(path=tmp_path / "table.jsonl", check=None)

    monkeypatch.setattr(profiling, "profile_space", note)
    monkeypatch.setattr(
        generic_profile, "profile_generic", lambda path, where, fit, progress: asked_any.append(where)
    )
    file = config_file(tmp_path, {"levels": 1}, target={"batch_size": 4})
    presets = ["--preset", "digits", "--preset", "fashion-mnist"]
    result = dsonas("profile", *presets, "--config", file, "--set", "space.width_step=8", "--no-check")
    assert result.code == 0, result.err
    assert [space.input_shape for _, space, _ in asked] == [(1, 8, 8), (1, 28, 28)]
    assert {(space.levels, space.width_step) for _, space, _ in asked} == {(1, 8)}
    assert [name for name, _, _ in asked] == [
        "digits mine space.width_step=8",
        "fashion-mnist mine space.width_step=8",
    ]
    assert {conditions.batch_size for _, _, conditions in asked} == {4}
    asked.clear()
    dsonas("profile", "--config", file, "--batch-size", "2", "--no-check")  # options go before the file
    dsonas("profile", "--set", "data.dataset=fashion-mnist", "--no-check")  # its own preset, as for search
    dsonas("profile", "--no-check")
    assert [name for name, _, _ in asked] == ["digits mine", "fashion-mnist data.dataset=fashion-mnist",
                                              "digits", "fashion-mnist", "cifar10"]  # fmt: skip
    assert asked_any == [asked[-1][2]]  # networks of every kind, where no space is named
    assert asked[0][2].batch_size == 2
    assert asked[1][1] == space_of_config(configured("--preset", "fashion-mnist"))


@pytest.mark.parametrize("preset", sorted({*preset_names()} - {"folder"}))
def test_the_options_of_a_space_make_that_space(preset: str) -> None:
    changes = ["--set", "space.operations=[sep3,conv1]", "--set", "space.stages=[1]", "--set",
               "space.share=false", "--set", "data.image_size=32", "--set", "search.epochs=3"]  # fmt: skip
    for options in (["--preset", preset], ["--preset", preset, *changes]):
        config = configured(*options)
        words = shlex.split(space_options(config))
        assert words[:2] == ["--preset", preset]
        again = configured(*words)
        assert build_space(again, (3, 32, 32), 10) == build_space(config, (3, 32, 32), 10)
        assert again.data == config.data
    assert space_options(configured("--preset", preset)) == f"--preset {preset}"


def test_the_advised_command_can_be_pasted_and_covers_the_space(
    tmp_path: Path, empty_folder: Path, dsonas: Any
) -> None:
    file, elsewhere = config_file(tmp_path, SMALL), tmp_path / "my profiles"
    search = ["search", "--config", file, "--budget", "latency=1us", "--profiles", elsewhere]
    line = dsonas(*search).refused()
    program, *words = shlex.split(line.split("measure it with: ")[1])
    assert program == "dsonas-hw"
    result = dsonas(*words, *SHORT)
    assert result.code == 0, result.err
    # Now it is the budget that is refused.
    assert "latency=0.001ms is below the smallest network" in dsonas(*search).refused()
    space = space_of_config(configured("--config", str(file)))
    assert is_profiled(space, Target(runtime="ort-cpu"), profiles_directory=elsewhere)


def test_search_measures_the_kernels_that_the_table_lacks_and_says_so_once(
    home: Path, tmp_path: Path, dsonas: Any
) -> None:
    search = ["search", "--config", config_file(tmp_path, OTHER), "--budget", "latency=1us"]
    result = dsonas(*search)
    told, refused = result.err.splitlines()
    assert "kernels are new to the table of local: measuring them, about " in told
    assert refused.startswith("error: budget latency=0.001ms is below the smallest network of this space")
    assert "below the smallest" in dsonas(*search).refused(), "known by now"


def test_what_needs_no_latency_measures_nothing(home: Path, tmp_path: Path, dsonas: Any) -> None:
    content = next(home.rglob("*.jsonl")).read_bytes()
    file = config_file(tmp_path, OTHER)
    assert "below the smallest" in dsonas("search", "--config", file, "--budget", "mac=1").refused()
    assert "above the largest" in dsonas("search", "--config", file, "--budget", "mac=1T", "--dry-run").err
    assert dsonas("search", "--config", file, "--budget", "mac=20k", "--dry-run").code == 0
    assert next(home.rglob("*.jsonl")).read_bytes() == content


def other_network(folder: Path) -> Path:
    space = SearchSpace(levels=1, operations=("conv3",), stages=(1, 1), channels=8, input_shape=(1, 10, 10))
    path = folder / "other.onnx"
    path.write_bytes(model_bytes(complete_architecture(space)))
    return path


def test_predict_measures_a_network_with_unknown_kernels(home: Path, tmp_path: Path, dsonas: Any) -> None:
    file = other_network(tmp_path)
    result = dsonas("predict", file, "--json")
    assert result.code == 0, result.err
    assert result.json["unknown_kernels"] == []
    (line,) = result.err.splitlines()
    assert " new to the table of local: measuring them, about " in line
    again = dsonas("predict", file, "--json")
    assert (again.code, again.err) == (0, "")
    assert again.json == result.json


def test_predict_from_a_table_that_cannot_be_written_advises_nothing_that_cannot_help(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dsonas: Any
) -> None:
    from dsonas_hw.profile import on_demand

    monkeypatch.setattr(on_demand.os, "access", lambda path, mode: False)
    content = next(home.rglob("*.jsonl")).read_bytes()
    result = dsonas("predict", other_network(tmp_path), "--json")
    assert "measur" not in result.err.replace("never measured", "")
    assert "profile --" not in result.err
    assert next(home.rglob("*.jsonl")).read_bytes() == content


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--set", "space.level=1"], "unknown key 'space.level'. Did you mean levels"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
        (["--preset", "digit"], "unknown preset 'digit'. Did you mean digits?"),
        (["--set", "space.stages=[1,1,1,1,1,1,1,1]", "--set", "data.dataset=folder:/nowhere"], "/nowhere"),
        (["--set", "target.device=1080it"], "unknown device '1080it'"),
    ],
)
def test_a_mistake_is_one_line(args: list[str], message: str, empty_folder: Path, dsonas: Any) -> None:
    assert message in dsonas("profile", *args).refused()
    assert not (empty_folder.parent / "home").exists()


def test_the_file_of_a_run_profiles_its_space(home: Path, tmp_path: Path, dsonas: Any) -> None:
    """config.yaml of a run directory, with its versions, is a `--config` file here too."""
    shown = dsonas("search", "--config", home / "mine.yaml", "--dry-run", "--json").json["config"]
    file = tmp_path / "config.yaml"
    file.write_text(json.dumps({**shown, "versions": {"torch": "2"}}))
    result = dsonas("profile", "--config", file, *SHORT, "--json")
    assert result.code == 0, result.err
    assert result.json["table"] == str(next(home.rglob("*.jsonl")))
