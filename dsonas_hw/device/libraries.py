"""Which libraries are installed, read from their files: nothing is imported, so that looking is quick."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import mmap
import os
import re
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

#: Runtime → distributions that bring its library, the first that is installed counts.
DISTRIBUTIONS: dict[str, tuple[str, ...]] = {
    "ort-cpu": ("onnxruntime-gpu", "onnxruntime"),
    "ort-cuda": ("onnxruntime-gpu", "onnxruntime"),
    "ort-tensorrt": ("onnxruntime-gpu", "onnxruntime"),
    "tensorrt": ("tensorrt", "tensorrt-cu13", "tensorrt-cu12", "tensorrt-bindings"),
    "eager": ("torch",),
}
TENSORRT_CUDA = (14, 13, 12, 11)
"""Major versions of CUDA that TensorRT is or may be built for."""
MODULES: dict[str, str] = {"tensorrt": "tensorrt", "eager": "torch"}
PROVIDERS: dict[str, str] = {
    "ort-cuda": "libonnxruntime_providers_cuda.so",
    "ort-tensorrt": "libonnxruntime_providers_tensorrt.so",
}


@dataclass(frozen=True, kw_only=True)
class Library:
    """An installed library that a runtime needs."""

    distribution: str
    version: str
    folder: Path | None
    """Of its module; `None` when it cannot be found."""
    cuda: str | None
    """The CUDA version it is built for; `None` for a build without CUDA, or where the files do not tell."""


def find_library(runtime: str) -> Library | None:
    """The library that serves a runtime, or `None` when it is not installed.

    Of several distributions it is the one whose folder the module is imported from.
    """
    folder = _module_folder(MODULES.get(runtime, "onnxruntime"))
    installed = [found for name in DISTRIBUTIONS[runtime] if (found := _installed(name)) is not None]
    if not installed:
        return None
    imported = [found for found in installed if folder is not None and found.site == folder.parent]
    chosen = (imported or installed)[0]
    return Library(
        distribution=chosen.name,
        version=chosen.version,
        folder=folder,
        cuda=_cuda_of(runtime, chosen.name, folder),
    )


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


def missing_shared_libraries(runtime: str, library: Library) -> list[str]:
    """Shared libraries that an ONNX Runtime provider links to and that are nowhere to be found."""
    if runtime not in PROVIDERS or library.folder is None or sys.platform != "linux":
        return []
    provider = library.folder / "capi" / PROVIDERS[runtime]
    if not provider.is_file():
        return [PROVIDERS[runtime]]
    return [name for name in needed_libraries(provider) if not _can_be_loaded(name)]


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


def _cuda_of(runtime: str, distribution: str, folder: Path | None) -> str | None:
    if runtime == "tensorrt":
        return _cuda_of_tensorrt(distribution)
    if folder is None:
        return None
    file = folder / ("version.py" if runtime == "eager" else "capi/build_and_package_info.py")
    if not file.is_file():
        return None
    match = re.search(r"^cuda(?:_version)?\b[^=\n]*= *'([0-9.]+)'", file.read_text(errors="replace"), re.M)
    return match[1] if match else None


def _cuda_of_tensorrt(distribution: str) -> str | None:
    """The major version of CUDA, which stands in the names of TensorRT's distributions from 8.6.1 on.

    `tensorrt` itself is empty and brings one of them.
    """
    for major in TENSORRT_CUDA:
        parts = [f"tensorrt-cu{major}{part}" for part in ("", "-libs", "-bindings")]
        if distribution in parts or (
            distribution in ("tensorrt", "tensorrt-bindings") and any(map(_installed, parts))
        ):
            return str(major)
    return None
