"""What makes a run's configuration: preset ◁ `--config` file ◁ options ◁ `--set`; and what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from dsonas_hw.config import preset_names

OPTIONS = ("run", "search")


def resolved(dsonas: Any, *args: str | Path) -> dict[str, Any]:
    """The configuration that a dry run shows."""
    result = dsonas("search", *args, "--dry-run", "--json")
    assert result.code == 0, result.err
    config: dict[str, Any] = result.json["config"]
    return config


@pytest.fixture(autouse=True)
def _here(empty_folder: Path) -> None:
    """In an empty folder, without profiles."""


def test_the_default_is_the_embedded_one(dsonas: Any) -> None:
    config = resolved(dsonas)
    assert (config["preset"], config["data"]["dataset"], config["budget"]) == ("digits", "digits", [])
    assert (config["target"]["device"], config["train_on"], config["seed"]) == ("local", None, 0)


@pytest.mark.parametrize(
    ("dataset", "preset"),
    [
        ("digits", "digits"),
        ("fashion-mnist", "fashion-mnist"),
        ("cifar10", "cifar10-steered"),
        ("cifar100", "cifar10-steered"),
        ("imagenet", "imagenet-steered"),
    ],
)
def test_a_dataset_has_a_preset(dataset: str, preset: str, dsonas: Any) -> None:
    config = resolved(dsonas, "--dataset", dataset)
    assert (config["data"]["dataset"], config["preset"]) == (dataset, preset)


@pytest.mark.parametrize("name", sorted({*preset_names()} - {"folder"}))
def test_every_preset_can_be_tried_dry(name: str, dsonas: Any) -> None:
    result = dsonas("run", "--preset", name, "--dry-run", "--json")
    assert result.code == 0, result.err
    shown = result.json
    assert shown["config"]["preset"] == name
    assert set(shown["costs"]) == {"complete supernet", "smallest network", "largest network"}
    for costs in shown["costs"].values():
        assert all(costs[quantity] > 0 for quantity in ("flops", "mac", "params", "memory_bytes"))
        assert costs["latency_ms"] is None
    assert shown["latency_source"] is None
    assert shown["space"]["log10_size"] > 0
    text = dsonas("run", "--preset", name, "--dry-run").out
    assert "complete supernet" in text
    assert "latency: unknown; this machine is measured first" in text


def test_options_lie_over_the_file_and_set_over_both(dsonas: Any, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("seed: 1\nbudget: mac=150k\nsearch: {epochs: 5, gamma: 0.02}\ndata: {dataset: cifar10}\n")
    config = resolved(dsonas, "--config", file)
    assert (config["preset"], config["seed"], config["budget"]) == ("cifar10-steered", 1, ["mac=150k"])
    assert (config["search"]["epochs"], config["search"]["gamma"]) == (5, 0.02)
    assert config["search"]["batch_size"] == 128
    config = resolved(
        dsonas, "--config", file, "--seed", "2", "--budget", "mac=30M, flops=300M", "--budget", "params=2M",
        "--batch-size", "4", "--threads", "2", "--set", "seed=3", "--set", "search.epochs=7",
        "--set", "space.operations=[sep3, max3]", "--set", "space.share=false",
    )  # fmt: skip
    assert (config["seed"], config["search"]["epochs"], config["search"]["gamma"]) == (3, 7, 0.02)
    assert config["budget"] == ["mac=30M", "flops=300M", "params=2M"]
    assert (config["target"]["batch_size"], config["target"]["threads"]) == (4, 2)
    assert (config["space"]["operations"], config["space"]["share"]) == (["sep3", "max3"], False)


def test_the_configuration_of_a_run_can_be_used_again(dsonas: Any, tmp_path: Path) -> None:
    """config.yaml of a run directory, with its versions, is a `--config` file."""
    config = resolved(dsonas, "--seed", "5", "--budget", "mac=150k")
    file = tmp_path / "config.yaml"
    file.write_text(json.dumps({**config, "versions": {"torch": "2"}}))
    assert resolved(dsonas, "--config", file) == config


def test_an_absent_gpu_s_latency_is_estimated(dsonas: Any) -> None:
    result = dsonas("search", "--device", "1080ti", "--budget", "latency=0.2ms", "--dry-run", "--json")
    assert result.code == 0, result.err
    assert result.json["latency_source"] == "estimated"
    assert result.json["costs"]["complete supernet"]["latency_ms"] > 0
    text = dsonas("search", "--device", "1080ti", "--budget", "latency=0.2ms", "--dry-run").out
    assert "predicted from estimated kernels of 1080ti, tensorrt, fp32, batch 1" in text
    assert re.search(r"of the complete supernet [\d.]+ms to [\d.]+ms\nESTIMATED", text)


@pytest.mark.parametrize("command", OPTIONS)
@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--dataset", "cifr10"], "unknown dataset 'cifr10'. Did you mean cifar10"),
        (["--dataset", "folder:/nowhere"], "/nowhere is not a directory"),
        (["--dataset", "cifar10", "--data-dir", "nowhere"], "CIFAR10 is not in nowhere. Pass --download, or"),
        (["--dataset", "imagenet", "--data-dir", "nowhere"], "nowhere"),
        (["--device", "1080it", "--budget", "mac=150k"], "unknown device '1080it'. Did you mean 1080ti"),
        (["--device", "1080ti", "--runtime", "ort-cpu", "--budget", "latency=1ms"], "ort-cpu runs on"),
        (["--runtime", "ort-gpu", "--budget", "mac=150k"], "unknown runtime 'ort-gpu'. Did you mean ort-cpu"),
        (["--preset", "digit"], "unknown preset 'digit'. Did you mean digits?"),
        (["--set", "search.epoch=3"], "unknown key 'search.epoch'. Did you mean epochs"),
        (["--set", "searhc.epochs=3"], "unknown key 'searhc'. Did you mean search"),
        (["--set", "search.epochs"], "is not KEY=VALUE"),
        (["--set", "search.epochs=many"], "search.epochs: Input should be a valid integer"),
        (["--set", "search.epochs=[1"], "--set search.epochs is not valid YAML"),
        (["--set", "space.operations=[sep3, sep4]"], "sep4"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
        (["--budget", "mac"], "has no limit"),
        (["--budget", "macs=3M"], "budget 'macs' is ambiguous"),
        (["--budget", "latency=5"], "has no unit; write e.g. latency=5ms"),
        (["--budget", "mcs=5"], "unknown budget 'mcs'"),
        (["--budget", "mac=1M,mac=2M"], "is given twice"),
        (["--budget", "mac=1"], "budget mac=1 is below the smallest network of this space; feasible: 1.1"),
        (["--budget", "energy=5mJ"], "energy of local with ort-cpu is not known: only NVIDIA GPUs are"),
        (["--resume", "nowhere"], "nowhere is not a run directory"),
        (["--out", "file"], "the run directory file cannot be written; choose another with --out"),
        (["--out", "file/below"], "the run directory file/below cannot be written"),
        (["--out", "full"], "full is not empty and is not a run"),
        (("--train-on", "tpu"), "cannot train on 'tpu'; use cpu, cuda or cuda:N"),
        (("--seed", "9" * 20), "seed: "),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_and_leaves_nothing_behind(
    args: list[str], message: str, command: str, dsonas: Any, empty_folder: Path
) -> None:
    (empty_folder / "file").write_text("")
    (empty_folder / "full").mkdir()
    (empty_folder / "full" / "diary.txt").write_text("")
    line = dsonas(command, *args).refused()
    assert message in line
    assert {path.name for path in empty_folder.iterdir()} == {"file", "full"}
    assert not (empty_folder.parent / "home").exists()


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no folder here that not even root can write to")
@pytest.mark.parametrize("command", OPTIONS)
def test_a_folder_that_cannot_be_written_is_refused_even_to_root(command: str, dsonas: Any) -> None:
    assert "/proc/run cannot be written" in dsonas(command, "--out", "/proc/run").refused()


def test_latency_without_a_profile_names_the_command_that_makes_one(dsonas: Any) -> None:
    line = dsonas("search", "--budget", "latency=1ms").refused()
    assert (
        "local has no profile for ort-cpu, fp32, batch 1, 1 thread; measure it with: dsonas-hw profile"
        in line
    )


def test_more_threads_than_cores_are_not_measured(dsonas: Any, empty_folder: Path) -> None:
    line = dsonas("profile", "--preset", "digits", "--threads", "100000").refused()
    assert "100000 threads were asked for; this machine has" in line


def test_run_directories_are_numbered(dsonas: Any, empty_folder: Path) -> None:
    from dsonas_hw.cli.open_run import next_run

    assert next_run("digits") == Path("runs/digits-1")
    assert next_run("digits") == Path("runs/digits-2")
    assert next_run("folder:~/my pictures") == Path("runs/my-pictures-1")
    assert next_run("folder:my pictures") == Path("runs/my-pictures-2")
    assert (empty_folder / "runs" / "digits-2").is_dir()
    refused = dsonas("search", "--dataset", "digits", "--budget", "mac=1")
    assert refused.code == 2
    dsonas("search", "--dataset", "digits", "--dry-run")
    assert not (empty_folder / "runs" / "digits-3").exists(), "a command that did nothing leaves nothing"


def test_of_searches_that_start_together_each_has_a_folder_of_its_own(empty_folder: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    from dsonas_hw.cli.open_run import next_run

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: next_run("digits"), range(40)))
    assert len(set(found)) == 40
