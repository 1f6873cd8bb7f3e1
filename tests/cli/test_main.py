"""`dsonas-hw` itself: commands, help, exit codes, and how fast it starts."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from command_lines import examples, get_command, parse

from dsonas_hw import __version__
from dsonas_hw.cli import main as entry
from dsonas_hw.cli.common import print_json
from dsonas_hw.cli.main import COMMANDS, cli
from dsonas_hw.errors import BudgetError, UserError

HEAVY = ("torch", "torchvision", "onnx", "onnxruntime", "sklearn", "scipy", "matplotlib", "ray", "pydantic")
"""What takes long to import, and what no help text needs."""


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_examples_that_parse(name: str, dsonas: Any) -> None:
    result = dsonas(name, "--help")
    assert (result.code, result.err) == (0, "")
    shown = examples(result.out)
    assert len(shown) >= 2
    assert any(args[0] == name for args in shown)
    for args in shown:
        parse(args)


def test_every_command_can_speak_json() -> None:
    for name in COMMANDS:
        assert "--json" in {text for option in get_command(name).params for text in option.opts}, name


def test_the_list_of_commands_is_the_folder_of_commands() -> None:
    folder = Path(entry.__file__).parent
    found = {path.stem for path in folder.glob("*.py") if "@click.command" in path.read_text()}
    assert found == set(COMMANDS)


def test_version_and_bare_call(dsonas: Any) -> None:
    assert dsonas("--version").out == f"dsonas-hw, version {__version__}\n"
    bare = dsonas()
    assert bare.code == 2
    assert "Usage: dsonas-hw" in bare.out + bare.err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["serach"], "No such command 'serach'. Did you mean search"),
        (["frobnicate"], "Known: calibrate, compare, config,"),
        (["run", "--budgit", "mac=1M"], "--budget"),
        (["retrain"], "Missing argument 'RUN'"),
        (["retrain", "a", "b"], "unexpected extra argument"),
        (["retrain", "a", "--epochs", "0"], "0 is not in the range"),
        (["run", "--precision", "fp64"], "'fp64' is not one of 'fp32', 'fp16', 'int8'"),
    ],
)
def test_bad_usage_is_one_line_that_names_the_help(args: list[str], message: str, dsonas: Any) -> None:
    line = dsonas(*args).refused()
    assert message in line
    assert "--help)" in line


@pytest.mark.parametrize(
    ("raised", "code", "line"),
    [
        (BudgetError("two\n  lines"), 2, "error: two lines\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (click.Abort(), 130, "interrupted\n"),
        (click.exceptions.Exit(3), 3, ""),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            2,
            "error: nothing more can be written: No space left on device; free space\n",
        ),
        (
            MemoryError("Unable to allocate 23 GiB"),
            2,
            "error: out of memory (Unable to allocate 23 GiB); take a smaller batch or network\n",
        ),
        (
            RuntimeError("alloc_cpu.cpp: can't allocate memory"),
            2,
            "error: out of memory (alloc_cpu.cpp: can't allocate memory); take a smaller batch or network\n",
        ),
    ],
)
def test_what_goes_wrong_becomes_an_exit_code(
    raised: BaseException, code: int, line: str, dsonas: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise raised

    monkeypatch.setattr(cli, "get_command", lambda context, name: click.Command(name, callback=fail))
    result = dsonas("run")
    assert (result.code, result.err.lstrip("\n")) == (code, line)


def test_an_error_knows_its_exit_code(dsonas: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class StoppedError(UserError):
        exit_code = 130

    def stop() -> None:
        raise StoppedError("stopped; go on with: …")

    monkeypatch.setattr(cli, "get_command", lambda context, name: click.Command(name, callback=stop))
    result = dsonas("run")
    assert (result.code, result.err) == (130, "stopped; go on with: …\n")


def test_a_bug_is_not_hidden(dsonas: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(cli, "get_command", lambda context, name: click.Command(name, callback=fail))
    with pytest.raises(ZeroDivisionError):
        dsonas("run")


def run_python(code: str, **environment: str) -> str:
    """stdout of a new interpreter."""
    import os

    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_help_imports_nothing_heavy() -> None:
    code = f"""
import contextlib, io, json, sys
from dsonas_hw.cli.main import COMMANDS, main
for name in COMMANDS:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        main([name, "--help"])
print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))
"""
    assert json.loads(run_python(code)) == []


def test_devices_do_without_torch(tmp_path: Path) -> None:
    code = """
import contextlib, io, json, sys
from dsonas_hw.cli.main import main
for args in (["devices"], ["presets"], ["config"]):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        main(args)
print("torch" in sys.modules)
"""
    assert run_python(code, DSONAS_HW_HOME=str(tmp_path)).strip() == "False"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full device here")
@pytest.mark.parametrize("arguments", [["devices"], ["devices", "--json"], ["--help"]])
def test_a_full_disk_behind_stdout_is_one_line(arguments: list[str], tmp_path: Path) -> None:
    import os

    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "dsonas_hw", *arguments],
            env={**os.environ, "DSONAS_HW_HOME": str(tmp_path)},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 2
    assert done.stderr == "error: nothing more can be written: No space left on device; free space\n"


def test_json_of_a_path_that_is_not_text_is_ascii(capsys: pytest.CaptureFixture[str]) -> None:
    name = b"m\xff.onnx".decode("utf-8", "surrogateescape")
    print_json({"model": name})
    out = capsys.readouterr().out
    assert out.isascii()
    assert json.loads(out) == {"model": name}


@pytest.mark.skipif(sys.platform == "win32", reason="pipes are closed differently there")
def test_a_reader_that_leaves_early_gets_no_traceback(tmp_path: Path) -> None:
    import os

    with subprocess.Popen(
        [sys.executable, "-m", "dsonas_hw", "devices", "--json"],
        env={**os.environ, "DSONAS_HW_HOME": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()


def test_predict_does_without_torch(tmp_path: Path) -> None:
    import onnx

    from dsonas_hw.architecture.architecture import complete_architecture
    from dsonas_hw.architecture.onnx import build_onnx
    from dsonas_hw.space.space import SearchSpace

    space = SearchSpace(levels=1, stages=(1,), channels=8, input_shape=(3, 8, 8))
    onnx.save(build_onnx(complete_architecture(space)), tmp_path / "model.onnx")
    code = f"""
import contextlib, io, sys
from dsonas_hw.cli.main import main
with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):
    main(["predict", {str(tmp_path / "model.onnx")!r}, "--device", "1080ti", "--json"])
print("latency_ms" in out.getvalue(), "torch" in sys.modules)
"""
    assert run_python(code, DSONAS_HW_HOME=str(tmp_path)).strip() == "True False"
