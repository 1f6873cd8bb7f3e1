"""Where a user's own devices and tables live."""

from __future__ import annotations

import os
from pathlib import Path


def data_directory() -> Path:
    """The user's data directory: `$DSONAS_HW_HOME` if set, else the platform's (not created here)."""
    home = os.environ.get("DSONAS_HW_HOME")
    if home:
        return Path(home).expanduser()
    from platformdirs import user_data_dir

    return Path(user_data_dir("dsonas-hw", appauthor=False))
