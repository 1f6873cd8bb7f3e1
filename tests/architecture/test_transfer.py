"""A block carried into another network: the same edges everywhere, other sizes, a width that fits."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from dsonas_hw.architecture.architecture import Architecture, close_block, identity_architecture
from dsonas_hw.architecture.costs import TargetCosts
from dsonas_hw.architecture.sample import random_architecture
from dsonas_hw.architecture.transfer import choose_block, receiving_space, transfer_block
from dsonas_hw.cli.main import main
from dsonas_hw.config import build_config, load_preset, overlay
from dsonas_hw.errors import UserError
from dsonas_hw.files import read_json, write_json
from dsonas_hw.run_directory import RunDirectory
from dsonas_hw.search.choose import load_architecture
from dsonas_hw.space.space import SearchSpace
from dsonas_hw.train.images import space_of_config

INNER: dict[str, Any] = {"levels": 2, "operations": ["sep3", "dil3", "skip"]}


def source_run(path: Path, *, share: bool, seed: int = 0) -> tuple[RunDirectory, Architecture]:
    """A run on digits with a random architecture."""
    space = {**INNER, "stages": [1, 2], "channels": 8, "share": share}
    config = build_config(overlay(load_preset("digits"), {"space": space}))
    architecture = random_architecture(space_of_config(config), random.Random(seed))
    run = RunDirectory(path)
    run.create(config)
    write_json(run.architecture_path, architecture.to_json())
    return run, architecture


@pytest.fixture(autouse=True)
def no_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    from dsonas_hw import task

    monkeypatch.setattr(task, "target_costs", lambda target, **options: TargetCosts())


def call(*args: object) -> int:
    try:
        main([str(arg) for arg in args])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


# -- which block ------------------------------------------------------------------------------------------


def test_the_block_of_a_share_architecture_needs_no_choice(tmp_path: Path) -> None:
    _, architecture = source_run(tmp_path / "run", share=True)
    assert choose_block(architecture, None) == choose_block(architecture, 3) == architecture.blocks[0]


def test_one_block_of_a_full_architecture_is_chosen(tmp_path: Path) -> None:
    _, architecture = source_run(tmp_path / "run", share=False)
    assert [choose_block(architecture, n) for n in (1, 2, 3)] == list(architecture.blocks)
    with pytest.raises(UserError, match="the 3 blocks of this architecture differ; choose one with --block"):
        choose_block(architecture, None)
    with pytest.raises(UserError, match="no block 4"):
        choose_block(architecture, 4)


def test_an_identity_is_not_carried() -> None:
    with pytest.raises(UserError, match="block 1 is the identity"):
        choose_block(identity_architecture(SearchSpace(levels=1)), None)


def test_the_new_network_takes_the_block_and_keeps_the_rest() -> None:
    source = SearchSpace(levels=2, operations=("sep3", "skip"), stages=(1,), channels=8, share=False)
    config = receiving_space(build_config(load_preset("imagenet")).space, source)
    assert (config.levels, config.operations, config.share) == (2, ("sep3", "skip"), True)
    assert (config.stages, config.channels, config.stem) == ((2, 2, 13, 6), 28, "imagenet")
    space = SearchSpace(**config.model_dump(), input_shape=(3, 224, 224), num_classes=1000)
    block = close_block(source, [(0, 1), (1, 3), (3, 5)])
    assert transfer_block(block, space, width=36).blocks == (block,) * 23


# -- the command ------------------------------------------------------------------------------------------


def test_transfer_to_imagenet_fits_the_width_to_the_budget(tmp_path: Path) -> None:
    run, architecture = source_run(tmp_path / "run", share=True)
    out = tmp_path / "imagenet"
    assert call("transfer", run.path, "--preset", "imagenet", "--budget", "flops=600M", "--out", out) == 0
    new, budgets = load_architecture(RunDirectory(out))
    assert [str(budget) for budget in budgets] == ["flops=600M"]
    assert set(new.blocks) == {architecture.blocks[0]}
    assert new.space == space_of_config(RunDirectory(out).load_config())
    flops = TargetCosts().costs(new).flops
    assert flops <= 600e6 < TargetCosts().costs(new.with_width(new.width + 4)).flops
    # The new run answers like a searched one: another budget is served by the width.
    other = tmp_path / "other"
    assert call("derive", out, "--budget", "flops=300M", "--out", other) == 0
    narrower, _ = load_architecture(RunDirectory(other))
    assert narrower.blocks == new.blocks
    assert narrower.width < new.width
    assert call("report", out) == 0


def test_without_a_budget_it_is_as_wide_as_the_preset_says(tmp_path: Path) -> None:
    run, _ = source_run(tmp_path / "run", share=True)
    assert call("transfer", run.path, "--preset", "imagenet", "--out", tmp_path / "new") == 0
    assert read_json(tmp_path / "new" / "architecture.json")["width"] == 36


def test_a_transferred_run_trains(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, architecture = source_run(tmp_path / "run", share=False)
    settings = ["data.subset=64", "data.test_subset=20", "retrain.epochs=1", "retrain.batch_size=32"]
    options = [part for setting in settings for part in ("--set", setting)]
    out = tmp_path / "new"
    assert call("transfer", run.path, "--dataset", "digits", "--block", 2, *options, "--out", out) == 0
    new, _ = load_architecture(RunDirectory(out))
    assert new.blocks == (architecture.blocks[1],) * 2
    assert call("retrain", out) == 0
    assert (out / "weights.npz").exists()
    capsys.readouterr()
    args = ("--block", 1, "--budget", "mac=200k", "--out", tmp_path / "json", "--json")
    assert call("transfer", run.path, "--preset", "digits", *args) == 0
    answer = json.loads(capsys.readouterr().out)
    assert 0 < answer["ratio"] <= 1
    assert answer["predicted"]["mac"] <= 200_000


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--preset", "digits", "--budget", "mac=6k"], "the network does not meet mac=6k"),
        (["--preset", "digits", "--budget", "mac=1k"], "below the smallest network"),
        ([], "--preset imagenet, or --dataset"),
        (["--preset", "imagnet"], "Did you mean imagenet"),
        (["--preset", "digits", "--block", "9"], "there is no block 9"),
    ],
)
def test_what_cannot_be_is_refused_and_writes_nothing(
    args: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, _ = source_run(tmp_path / "run", share=True)
    assert call("transfer", run.path, *args, "--out", tmp_path / "new") == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_run_without_architecture_and_a_used_directory_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, _ = source_run(tmp_path / "run", share=True)
    assert call("transfer", run.path, "--preset", "digits", "--out", run.path) == 2
    assert "holds a run already" in capsys.readouterr().err
    run.architecture_path.unlink()
    assert call("transfer", run.path, "--preset", "digits", "--out", tmp_path / "new") == 2
    assert "has no architecture yet" in capsys.readouterr().err
