"""Reading a study file, and what the command line lays over it: a preset, budgets, seeds, settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dsonas_hw.config import load_config_file, load_preset, overlay, parse_yaml
from dsonas_hw.errors import UserError, closest, first_problem
from dsonas_hw.study.expand import expand, variants_of
from dsonas_hw.study.spec import DEFAULT_PRESET, Study, StudyFile


def shipped_studies() -> list[str]:
    """Return the names of the studies that come with the package."""
    folder = resources.files("dsonas_hw") / "studies"
    return sorted(e.name.removesuffix(".yaml") for e in folder.iterdir() if e.name.endswith(".yaml"))


def load_study(
    name_or_path: str,
    changes: Mapping[str, Any],
    *,
    preset: str | None = None,
    budgets: Sequence[str] = (),
    seeds: Sequence[int] = (),
) -> Study:
    """Load a shipped study by name, or a YAML file.

    changes: laid over its base configuration, and below "transfer" over that of the search elsewhere.
    preset: in the place of the base's; then `budgets` are needed, unless the file has some for that preset.
    budgets, seeds: in the place of the file's.

    Raises:
        UserError: unknown study or preset, unknown fields, a configuration that does not hold, or budgets
            that were chosen for another preset.
    """
    data = _read(name_or_path)
    file = _checked(data, name_or_path)
    changes = dict(changes)
    elsewhere = changes.pop("transfer", {})
    preset = preset or changes.pop("preset", None)
    if preset:
        file = _checked(_with_preset(file, str(preset), budgets), name_or_path)
    update: dict[str, Any] = {"base": overlay(file.base, changes)}
    if elsewhere:
        if file.transfer is None or not isinstance(elsewhere, Mapping):
            raise UserError(f"study {file.name} transfers nothing; leave --set transfer.… away")
        base = overlay(file.transfer.base, elsewhere)
        update["transfer"] = file.transfer.model_copy(update={"base": base})
    if budgets:
        update["budgets"] = list(budgets)
    if seeds:
        update["seeds"] = list(seeds)
    return expand(file.model_copy(update=update))


def _read(name_or_path: str) -> dict[str, Any]:
    if name_or_path in shipped_studies():
        text = (resources.files("dsonas_hw") / "studies" / f"{name_or_path}.yaml").read_text("utf-8")
        return parse_yaml(text, origin=f"study {name_or_path}")
    if Path(name_or_path).suffix in (".yaml", ".yml"):
        return load_config_file(Path(name_or_path))
    raise UserError(
        f"unknown study {name_or_path!r}. {closest(name_or_path, shipped_studies())} "
        "Or give the path of a .yaml file"
    )


def _checked(data: Mapping[str, Any], origin: str) -> StudyFile:
    try:
        return StudyFile.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            hint = closest(where, list(StudyFile.model_fields))
            raise UserError(f"study {origin}: unknown field {where!r}. {hint}") from None
        raise UserError(f"study {origin}: {first_problem(error)}") from None


def _with_preset(file: StudyFile, preset: str, budgets: Sequence[str]) -> dict[str, Any]:
    """The fields of a study with another preset in its base.

    Raises:
        UserError: no such preset; budgets or a search elsewhere that are for another one.
    """
    load_preset(preset)
    own = str(file.base.get("preset", DEFAULT_PRESET))
    special = file.for_preset.get(preset)
    data = {**file.model_dump(mode="json"), **(special or {})}
    if any("preset" in changes for changes in variants_of(file).values()):
        raise UserError(f"study {file.name} varies the preset itself; leave --preset away")
    if preset != own and special is None:
        known = ", ".join([own, *file.for_preset])
        if file.transfer is not None:
            raise UserError(f"study {file.name} transfers into {known} only, not into {preset}")
        if not budgets:
            raise UserError(
                f"the budgets of study {file.name} are for {known}, not for {preset}; "
                "give some with --budget, e.g. --budget params=3M"
            )
    return {**data, "base": overlay(data["base"], {"preset": preset})}
