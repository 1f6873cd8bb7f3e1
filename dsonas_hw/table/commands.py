"""What to type: the commands that messages name, complete and quoted, so that they can be pasted."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from dsonas_hw.device.spec import LOCAL
from dsonas_hw.kernel.spec import Shape, by
from dsonas_hw.runtime.registry import runtimes_of
from dsonas_hw.target import Target


def profile_command(
    target: Target,
    *,
    directory: Path | None = None,
    models: Sequence[Path] = (),
    input_shapes: Mapping[str, Shape] | None = None,
    options: str = "",
) -> str:
    """What to type to measure the table of a target.

    directory: of profiles; the user's own need not be named.
    models, input_shapes: networks of files to measure.
    options: which space to measure networks of, quoted for a shell.
    """
    from dsonas_hw.device.paths import data_directory

    parts = ["dsonas-hw", "profile", "--device", target.device]
    if target.device != LOCAL or target.runtime != runtimes_of(None)[0].name:
        parts += ["--runtime", target.runtime]
    if target.precision != "fp32":
        parts += ["--precision", target.precision]
    if target.batch_size != 1:
        parts += ["--batch-size", str(target.batch_size)]
    if target.threads != 1:
        parts += ["--threads", str(target.threads)]
    for model in models:
        parts += ["--model", str(model)]
    for name, shape in (input_shapes or {}).items():
        parts += ["--input-shape", f"{name}={by(shape)}"]
    if directory is not None and directory.absolute() != (data_directory() / "profiles").absolute():
        parts += ["--profiles", str(directory)]
    return " ".join(filter(None, [shlex.join(parts), options]))


def directory_of(table: Path) -> Path:
    """The directory of profiles that a table, `DIRECTORY/<device>/<name>.jsonl`, lies in."""
    return table.parent.parent
