"""One measurement at a time on a device of this machine, whichever command or study of a user makes it."""

from __future__ import annotations

import getpass
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from dsonas_hw.errors import DeviceError


@contextmanager
def exclusive_device(device: str) -> Iterator[None]:
    """Wait until no one else measures on this device, and hold it. Not to be nested.

    Raises:
        DeviceError: the lock file cannot be made.
    """
    path = lock_path(device)
    try:
        lock = FileLock(str(path))
        lock.acquire()
    except OSError as error:
        raise DeviceError(f"cannot lock {device} with {path}: {error.strerror}; remove that file") from None
    try:
        yield
    finally:
        lock.release()


def lock_path(device: str) -> Path:
    """The file that is locked; one per user, since others may not be allowed to open it."""
    user = os.getuid() if hasattr(os, "getuid") else getpass.getuser()
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", f"dsonas-hw-{user}-{device}.lock")
    return Path(tempfile.gettempdir()) / name
