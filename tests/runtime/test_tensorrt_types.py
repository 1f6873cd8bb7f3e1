"""The TensorRT code against its published type stubs (`pip install --no-deps tensorrt-stubs`)."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "dsonas_hw" / "profile").glob("tensorrt*.py"))


def repair(text: str) -> str:
    """As published they do not parse (a parameter named `in`, a default before a parameter without one), and
    a module variable `bool` hides the type."""
    text = re.sub(r"^bool: DataType", "bool_: DataType", text, flags=re.MULTILINE)
    text = re.sub(r"\bin: list", "in_: list", text)
    return text.replace("channel_axis: int) -> IScaleLayer", "channel_axis: int = ...) -> IScaleLayer")


@pytest.mark.slow
def test_types_agree_with_the_published_stubs(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    found = importlib.util.find_spec("tensorrt_stubs")
    if found is None or found.origin is None:
        pytest.skip("tensorrt-stubs is not installed")
    for package in ("tensorrt", "tensorrt_bindings"):
        shutil.copytree(Path(found.origin).parents[1] / package, tmp_path / "stubs" / package)
    bindings = tmp_path / "stubs" / "tensorrt_bindings" / "tensorrt.pyi"
    bindings.write_text(repair(bindings.read_text()))

    def check(*files: str) -> str:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "mypy", "--strict", "--warn-unreachable", "--ignore-missing-imports"),
                *("--follow-imports=silent", f"--cache-dir={tmp_path / 'cache'}", *files),
            ],
            cwd=ROOT,
            env={**os.environ, "MYPYPATH": str(tmp_path / "stubs")},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout + done.stderr

    probe = tmp_path / "probe.py"
    probe.write_text("import tensorrt\ntensorrt.Builder(1)\ntensorrt.BuilderFlag.NONSENSE\n")
    said = check(str(probe))
    assert 'Argument 1 to "Builder"' in said, said  # the stubs are really used
    assert "NONSENSE" in said
    said = check(*FILES)
    ours = [line for line in said.splitlines() if line.startswith("dsonas_hw")]
    assert ours == []
    assert f"(checked {len(FILES)} source files)" in said, said
