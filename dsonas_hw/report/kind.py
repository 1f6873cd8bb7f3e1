"""What a directory holds that there is something to report of."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from dsonas_hw.errors import RunError
from dsonas_hw.study.codesign import SPECIFICATION as CODESIGN
from dsonas_hw.study.grid import SPECIFICATION as GRID

Kind = Literal["run", "grid", "codesign"]
_FILES: dict[str, Kind] = {"config.yaml": "run", GRID: "grid", CODESIGN: "codesign"}


def _kind(path: Path) -> Kind | None:
    return next((kind for name, kind in _FILES.items() if (path / name).exists()), None)


def kind_of(path: Path) -> Kind:
    """Return what a directory holds: a run, a study that is a grid of runs, or a co-design study.

    Raises:
        RunError: none of them.
    """
    if (kind := _kind(path)) is None:
        raise RunError(
            f"{path} is neither a run (it has no config.yaml) nor a study (no {CODESIGN}, no {GRID})"
        )
    return kind


def within(path: Path) -> list[Path]:
    """Return a run or a study itself, of a folder of them those in it, and of anything else the path."""
    if _kind(path) is None and path.is_dir():
        return sorted(child for child in path.iterdir() if _kind(child)) or [path]
    return [path]
