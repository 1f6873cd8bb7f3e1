"""The shipped presets: `presets/<name>.yaml`.

Each begins with what it is for, and is a whole configuration, or what it changes in the preset that it names
as its `base`.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from dsonas_hw.config.load import build_config, overlay, parse_yaml
from dsonas_hw.config.models import RunConfig
from dsonas_hw.errors import UserError, closest

FOLDER_PRESET = "folder"
"""Of images of one's own: what it leaves open follows from the images (`train.fitted`)."""
SHAPES_IMAGES = ("dataset", "data_dir", "image_size")
"""Fields of the data that decide the shape of an image, and the classes."""


def preset_names() -> list[str]:
    """Names of the shipped presets."""
    folder = resources.files("dsonas_hw") / "presets"
    return sorted(
        entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml")
    )


def load_preset(name: str) -> dict[str, Any]:
    """A shipped preset, with its base, as nested dictionaries.

    Raises:
        UserError: no preset of that name.
    """
    data = parse_yaml(_read_preset(name), origin=f"preset {name}")
    base = data.pop("base", None)
    return data if base is None else overlay(load_preset(base), data)


@dataclass(frozen=True, kw_only=True)
class PresetSummary:
    """What a preset is for, in the words its file begins with."""

    name: str
    purpose: str
    cost: str
    """What a run of it takes."""
    config: RunConfig


def summarise_preset(name: str) -> PresetSummary:
    """Read what a preset says of itself: the comment at its top, from `# Cost:` on what it takes.

    Raises:
        UserError: no preset of that name.
    """
    comment = []
    for line in _read_preset(name).splitlines():
        if not line.startswith("#"):
            break
        comment.append(line.removeprefix("#").strip())
    purpose, _, cost = " ".join(comment).partition("Cost: ")
    return PresetSummary(
        name=name, purpose=purpose.strip(), cost=cost.strip(), config=build_config(load_preset(name))
    )


def _read_preset(name: str) -> str:
    if name not in preset_names():
        raise UserError(f"unknown preset {name!r}. {closest(name, preset_names())}")
    return (resources.files("dsonas_hw") / "presets" / f"{name}.yaml").read_text(encoding="utf-8")


def space_options(config: RunConfig) -> str:
    """Options that make the search space of a configuration on a command line: a preset and what differs.

    Example: ``--preset digits --set space.levels=2 --set 'space.operations=[sep3,max3]'``.
    """
    preset = build_config(load_preset(config.preset))
    is_fitted = config.preset == FOLDER_PRESET  # what is left away would be fitted again
    words = ["--preset", config.preset]
    for section in ("data", "space"):
        ours, theirs = getattr(config, section), getattr(preset, section)
        for name in type(ours).model_fields:
            differs = is_fitted or getattr(ours, name) != getattr(theirs, name)
            if differs and (section == "space" or name in SHAPES_IMAGES):
                words += ["--set", f"{section}.{name}={_as_yaml(getattr(ours, name))}"]
    return shlex.join(words)


def _as_yaml(value: object) -> str:
    """A field's value as `--set` reads it."""
    if isinstance(value, tuple):
        return f"[{','.join(map(_as_yaml, value))}]"
    return str(value) if isinstance(value, str | Path) else json.dumps(value)
