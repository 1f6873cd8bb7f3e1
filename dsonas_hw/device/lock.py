"""One measurement at a time on a device of this machine, whichever study or process it belongs to."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from dsonas_hw.errors import DeviceError


@contextmanager
def exclusive_device(device: str) -> Iterator[None]:
    """Wait until no one else measures on this device, and hold it.

    Raises:
        DeviceError: the lock file cannot be made.
    """
    path = Path(tempfile.gettempdir()) / f"dsonas-hw-{device}.lock"
    try:
        lock = FileLock(str(path), mode=0o666)
        lock.acquire()
    except OSError as error:
        raise DeviceError(f"cannot lock {device} with {path}: {error.strerror}; remove that file") from None
    try:
        yield
    finally:
        lock.release()
