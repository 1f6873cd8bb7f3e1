"""What a directory holds that there is something to report of."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from dsonas_hw.errors import RunError
from dsonas_hw.study.codesign import SPECIFICATION as CODESIGN
from dsonas_hw.study.grid import SPECIFICATION as GRID

Kind = Literal["run", "grid", "codesign"]
_FILES: dict[str, Kind] = {"config.yaml": "run", GRID: "grid", CODESIGN: "codesign"}


def kind_of(path: Path) -> Kind:
    """Return what a directory holds: a run, a study that is a grid of runs, or a co-design study.

    Raises:
        RunError: none of them.
    """
    for name, kind in _FILES.items():
        if (path / name).exists():
            return kind
    raise RunError(f"{path} is neither a run (it has no config.yaml) nor a study (no {CODESIGN}, no {GRID})")
