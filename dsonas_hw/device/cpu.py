"""This machine's CPU: what `--device local` means."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

#: Instruction sets that a runtime chooses its kernels by (x86-64 and ARM names, as Linux spells them).
ISA_PREFIXES = ("sse4", "avx", "amx", "fma", "f16c", "vnni")
ISA_NAMES = {"neon", "asimd", "asimdhp", "asimddp", "fphp", "i8mm", "bf16", "sve", "sve2", "sme", "svei8mm"}


@dataclass(frozen=True, kw_only=True)
class LocalCpu:
    """The CPU that a table measured on `local` belongs to."""

    name: str = "local"
    model: str
    """As the CPU names itself, with family, model and stepping where the system tells."""
    num_cores: int
    """Logical cores of the machine, whatever this process may use of them."""
    isa: tuple[str, ...]
    """Instruction sets that matter to kernels, sorted."""
    machine: str
    """x86_64, aarch64, …"""
    system: str
    """Linux, Darwin, Windows."""

    @property
    def fingerprint(self) -> str:
        """Equal on the same machine, across reboots and system updates."""
        from dsonas_hw.device.fingerprint import short_hash

        return short_hash(asdict(self))

    @property
    def title(self) -> str:
        return f"{self.model}, {self.num_cores} core{'s' if self.num_cores != 1 else ''}"


@cache
def local_cpu() -> LocalCpu:
    """Describe this machine's CPU."""
    system, machine = platform.system(), platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if system == "Linux" and cpuinfo.is_file():
        model, isa = parse_cpuinfo(cpuinfo.read_text(errors="replace"))
    elif system == "Darwin":
        model, isa = _sysctl("machdep.cpu.brand_string"), ()
    else:
        model, isa = os.environ.get("PROCESSOR_IDENTIFIER", ""), ()
    return LocalCpu(
        model=model or machine or "unknown CPU",
        num_cores=os.cpu_count() or 1,
        isa=isa,
        machine=machine,
        system=system,
    )


def parse_cpuinfo(text: str) -> tuple[str, tuple[str, ...]]:
    """Model and instruction sets from the first processor of Linux's /proc/cpuinfo (x86 and ARM)."""
    fields: dict[str, str] = {}
    for line in text.split("\n\n")[0].splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    name = fields.get("model name", "") or fields.get("Model", "")
    numbers = [
        f"{label} {fields[key]}"
        for label, key in (
            ("family", "cpu family"),
            ("model", "model"),
            ("stepping", "stepping"),
            ("implementer", "CPU implementer"),
            ("part", "CPU part"),
        )
        if key in fields
    ]
    flags = (fields.get("flags") or fields.get("Features") or "").split()
    isa = sorted({flag for flag in flags if flag.startswith(ISA_PREFIXES) or flag in ISA_NAMES})
    if numbers:
        name = f"{name} ({', '.join(numbers)})".strip()
    return name, tuple(isa)


def _sysctl(key: str) -> str:
    try:
        done = subprocess.run(["sysctl", "-n", key], capture_output=True, text=True, timeout=2, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()
