"""What can go wrong, and what the user should do about it.

Every error a user can cause derives from `UserError`; the command line shows its message in one line and
exits with code 2. A message says what failed, the value seen, and what to do next.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError

MAX_MESSAGE = 2_000


class UserError(Exception):
    """Bad usage or bad input: shown as one line, never a traceback."""

    exit_code = 2


class BudgetError(UserError):
    """A budget that cannot be parsed, or that no architecture of the space can meet."""


class DataError(UserError):
    """A dataset that is unknown, missing or damaged."""


class DeviceError(UserError):
    """A device that is unknown, absent, or cannot serve the requested runtime."""


class ProfileError(UserError):
    """A lookup table that is missing, damaged, or belongs to another device."""


class ModelFileError(UserError):
    """An ONNX file that cannot be read or is not a network we can cost."""


class RunError(UserError):
    """A run directory that cannot be used: unwritable, locked, or of another configuration."""


class MissingDependencyError(UserError):
    """An optional package that the requested feature needs."""


def require(module: str, *, extra: str, purpose: str) -> ModuleType:
    """Import an optional dependency at the moment it is needed.

    Raises:
        MissingDependencyError: names the extra to install.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingDependencyError(
            f"{purpose} needs {module!r}, which could not be imported: {error}. "
            f"Install it with: pip install 'dsonas-hw[{extra}]'"
        ) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether Python, NumPy or torch (CPU or CUDA) could not get the memory it asked for."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, RuntimeError) and "can't allocate memory" in str(error))
    )


def first_problem(error: ValidationError) -> str:
    """The first thing that is wrong with a file, as pydantic says it: ``field: message``."""
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"


def one_line(error: BaseException | str) -> str:
    """What is shown of an error: one line, not endless, and nothing that a terminal would obey."""
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in " ".join(str(error).split()))
    return text if len(text) <= MAX_MESSAGE else text[: MAX_MESSAGE - 1] + "…"


def command_line(*parts: object) -> str:
    """A command of ours as a message shows it: quoted, so that it can be pasted into a shell."""
    import shlex

    return shlex.join(["dsonas-hw", *map(str, parts)])


def closest(name: str, known: list[str]) -> str:
    """Render ` Did you mean …?` for a mistyped name, or the list of what is known.

    Capitals, hyphens and underscores do not count: CIFAR-10 is cifar10.
    """
    import difflib

    plain: dict[str, str] = {}
    for other in known:
        plain.setdefault(_plain(other), other)
    if _plain(name) in plain:
        return f"Did you mean {plain[_plain(name)]}?"
    found = difflib.get_close_matches(_plain(name), list(plain), n=3, cutoff=0.6)
    matches = [plain[match] for match in found]
    if matches:
        return f"Did you mean {' or '.join(matches)}?"
    return f"Known: {', '.join(sorted(known))}."


def _plain(name: str) -> str:
    return "".join(char for char in name.lower() if char.isalnum())
