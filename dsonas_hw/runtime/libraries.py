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

CUDA_MAJORS = (14, 13, 12, 11)
"""Versions of CUDA that a library is or may be built for."""


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

    Of several it is the one whose folder the module is imported from.

    module: that it brings.
    cuda_file: in the module's folder, says which CUDA it was built for.
    """
    folder = _module_folder(module)
    installed = [found for name in distributions if (found := _installed(name)) is not None]
    if not installed:
        return None
    imported = [found for found in installed if folder is not None and found.site == folder.parent]
    chosen = (imported or installed)[0]
    cuda = _cuda_of(folder / cuda_file) if folder is not None and cuda_file else None
    return Library(distribution=chosen.name, version=chosen.version, folder=folder, cuda=cuda)


def cuda_in_names(product: str, distribution: str) -> str | None:
    """The major version of CUDA that stands in the names of a product's distributions, as TensorRT's.

    distribution: the one that counts; `tensorrt` itself is empty and brings one of the others.
    """
    for major in CUDA_MAJORS:
        parts = [f"{product}-cu{major}{part}" for part in ("", "-libs", "-bindings")]
        if distribution in parts or ("-cu" not in distribution and any(map(_installed, parts))):
            return str(major)
    return None


def has_both_onnxruntimes() -> bool:
    """Whether both wheels lie in one folder: they hold the same files and have overwritten each other."""
    plain, gpu = _installed("onnxruntime"), _installed("onnxruntime-gpu")
    return plain is not None and gpu is not None and plain.site == gpu.site


@dataclass(frozen=True, kw_only=True)
class _Installed:
    """A distribution, and the folder that its modules lie in."""

    name: str
    version: str
    site: Path


def _installed(name: str) -> _Installed | None:
    try:
        found = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return None
    return _Installed(name=name, version=found.version, site=Path(str(found.locate_file(""))).resolve())


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
    return Path(spec.origin).parent.resolve()


def _cuda_of(file: Path) -> str | None:
    if not file.is_file():
        return None
    match = re.search(r"^cuda(?:_version)?\b[^=\n]*= *'([0-9.]+)'", file.read_text(errors="replace"), re.M)
    return match[1] if match else None
