"""The devices that are known: shipped in `devices/`, and the user's own in her data directory."""

from __future__ import annotations

import importlib.resources
import re
from pathlib import Path

from dsonas_hw.device.datasheet import Device, RuntimeSupport
from dsonas_hw.device.datasheet_file import read_device
from dsonas_hw.device.paths import data_directory
from dsonas_hw.errors import DeviceError, closest

__all__ = ["LOCAL", "Device", "RuntimeSupport", "list_devices", "load_device", "normalise_name"]

LOCAL = "local"
"""`--device local`: this machine's CPU, described by `device.cpu.local_cpu`, not by a file."""

_VENDOR_WORDS = re.compile(r"\b(nvidia|geforce|tesla|quadro)\b")


def load_device(name: str, directory: Path | None = None) -> Device:
    """The device of this name, alias or driver name, in any spelling ("GTX 1080 Ti", "gtx1080ti").

    A file in `directory` (default: `devices` in the user's data directory) wins over the shipped one of the
    same file name.

    Raises:
        DeviceError: no such device (the message lists close matches), two files claim the name, or the file
            is damaged.
    """
    files = _device_files(directory)
    others = [path for path in files.values() if path.parent != _shipped() and path.stem != name]
    if name in files and not others:
        return read_device(files[name])
    # A damaged file of another device does not stand in the way of one that is named exactly.
    devices = [device for path in files.values() if (device := _read(path, lenient=name in files, name=name))]
    wanted = normalise_name(name)
    claiming = [device for device in devices if wanted in _all_names(device)]
    if len(claiming) > 1:
        raise DeviceError(_conflict(name, claiming, files))
    if claiming:
        return claiming[0]
    if wanted == "cpu":
        raise DeviceError(f"unknown device {name!r}: this machine's CPU is {LOCAL!r} (--device {LOCAL})")
    hint = closest(name.lower(), [*files, *(alias for device in devices for alias in device.aliases)])
    if hint.startswith("Known:"):
        hint = closest("", list(files))
    raise DeviceError(
        f"unknown device {name!r}. {hint} `dsonas-hw devices` lists all; your own go to {_user_directory()}"
    )


def _read(path: Path, *, lenient: bool, name: str) -> Device | None:
    try:
        return read_device(path)
    except DeviceError:
        if lenient and path.stem != name:
            return None
        raise


def _conflict(name: str, claiming: list[Device], files: dict[str, Path]) -> str:
    """What to tell the user about a name that several device files claim."""
    wanted = normalise_name(name)
    claims = []
    for device in claiming:
        names = (device.name, *device.aliases, *device.nvml_names, device.title)
        as_written = next(text for text in names if normalise_name(text) == wanted)
        claims.append(f"{files[device.name]} ({as_written!r})")
    own = next((d for d in claiming if files[d.name].parent != _shipped()), claiming[-1])
    return (
        f"device {name!r} is claimed by {len(claiming)} files: {' and '.join(claims)}; take the name out of "
        f"the aliases, nvml_names and title of {files[own.name].name}"
    )


def name_conflicts(directory: Path | None = None) -> list[str]:
    """A line for every two device files that claim the same names.

    Raises:
        DeviceError: a device file is damaged.
    """
    files = _device_files(directory)
    by_name: dict[str, list[Device]] = {}
    for device in list_devices(directory):
        for text in _all_names(device):
            by_name.setdefault(text, []).append(device)
    found: dict[tuple[str, ...], str] = {}
    for text, claiming in by_name.items():
        if len(claiming) > 1:
            found.setdefault(tuple(d.name for d in claiming), _conflict(text, claiming, files))
    return list(found.values())


def list_devices(directory: Path | None = None) -> list[Device]:
    """Every known device, sorted by name.

    Raises:
        DeviceError: a device file is damaged.
    """
    return [read_device(path) for _, path in sorted(_device_files(directory).items())]


def normalise_name(name: str) -> str:
    """Reduce a device's name to what tells it apart: ``NVIDIA GeForce GTX 1080 Ti`` → ``gtx1080ti``."""
    return re.sub(r"[^a-z0-9]", "", _VENDOR_WORDS.sub("", name.lower()))


def _all_names(device: Device) -> set[str]:
    names = (device.name, device.title, *device.aliases, *device.nvml_names)
    return {normalise_name(name) for name in names}


def _shipped() -> Path:
    return Path(str(importlib.resources.files("dsonas_hw.devices")))


def _user_directory() -> Path:
    return data_directory() / "devices"


def _device_files(directory: Path | None) -> dict[str, Path]:
    """Device name → file; the user's own files come first and win."""
    files: dict[str, Path] = {}
    for folder in (directory if directory is not None else _user_directory(), _shipped()):
        for path in sorted(folder.glob("*.toml")):
            files.setdefault(path.stem, path)
    return files
