"""Options that make a run's configuration: preset ◁ `--config` file ◁ options ◁ `--set`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from dsonas_hw.budget import LIMITABLE
from dsonas_hw.cli.common import say
from dsonas_hw.errors import DataError, UserError, closest, command_line
from dsonas_hw.train.known_images import KNOWN_IMAGES

if TYPE_CHECKING:
    from dsonas_hw.config import RunConfig

F = TypeVar("F", bound=Callable[..., Any])

#: Datasets that take the preset of another; the rest have one of their own name.
_PRESET_OF_DATASET = {
    "cifar10": "cifar10-steered", "cifar100": "cifar10-steered", "imagenet": "imagenet-steered",
}  # fmt: skip
"""Where a budget is met by steering γ, not the paper's presets, whose γ is constant."""
#: option → place in the configuration
_PLACES = {
    "dataset": ("data", "dataset"),
    "data_dir": ("data", "data_dir"),
    "train_dir": ("data", "train_dir"),
    "test_dir": ("data", "test_dir"),
    "device": ("target", "device"),
    "runtime": ("target", "runtime"),
    "precision": ("target", "precision"),
    "batch_size": ("target", "batch_size"),
    "threads": ("target", "threads"),
    "statistic": ("target", "statistic"),
    "seed": ("seed",),
    "train_on": ("train_on",),
}

_CHANGES = [
    click.option("--config", "config_file", type=click.Path(path_type=Path, dir_okay=False),
                 help="YAML file laid over the preset; unknown keys are refused."),
    click.option("--set", "settings", multiple=True, metavar="KEY=VALUE",
                 help="Any field of the configuration (see: dsonas-hw config), e.g. --set search.epochs=60."),
]  # fmt: skip
_OPTIONS = [
    click.option("--preset", metavar="NAME",
                 help="Start from this preset (default: the dataset's own; see: dsonas-hw presets)."),
    *_CHANGES,
    click.option("--dataset", metavar="NAME",
                 help=f"{', '.join(KNOWN_IMAGES)} or folder:PATH."),
    click.option("--data-dir", type=click.Path(path_type=Path), metavar="DIR",
                 help="Where the dataset's files are, or go with --download."),
    click.option("--train-dir", type=click.Path(path_type=Path), metavar="DIR",
                 help="Of folder:PATH, the folder of the training classes, where its name does not tell."),
    click.option("--test-dir", type=click.Path(path_type=Path), metavar="DIR",
                 help="Of folder:PATH, the folder of the test classes."),
    click.option("--budget", "budget", multiple=True, metavar="LIMITS",
                 help=", ".join(f"{name}={cost.example}" for name, cost in LIMITABLE.items())
                      + " (mac: memory access, flops: multiply-adds); repeat it or give a comma list; all "
                      "must hold."),
    click.option("--device", metavar="NAME",
                 help="Target whose costs count: local, 1080ti, … (see: dsonas-hw devices)."),
    click.option("--runtime", metavar="NAME", help="What runs networks there (see: dsonas-hw devices)."),
    click.option("--precision", type=click.Choice(["fp32", "fp16", "int8"]), help="Of the deployed network."),
    click.option("--batch-size", type=click.IntRange(1), metavar="N",
                 help="Images per inference on the target."),
    click.option("--threads", type=click.IntRange(1), metavar="N", help="CPU threads of the inference."),
    click.option("--statistic", type=click.Choice(["p50", "p95", "p99"]),
                 help="Of the measured latency, what a budget limits (default: p50, the median)."),
    click.option("--train-on", metavar="WHERE",
                 help="Where training runs: cpu, cuda, cuda:1 (default: CUDA if there)."),
    click.option("--seed", type=click.IntRange(0), metavar="N", help="Same seed, same machine: same result."),
]  # fmt: skip


def configuration_options(function: F) -> F:
    """Add every option that `config_from_options` reads."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def changes_options(function: F) -> F:
    """`--config` and `--set` alone, for a command that has options of its own for the rest."""
    for option in reversed(_CHANGES):
        function = option(function)
    return function


def profiles_option(function: F) -> F:
    """`--profiles DIR`: where lookup tables are."""
    return click.option(
        "--profiles",
        "profiles_directory",
        metavar="DIR",
        type=click.Path(path_type=Path, file_okay=False),
        help="Lookup tables (default: the user's data directory; see DSONAS_HW_HOME).",
    )(function)


def input_shape_option(function: F) -> F:
    """`--input-shape NAME=1x3x640x480`, repeatable: sizes that a file leaves open."""
    return click.option(
        "--input-shape",
        "input_shapes",
        multiple=True,
        metavar="NAME=SIZES",
        callback=lambda context, parameter, texts: parse_input_shapes(texts),
        help="Sizes of an input that the file leaves open, as image=1x3x640x480; may be repeated.",
    )(function)


def parse_input_shapes(texts: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    """`NAME=SIZES` options as shapes by name.

    Raises:
        click.BadParameter: not NAME=SIZES, or a name that is given twice.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for text in texts:
        name, equals, sizes = text.rpartition("=")
        parts = sizes.replace("×", "x").lower().split("x")
        if not equals or not name or not all(part.isascii() and part.isdigit() for part in parts):
            raise click.BadParameter(f"{text!r} is not NAME=SIZES, as in --input-shape image=1x3x640x480")
        if name in shapes:
            raise click.BadParameter(f"{name!r} is given twice")
        shapes[name] = tuple(int(part) for part in parts)
    return shapes


def config_from_options(
    *,
    preset: str | None,
    config_file: Path | None,
    settings: tuple[str, ...],
    budget: tuple[str, ...],
    base: dict[str, Any] | None = None,
    **options: Any,
) -> Any:
    """The checked configuration (`dsonas_hw.config.RunConfig`).

    base: what the options are laid over, instead of a preset.

    Raises:
        UserError: an unknown preset or key, or a bad value.
    """
    from dsonas_hw.config import build_config, load_config_file, load_preset, overlay
    from dsonas_hw.config.presets import FOLDER_PRESET

    changes: dict[str, Any] = load_config_file(config_file) if config_file else {}
    changes.pop("versions", None)
    for name, value in options.items():
        if value is not None:
            changes = overlay(changes, _nest(_PLACES[name], value))
    changes = overlay(changes, parse_settings(settings))
    if budget:
        changes["budget"] = [part.strip() for text in budget for part in text.split(",") if part.strip()]
    if preset:
        changes["preset"] = preset
    if base is None:
        data = changes.get("data")
        dataset = data.get("dataset") if isinstance(data, dict) else None
        changes["preset"] = changes.get("preset") or _default_preset(dataset)
    is_fitted = base is None and changes["preset"] == FOLDER_PRESET
    origin = str(config_file) if config_file and not settings else "configuration"
    config = build_config(overlay(base or load_preset(str(changes["preset"])), changes), origin=origin)
    return _fit_to_folder(config, changes) if is_fitted else config


def _fit_to_folder(config: RunConfig, changes: dict[str, Any]) -> RunConfig:
    """Fit what is left open to the images in a folder, and say what follows from what."""
    from dsonas_hw.task import fit_to_folder

    given = {
        f"{section}.{name}"
        for section, fields in changes.items()
        if isinstance(fields, dict)
        for name in fields
    }
    config, choices = fit_to_folder(config, given=given)
    if choices:
        say("from the images, the budget and this machine (--set KEY=VALUE sets another):")
    for choice in choices:
        value = json.dumps(choice.value).replace(" ", "").strip('"')
        say(f"  {choice.key}={value:{30 - len(choice.key)}} {choice.reason}")
    return config


def _default_preset(dataset: object) -> str:
    from dsonas_hw.config import preset_names
    from dsonas_hw.config.presets import FOLDER_PRESET
    from dsonas_hw.train.known_images import KNOWN_IMAGES

    if dataset is None:
        return "digits"
    if str(dataset).startswith("folder:"):
        return FOLDER_PRESET
    if dataset not in KNOWN_IMAGES:
        known = [*KNOWN_IMAGES, "folder:PATH"]
        raise DataError(f"unknown dataset {dataset!r}. {closest(str(dataset), known)}")
    preset = _PRESET_OF_DATASET.get(str(dataset), str(dataset))
    if preset not in preset_names():
        raise DataError(f"dataset {dataset} has no preset of its name; give one with --preset")
    return preset


def _nest(place: tuple[str, ...], value: Any) -> dict[str, Any]:
    for key in reversed(place):
        value = {key: value}
    return value  # type: ignore[no-any-return]


def parse_settings(settings: tuple[str, ...]) -> dict[str, Any]:
    """`--set KEY=VALUE` options as nested dictionaries; values are YAML.

    Raises:
        UserError: not KEY=VALUE.
    """
    from dsonas_hw.config import overlay, parse_yaml

    changes: dict[str, Any] = {}
    for text in settings:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise UserError(
                f"--set {text!r} is not KEY=VALUE, e.g. --set search.epochs=60; all fields: "
                f"{command_line('config')}"
            )
        parsed = parse_yaml(f"value: {value}", origin=f"--set {key}")["value"]
        changes = overlay(changes, _nest(tuple(key.strip().split(".")), parsed))
    return changes
