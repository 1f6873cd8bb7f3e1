"""Reading a run directory for a report: whatever is there, and in words what is not.

The files may come from anyone, and the run may have stopped anywhere: a missing or damaged part becomes a
line of `notes`, never an exception. So does what belongs to another architecture than the run's present one.
Only a directory without a readable configuration is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from dsonas_hw.architecture.architecture import Architecture, architecture_from_json
from dsonas_hw.config import RunConfig, load_config_file
from dsonas_hw.config.load import MAX_CONFIG_BYTES
from dsonas_hw.errors import UserError
from dsonas_hw.files import read_json, read_regular
from dsonas_hw.report.fields import DAMAGE, first_error, fraction, texts
from dsonas_hw.report.run_data import Derivation, RunData, Validation
from dsonas_hw.report.run_logs import load_epochs, load_gamma_cost, load_lambda, load_path
from dsonas_hw.report.run_selection import load_selection
from dsonas_hw.run_directory import RunDirectory
from dsonas_hw.search.progress import unfinished_search
from dsonas_hw.space.space import SearchSpace
from dsonas_hw.train.confusion import CONFUSION_NAME, Confusion, load_confusion

T = TypeVar("T")


def load_run_data(run: RunDirectory) -> RunData:
    """Read a run.

    Raises:
        UserError: not a run directory, or a damaged configuration.
    """
    config = run.load_config()
    notes: list[str] = []
    architecture = _architecture(run.architecture_path, notes)
    space = architecture.space if architecture else _space(config, notes)
    path = load_path(run.log_path("path.jsonl"), space, notes)
    lam = load_lambda(run.log_path("lambda.jsonl"), space, notes)
    epochs = load_epochs(run.log_path("metrics.jsonl"), notes)
    accuracy, is_other = _training(run.path / "retrain.json", architecture, notes)
    if is_other:
        epochs = tuple(row for row in epochs if row.stage != "retrain")
    elif architecture is not None and not any(row.stage == "retrain" for row in epochs):
        notes.append("The network has not been retrained yet.")
    if run.stale.is_dir() and not run.validation_path.exists():
        notes.append(
            "Weights, model and verdict in stale/ are stale: the search went on and changed the architecture."
        )
    return RunData(
        name=run.path.resolve().name,
        config=config,
        versions=texts(load_config_file(run.config_path).get("versions")),
        config_text=read_regular(run.config_path, max_bytes=MAX_CONFIG_BYTES).decode("utf-8"),
        space=space,
        architecture=architecture,
        derivation=_derivation(run.architecture_path, notes) if architecture else None,
        path=path,
        lam=lam,
        epochs=epochs,
        gamma_cost=load_gamma_cost(run.log_path("metrics.jsonl")),
        selection=load_selection(run.log_path("selection.jsonl"), notes),
        validation=_validation(run.validation_path, architecture, notes),
        trained_accuracy=accuracy,
        confusion=None if accuracy is None else _confusion(run.path / CONFUSION_NAME, notes),
        notes=tuple(notes),
        unfinished=_unfinished(run),
    )


def _read(what: str, read: Callable[[], T], notes: list[str]) -> T | None:
    """What a part of the run holds; None, and a note, where it is damaged."""
    try:
        return read()
    except DAMAGE as error:
        notes.append(f"{what} cannot be read: {first_error(error)}.")
        return None


def _unfinished(run: RunDirectory) -> str:
    try:
        return unfinished_search(run) or ""
    except UserError:  # a note has said what is damaged
        return ""


def _architecture(path: Path, notes: list[str]) -> Architecture | None:
    if not path.exists():
        notes.append("No architecture has been derived yet (there is no architecture.json).")
        return None
    return _read("The architecture", lambda: architecture_from_json(read_json(path), origin=path.name), notes)


def _derivation(path: Path, notes: list[str]) -> Derivation | None:
    def read() -> Derivation | None:
        raw = read_json(path).get("derived")
        return None if raw is None else Derivation.model_validate(raw)

    return _read("How the architecture was derived", read, notes)


def _space(config: RunConfig, notes: list[str]) -> SearchSpace | None:
    """The space as configured; image size and classes do not matter for drawing blocks."""
    fields = config.space.model_dump()
    return _read(
        "The search space of the configuration",
        lambda: SearchSpace(**fields, input_shape=(3, 1024, 1024)),
        notes,
    )


def _training(path: Path, architecture: Architecture | None, notes: list[str]) -> tuple[float | None, bool]:
    """Test accuracy by retrain.json, and whether that was the training of another architecture."""
    data = _read("The result of retraining", lambda: dict(read_json(path)), notes) if path.exists() else None
    if data is None:
        return None, False
    if _is_of_another(data, architecture):
        notes.append("The trained weights are another architecture's: retrain this one.")
        return None, True
    return fraction(data.get("test_accuracy")), False


def _confusion(path: Path, notes: list[str]) -> Confusion | None:
    return _read("The confusion of classes", lambda: load_confusion(path), notes) if path.exists() else None


def _validation(path: Path, architecture: Architecture | None, notes: list[str]) -> Validation | None:
    if not path.exists():
        notes.append("The network has not been validated yet (there is no validation.json).")
        return None

    def read() -> Validation | None:
        data = read_json(path)
        if _is_of_another(data, architecture):
            notes.append("The validation is another architecture's: export and validate this one.")
            return None
        latency = data.get("latency")
        if isinstance(latency, dict):
            for row in data.get("budgets", []):
                row |= {"quiet": latency.get("quiet_ms")} if row["name"] == "latency" else {}
            data["latency"] = {**latency, "values": latency}
        return Validation.model_validate(data)

    return _read("The validation", read, notes)


def _is_of_another(data: Mapping[str, Any], architecture: Architecture | None) -> bool:
    """Whether a result names an architecture, and not this one."""
    from dsonas_hw.train.identity import architecture_hash

    named = data.get("architecture")
    return named is not None and architecture is not None and named != architecture_hash(architecture)
