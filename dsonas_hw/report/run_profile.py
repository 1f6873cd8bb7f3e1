"""The lookup table that a run's predictions came from, if it is on this machine."""

from __future__ import annotations

import logging
from pathlib import Path

from dsonas_hw.errors import UserError
from dsonas_hw.profile.open import find_table, resolve_target
from dsonas_hw.report.run_data import RunData
from dsonas_hw.table.table import LookupTable, load_table

_log = logging.getLogger(__name__)


def find_profile(data: RunData, *, profiles_directory: Path | None = None) -> LookupTable | None:
    """The target's table; None if it is not here or is that of another machine than the one measured on.

    profiles_directory: where tables are; the default is the user's data directory, then the shipped ones.
    """
    try:
        path = find_table(resolve_target(data.config.target), profiles_directory=profiles_directory)
        table = load_table(path) if path is not None else None
    except UserError as error:
        _log.warning("the profile is left out of the report: %s", error)
        return None
    if table is None or not _is_same_machine(data, table):
        return None
    return table


def _is_same_machine(data: RunData, table: LookupTable) -> bool:
    """By the titles that validation and table carry; where one has none, nothing tells them apart."""
    latency = data.validation.latency if data.validation else None
    there, here = table.header.settings.get("device_title"), latency.device_title if latency else ""
    return not there or not here or there == here
