"""The kernels of processors with other blocks than this one's; see `ort_law`.

- Blocks of 8 channels really run where AVX-512 can be hidden from a process (`without_avx512.c`).
- What ONNX Runtime ran on processors with blocks of 16, of 8, and without any was recorded
  (`record_deployed_kernels.py`), and is derived here on any processor.
- Laws that hold for every size.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections import Counter
from math import prod
from pathlib import Path
from typing import Any

import pytest
from ort_law import rules_apply
from random_architectures import draw_architecture
from record_deployed_kernels import NETWORKS, RECORD

from dsonas_hw.architecture.architecture import architecture_from_json
from dsonas_hw.architecture.schedule import schedule_of
from dsonas_hw.kernel.network import Schedule
from dsonas_hw.kernel.spec import Kernel
from dsonas_hw.runtime.ort_cpu.in_situ import native_block_size
from dsonas_hw.runtime.ort_cpu.layout import BLOCKED, FROM_BLOCKED, FROM_PLAIN, TO_BLOCKED, Blocks

HERE = Path(__file__).parent
BLOCK_SIZES = (0, 8, 16)
CANNOT = 77
"""Exit status of `without_avx512.c` where the processor or the kernel cannot fault on CPUID."""

RECORDED: dict[str, Any] = json.loads(RECORD.read_text())


def run_without_avx512(library: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "LD_PRELOAD": str(library), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *arguments], env=environment, cwd=HERE, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def hiding_avx512(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library that hides AVX-512 from the process into which it is loaded first."""
    if native_block_size() != 16 or sys.platform != "linux" or platform.machine() != "x86_64":
        pytest.skip("needs Linux on an x86-64 processor with AVX-512; blocks of 8 elsewhere: recorded")
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("needs a C compiler")
    library = tmp_path_factory.mktemp("hide") / "without_avx512.so"
    source = HERE / "without_avx512.c"
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source)],
        check=True,
        capture_output=True,
    )
    if run_without_avx512(library, "-c", "").returncode == CANNOT:
        pytest.skip("this processor or kernel cannot fault on CPUID; blocks of 8: recorded")
    return library


@rules_apply
def test_blocks_of_8_channels_where_they_can_run(hiding_avx512: Path) -> None:
    """The laws of random architectures and of networks from PyTorch, in a process that sees no AVX-512."""
    code = "from dsonas_hw.runtime.ort_cpu.in_situ import native_block_size; print(native_block_size())"
    assert run_without_avx512(hiding_avx512, "-c", code).stdout.strip() == "8"
    # pytest's handler of faults would take the place of the library's.
    options = [
        "-m",
        "pytest",
        "-q",
        "-x",
        "-p",
        "no:faulthandler",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
    ]
    files = ["test_deployed_architectures.py", "test_deployed_modules.py"]
    done = run_without_avx512(hiding_avx512, *options, *files)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
    assert "failed" not in done.stdout


@pytest.mark.parametrize("block_size", BLOCK_SIZES)
@pytest.mark.parametrize("index", NETWORKS)
def test_what_ran_on_other_processors(index: int, block_size: int) -> None:
    recorded = RECORDED[str(index)]
    architecture = architecture_from_json(recorded["architecture"])
    schedule = schedule_of(architecture, batch_size=recorded["batch_size"])
    derived = Counter(kernel.key for kernel in Blocks(block_size=block_size).kernels(schedule))
    assert derived == recorded["kernels"][str(block_size)]


def schedules() -> list[Schedule]:
    drawn = [draw_architecture(index) for index in range(60)]
    return [schedule_of(architecture, batch_size=batch_size) for architecture, batch_size in drawn]


def is_blocked(kernel: Kernel) -> bool:
    return kernel.function in (BLOCKED, FROM_PLAIN)


@pytest.mark.parametrize("block_size", BLOCK_SIZES)
def test_blocks_are_full_and_no_work_is_lost(block_size: int) -> None:
    for schedule in schedules():
        derived = Blocks(block_size=block_size).kernels(schedule)
        for kernel in derived:
            if is_blocked(kernel) or kernel.function == TO_BLOCKED:
                assert kernel.output[1] % block_size == 0
            if kernel.function in (BLOCKED, FROM_BLOCKED):
                assert kernel.inputs[0][1] % block_size == 0
        needed = sum(step.kernel.flops for step in schedule.kernels)
        done = sum(kernel.flops for kernel in derived)
        assert done == needed if block_size == 0 else done >= needed
        # Reorders keep the elements, up to the padding of channels.
        for kernel in (k for k in derived if k.function in (TO_BLOCKED, FROM_BLOCKED)):
            narrow, wide = sorted((kernel.inputs[0], kernel.output), key=prod)
            assert (narrow[0], narrow[2:]) == (wide[0], wide[2:])
            assert 0 <= wide[1] - narrow[1] < block_size


def test_where_every_width_is_a_multiple_of_16_the_size_of_a_block_makes_no_difference() -> None:
    """Nothing is padded, and every convolution can be blocked."""
    for index in range(60):
        architecture, _ = draw_architecture(index)
        wide = schedule_of(architecture.with_width(32))  # the imagenet stem starts with half of it
        assert Blocks(block_size=8).kernels(wide) == Blocks(block_size=16).kernels(wide)
