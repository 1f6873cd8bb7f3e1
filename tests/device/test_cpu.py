"""This machine's CPU, described the same way every time."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dsonas_hw.device.cpu import local_cpu, parse_cpuinfo
from dsonas_hw.device.paths import data_directory

X86 = """processor\t: 0
cpu family\t: 6
model\t\t: 167
model name\t: Intel(R) Xeon(R) Processor
stepping\t: 1
flags\t\t: fpu sse4_1 avx avx2 fma avx512f amx_tile pni

processor\t: 1
model name\t: another
"""
ARM = """processor\t: 0
BogoMIPS\t: 243.75
Features\t: fp asimd evtstrm aes asimdhp asimddp sve bf16
CPU implementer\t: 0x41
CPU part\t: 0xd40
"""


def test_cpuinfo_of_x86_and_arm() -> None:
    assert parse_cpuinfo(X86) == (
        "Intel(R) Xeon(R) Processor (family 6, model 167, stepping 1)",
        ("amx_tile", "avx", "avx2", "avx512f", "fma", "sse4_1"),
    )
    assert parse_cpuinfo(ARM) == (
        "(implementer 0x41, part 0xd40)",
        ("asimd", "asimddp", "asimdhp", "bf16", "sve"),
    )
    assert parse_cpuinfo("") == ("", ())


def test_fingerprint_is_stable_and_distinguishes() -> None:
    cpu = local_cpu()
    again = subprocess.run(
        [sys.executable, "-c", "from dsonas_hw.device.cpu import local_cpu; print(local_cpu().fingerprint)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert again.stdout.strip() == cpu.fingerprint
    assert len(cpu.fingerprint) == 16
    assert dataclasses.replace(cpu, num_cores=cpu.num_cores + 1).fingerprint != cpu.fingerprint
    assert dataclasses.replace(cpu, isa=(*cpu.isa, "avx1024")).fingerprint != cpu.fingerprint


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux")
def test_pinning_does_not_change_the_fingerprint() -> None:
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))});"
        "from dsonas_hw.device.cpu import local_cpu; print(local_cpu().fingerprint)"
    )
    pinned = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert pinned.stdout.strip() == local_cpu().fingerprint


def test_data_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DSONAS_HW_HOME", str(tmp_path))
    assert data_directory() == tmp_path
    monkeypatch.setenv("DSONAS_HW_HOME", "~/somewhere")
    assert data_directory() == Path.home() / "somewhere"
    monkeypatch.delenv("DSONAS_HW_HOME")
    assert data_directory().name == "dsonas-hw"
