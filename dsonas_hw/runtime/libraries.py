"""Which libraries are installed, read from their files: nothing is imported, so that looking is quick."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import mmap
import os
import re
import struct
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Library:
    """An installed library that a runtime needs."""

    distribution: str
    version: str
    folder: Path | None
    """Of its module; `None` when it cannot be found."""
    cuda: str | None
    """The CUDA version it is built for; `None` for a build without CUDA, or where the files do not tell."""


def find_library(distributions: Sequence[str], module: str, cuda_file: str | None) -> Library | None:
    """The first of these distributions that is installed, or `None`.

    module: that it brings.
    cuda_file: in the module's folder, says which CUDA it was built for.
    """
    for distribution in distributions:
        try:
            version = importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
        folder = _module_folder(module)
        cuda = _cuda_of(folder / cuda_file) if folder is not None and cuda_file else None
        return Library(distribution=distribution, version=version, folder=folder, cuda=cuda)
    return None


def has_both_onnxruntimes() -> bool:
    """Whether both wheels are installed: they hold the same files and overwrite each other."""
    found = set()
    for distribution in ("onnxruntime", "onnxruntime-gpu"):
        try:
            found.add(importlib.metadata.version(distribution))
        except importlib.metadata.PackageNotFoundError:
            return False
    return True


def missing_shared_libraries(provider: str, library: Library) -> list[str]:
    """Shared libraries that a provider of ONNX Runtime links to and that are nowhere to be found."""
    if library.folder is None or sys.platform != "linux":
        return []
    file = library.folder / "capi" / provider
    if not file.is_file():
        return [provider]
    return [name for name in needed_libraries(file) if not _can_be_loaded(name)]


def needed_libraries(path: Path) -> list[str]:
    """The DT_NEEDED entries of a 64-bit little-endian ELF file; empty for any other file."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data[:6] != b"\x7fELF\x02\x01":
            return []
        offset, entry_size, count = _section_table(data)
        for index in range(count):
            # sh_type (4 bytes at 4), sh_offset, sh_size, sh_link (string table) of an Elf64_Shdr
            header = offset + index * entry_size
            (kind,) = struct.unpack_from("<I", data, header + 4)
            if kind == 6:  # SHT_DYNAMIC
                start, size, link = struct.unpack_from("<QQI", data, header + 24)
                (strings,) = struct.unpack_from("<Q", data, offset + link * entry_size + 24)
                pairs = struct.iter_unpack("<qQ", data[start : start + size // 16 * 16])
                return [_string(data, strings + value) for tag, value in pairs if tag == 1]  # DT_NEEDED
    return []


def _section_table(data: mmap.mmap) -> tuple[int, int, int]:
    (offset,) = struct.unpack_from("<Q", data, 40)
    entry_size, count = struct.unpack_from("<HH", data, 58)
    return offset, entry_size, count


def _string(data: mmap.mmap, start: int) -> str:
    return data[start : data.find(b"\0", start)].decode(errors="replace")


def _can_be_loaded(name: str) -> bool:
    """Whether the dynamic linker, or the loader in the wheels, would find a library of this name."""
    if not re.match(r"lib(cu|nv|onnx)", name):  # the C library and its like are there
        return True
    if any((folder / name).exists() for folder in _library_folders()):
        return True
    try:
        return name.encode() + b"\0" in Path("/etc/ld.so.cache").read_bytes()
    except OSError:
        return False


def _library_folders() -> Iterator[Path]:
    for folder in os.environ.get("LD_LIBRARY_PATH", "").split(":"):
        if folder:
            yield Path(folder)
    for root in map(Path, sys.path):
        for pattern in ("nvidia/*/lib", "tensorrt_libs", "torch/lib", "onnxruntime/capi"):
            yield from root.glob(pattern)


def _module_folder(module: str) -> Path | None:
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent


def _cuda_of(file: Path) -> str | None:
    if not file.is_file():
        return None
    match = re.search(r"^cuda(?:_version)?\b[^=\n]*= *'([0-9.]+)'", file.read_text(errors="replace"), re.M)
    return match[1] if match else None
