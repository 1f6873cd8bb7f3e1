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

    A file in `directory` (default: `devices` in the user's data directory) wins over the shipped one.

    Raises:
        DeviceError: no such device (the message lists close matches), or its file is damaged.
    """
    files = _device_files(directory)
    if name in files:
        return read_device(files[name])
    devices = [read_device(path) for path in files.values()]
    wanted = normalise_name(name)
    for device in devices:
        if wanted in _all_names(device):
            return device
    hint = closest(name.lower(), [*files, *(alias for device in devices for alias in device.aliases)])
    if hint.startswith("Known:"):
        hint = closest("", list(files))
    raise DeviceError(
        f"unknown device {name!r}. {hint} `dsonas-hw devices` lists all; your own go to {_user_directory()}"
    )


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


def _user_directory() -> Path:
    return data_directory() / "devices"


def _device_files(directory: Path | None) -> dict[str, Path]:
    """Device name → file; the user's own files come first and win."""
    shipped = Path(str(importlib.resources.files("dsonas_hw.devices")))
    files: dict[str, Path] = {}
    for folder in (directory if directory is not None else _user_directory(), shipped):
        for path in sorted(folder.glob("*.toml")):
            files.setdefault(path.stem, path)
    return files
