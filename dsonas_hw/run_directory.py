"""A run is a directory: its configuration, logs, checkpoints, architecture, network and verdict.

config.yaml        resolved, with seed and versions      metrics.jsonl   one line per epoch
path.jsonl         architectures the search passed       lambda.jsonl    λ per epoch
selection.jsonl    candidates, their trainings, verdict
checkpoints/       <stage>-<number>.pt, the last two     architecture.json
weights.npz        model.onnx         validation.json    report.html
retrain.json       the test accuracy                     confusion.csv   what test images were taken for
stale/             an architecture that the search went on from, and what had come of it
"""

from __future__ import annotations

import logging
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import AbstractContextManager
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from dsonas_hw.checkpoint_file import load_checkpoint_file
from dsonas_hw.config import RunConfig, build_config, load_config_file
from dsonas_hw.errors import RunError, command_line
from dsonas_hw.files import (
    append_json_line,
    atomic_write,
    find_leftovers,
    refuse_links,
    remove_leftovers,
    write_text,
)

Stage = Literal["search", "select", "retrain"]
LOGS = ("metrics.jsonl", "path.jsonl", "lambda.jsonl", "selection.jsonl")
OUTCOME = (
    "weights.npz", "preprocessing.json", "retrain.json", "confusion.csv", "model.onnx", "infer.py",
    "model.engine", "model.engine.json", "validation.json",
)  # fmt: skip
"""What comes of a run's architecture, beside its checkpoints."""
_VERSIONED = ("dsonas-hw", "torch", "torchvision", "onnx", "onnxruntime-gpu", "onnxruntime", "numpy")
NUM_CHECKPOINTS_KEPT = 2

_log = logging.getLogger(__name__)


def versions() -> dict[str, str]:
    """Versions of what the numbers of a run depend on."""
    found = {"python": platform.python_version()}
    for name in _VERSIONED:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


class RunDirectory:
    """Paths, logs and checkpoints of one run; used by one process at a time (`lock`)."""

    def __init__(self, path: Path, *, patience_s: float = 0.0) -> None:
        """patience_s: how long to wait for another process that works there before it is refused."""
        self.path = path
        self.config_path = path / "config.yaml"
        self.architecture_path = path / "architecture.json"
        self.model_path = path / "model.onnx"
        self.validation_path = path / "validation.json"
        self.report_path = path / "report.html"
        self.checkpoints = path / "checkpoints"
        self.stale = path / "stale"
        self._lock = FileLock(str(path / ".lock"), timeout=patience_s)

    def log_path(self, name: str) -> Path:
        """The path of one of `LOGS`."""
        return self.path / name

    # -- creation and configuration --------------------------------------------------------------------

    def create(self, config: RunConfig, *, resume: bool = False) -> None:
        """Make the directory, or check that it is this run's.

        Raises:
            RunError: unwritable; holds a run already and `resume` is not set; another configuration.
        """
        self.check_usable(config, resume=resume)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"cannot create the run directory {self.path}: {error.strerror}") from None
        with self.lock():
            self.check_usable(config, resume=resume)  # another process may have begun meanwhile
            if not resume or not self.config_path.exists():
                self._write_config(config)

    def _has_begun(self) -> bool:
        """Whether there is more than the configuration that a refused or at once interrupted run leaves."""
        if self._holds_something(besides=self.config_path.name):
            return True
        return "versions" not in load_config_file(self.config_path)  # not written by us

    def check_usable(self, config: RunConfig, *, resume: bool = False) -> None:
        """What `create` would refuse, without writing anything.

        Raises:
            RunError: as `create`.
        """
        existing = next(p for p in (self.path, *self.path.absolute().parents) if p.exists())
        if not _can_write(existing):
            raise RunError(f"the run directory {self.path} cannot be written; choose another with --out")
        if not self.config_path.exists():
            if self.path.exists() and self._holds_something():
                raise RunError(f"{self.path} is not empty and is not a run; choose another with --out")
            return
        if not resume:
            if not self._has_begun():
                return
            raise RunError(
                f"{self.path} holds a run already; choose another --out, or go on there: "
                + command_line("run", "--resume", self.path)
            )
        stored = self.load_config()
        if stored != config:
            changed = ", ".join(_differences(stored.model_dump(), config.model_dump())[:5])
            raise RunError(
                f"{self.path} belongs to another configuration (differs in {changed}); "
                "resume it with the same options, or choose another --out"
            )

    def _holds_something(self, besides: str = "") -> bool:
        """Whether there is more than a kill leaves before the configuration is written, and `besides`."""
        ours = {".lock", besides, *(path.name for path in find_leftovers(self.path))}
        return any(entry.name not in ours for entry in self.path.iterdir())

    def _write_config(self, config: RunConfig) -> None:
        import yaml

        data = {**config.model_dump(mode="json"), "versions": versions()}
        write_text(self.config_path, yaml.safe_dump(data, sort_keys=False, allow_unicode=True))

    def load_config(self) -> RunConfig:
        """The configuration that the run was started with.

        Raises:
            RunError: not a run directory.
            UserError: a damaged configuration.
        """
        if not self.config_path.is_file():
            raise RunError(f"{self.path} is not a run directory (it has no config.yaml)")
        data = load_config_file(self.config_path)
        data.pop("versions", None)
        return build_config(data, origin=str(self.config_path))

    def set_aside(self) -> tuple[str, ...]:
        """Move the architecture and what came of it to stale/, and return the names of the latter.

        What was there is replaced. Nothing came of it: it stays, and nothing is returned.
        """
        found = [path for name in OUTCOME if (path := self.path / name).exists()]
        found += self.list_checkpoints("retrain")
        if found:
            if self.stale.exists():
                shutil.rmtree(self.stale)
            self.stale.mkdir()
            for path in (self.architecture_path, *found):  # killed in between, nothing is without a search
                if path.exists():
                    path.rename(self.stale / path.name)
        return tuple(path.name for path in found)

    # -- one process at a time ---------------------------------------------------------------------------

    def is_in_use(self) -> bool:
        """Whether another process has the directory, as far as that can be told."""
        try:
            with self._lock.acquire():
                return False
        except Timeout:
            return True
        except OSError:  # it cannot be written, so no one works in it
            return False

    def lock(self) -> AbstractContextManager[object]:
        """Take the directory for this process; a context manager that gives it back.

        What a killed process left half-written there is removed.

        Raises:
            RunError: another process has it.
        """
        try:
            refuse_links(self.path, self.checkpoints)
            taken = self._lock.acquire()
            if self._lock.lock_counter == 1:
                remove_leftovers(self.path)
                remove_leftovers(self.checkpoints)
            return taken
        except Timeout:
            raise RunError(
                f"another process works in {self.path}; wait for it, or choose another --out"
            ) from None
        except OSError as error:
            raise RunError(f"the run directory {self.path} cannot be written: {error.strerror}") from None

    # -- logs ----------------------------------------------------------------------------------------------

    def log(self, name: str, row: Mapping[str, Any]) -> None:
        """Append one line to a log and sync it."""
        append_json_line(self.log_path(name), dict(row))

    def log_sizes(self) -> dict[str, int]:
        """Bytes of every log now; a checkpoint stores them, `truncate_logs` goes back to them."""
        return {
            name: self.log_path(name).stat().st_size if self.log_path(name).exists() else 0 for name in LOGS
        }

    def truncate_logs(self, sizes: object) -> None:
        """Drop what was logged after a checkpoint, so that resuming logs it once.

        Raises:
            RunError: the sizes, which a checkpoint stored, are none.
        """
        if not isinstance(sizes, dict) or not all(type(n) is int and n >= 0 for n in sizes.values()):
            raise RunError(f"a checkpoint in {self.checkpoints} does not say how long the logs were")
        for name in LOGS:
            path = self.log_path(name)
            if path.exists() and path.stat().st_size > sizes.get(name, 0):
                os.truncate(path, sizes.get(name, 0))

    # -- checkpoints -----------------------------------------------------------------------------------------

    def checkpoint_path(self, stage: Stage, number: int) -> Path:
        """Where the checkpoint of that number is, or would be."""
        return self.checkpoints / f"{stage}-{number:06d}.pt"

    def save_checkpoint(
        self, stage: Stage, number: int, state: Mapping[str, Any], *, keep: int | None = NUM_CHECKPOINTS_KEPT
    ) -> Path:
        """Write a checkpoint (tensors and plain values only) and drop all but the last `keep` of the stage.

        keep: None keeps all.

        Raises:
            RunError: it cannot be written, or the disk is full; those before are as they were.
        """
        import torch

        path = self.checkpoint_path(stage, number)
        with atomic_write(path) as file:
            try:
                torch.save({**state, "log_sizes": self.log_sizes()}, file)
            except RuntimeError as error:  # torch's own end of file fails after, and hides, a failed write
                if isinstance(error.__context__, OSError):
                    raise error.__context__ from None
                raise
        for old in self.list_checkpoints(stage)[:-keep] if keep else ():
            old.unlink(missing_ok=True)
        return path

    def list_checkpoints(self, stage: Stage) -> list[Path]:
        """Checkpoints of a stage, oldest first."""
        pattern = re.compile(rf"{stage}-(\d{{6,}})\.pt")
        if not self.checkpoints.is_dir():
            return []
        matches = [(pattern.fullmatch(path.name), path) for path in self.checkpoints.iterdir()]
        return [path for _, path in sorted((int(match[1]), path) for match, path in matches if match)]

    def load_checkpoint(self, stage: Stage) -> tuple[dict[str, Any] | None, list[str]]:
        """The newest checkpoint that can be read (None: there is none yet), and a warning per damaged one.

        The warnings are logged too: who resumes sees them whether or not there is a progress bar.

        Raises:
            RunError: there are checkpoints and none can be read.
        """
        warnings: list[str] = []
        paths = self.list_checkpoints(stage)
        for path in reversed(paths):
            try:
                return load_checkpoint_file(path), warnings
            except RunError as error:
                warnings.append(f"{error}; falling back to the one before")
                _log.warning("%s", warnings[-1])
        if paths:
            raise RunError(f"no checkpoint in {self.checkpoints} can be read; start again with another --out")
        return None, warnings


def _can_write(folder: Path) -> bool:
    """Whether something can be made in a folder; root's permissions say nothing about /proc."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _differences(a: Mapping[str, Any], b: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Dotted names of the fields in which two nested configurations differ."""
    names: list[str] = []
    for key in a:
        if isinstance(a[key], Mapping):
            names += _differences(a[key], b[key], f"{prefix}{key}.")
        elif a[key] != b[key]:
            names.append(f"{prefix}{key}")
    return names
