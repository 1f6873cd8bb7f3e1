"""Writing files so that a crash leaves the old one or the new one, never half of either."""

from __future__ import annotations

import errno
import json
import os
import re
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from dsonas_hw.errors import RunError, UserError

_LEFTOVER = re.compile(r"\.(.+)\.[a-z0-9_]{8}\.part")
"""Names that `atomic_write` gives to files while it writes them."""


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """A binary file that takes the place of `path` when the block ends well: written, synced, renamed.

    Raises:
        RunError: the folder cannot be written, or the disk is full; `path` is then as it was.
    """
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
        temporary = None
    except OSError as error:
        raise RunError(
            f"cannot write {path}: {error.strerror or error}; free space or choose another folder"
        ) from None
    finally:
        if temporary is not None:
            with suppress(OSError):
                os.unlink(temporary)


def find_leftovers(folder: Path, name: str | None = None) -> list[Path]:
    """Files that `atomic_write` began in a folder and a kill left there; only those of `name` if given."""
    if not folder.is_dir():
        return []
    matches = [(_LEFTOVER.fullmatch(entry.name), entry) for entry in folder.iterdir()]
    return [entry for match, entry in matches if match and name in (None, match[1])]


def remove_leftovers(folder: Path, name: str | None = None) -> None:
    """Remove what a killed process left half-written; call it under the lock of those who write there."""
    for path in find_leftovers(folder, name):
        with suppress(OSError):
            path.unlink()


def open_regular(path: Path, *, max_bytes: int) -> BinaryIO:
    """Open a file from anyone for reading: no pipe, which may never send, and no device, which may never end.

    Raises:
        OSError: cannot be opened, is no regular file, or is larger than `max_bytes`.
    """
    try:
        file = open(path, "rb", opener=_open_without_waiting)  # noqa: SIM115
    except ValueError as error:  # a name that no file can have
        raise OSError(errno.EINVAL, str(error), str(path)) from None
    status = os.fstat(file.fileno())
    if stat.S_ISREG(status.st_mode) and status.st_size <= max_bytes:
        return file
    file.close()
    if stat.S_ISREG(status.st_mode):
        raise OSError(errno.EFBIG, f"larger than {max_bytes} bytes", str(path))
    raise OSError(errno.EINVAL, "not a regular file", str(path))


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def read_regular(path: Path, *, max_bytes: int) -> bytes:
    """All of `open_regular`."""
    with open_regular(path, max_bytes=max_bytes) as file:
        return file.read(min(max_bytes, os.fstat(file.fileno()).st_size))  # as many are allocated


def refuse_links(*folders: Path) -> None:
    """What is in a directory may come from anyone: a link must not make us write or delete somewhere else.

    Raises:
        RunError: one of the folders holds a symbolic link.
    """
    for folder in folders:
        for entry in folder.iterdir() if folder.is_dir() else ():
            if entry.is_symlink():
                raise RunError(f"{entry} is a symbolic link; replace it by what it points to")


def write_text(path: Path, text: str) -> None:
    """Replace a text file at once (UTF-8)."""
    with atomic_write(path) as file:
        file.write(text.encode("utf-8"))


def write_json(path: Path, value: object) -> None:
    """Replace a JSON file at once."""
    write_text(path, json.dumps(value, ensure_ascii=False, allow_nan=False, indent=2) + "\n")


def read_json(path: Path, *, max_bytes: int = 50_000_000) -> Any:
    """Read a JSON file from anyone.

    Raises:
        UserError: missing, too large, or not JSON.
    """
    try:
        return json.loads(read_regular(path, max_bytes=max_bytes))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged: {error}") from None


def append_json_line(path: Path, value: object) -> None:
    """Append one line and sync it.

    Raises:
        RunError: the file cannot be written.
    """
    line = json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n"
    try:
        with open(path, "ab") as file:
            file.write(line.encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise RunError(
            f"cannot write {path}: {error.strerror}; free space or choose another folder"
        ) from None


def read_json_lines(path: Path, *, max_bytes: int = 2**30) -> list[dict[str, Any]]:
    """Every whole line of an append-only log; a torn last line is left out. A missing file is empty.

    Raises:
        UserError: a line before the last is damaged.
    """
    try:
        raw = read_regular(path, max_bytes=max_bytes)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    lines, rows = raw.split(b"\n"), []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError("not an object")
        except (ValueError, RecursionError):
            if number == len(lines):
                break
            raise UserError(
                f"{path}, line {number} is damaged; remove the line or restore the file"
            ) from None
        rows.append(row)
    return rows
