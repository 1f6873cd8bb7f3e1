"""The precision of a file against the one that is asked for."""

from __future__ import annotations

from dsonas_hw.errors import ModelFileError
from dsonas_hw.runtime.registry import get_runtime


def precision_of_model(
    name: str, precision: str, *, asked: str | None, runtime: str
) -> tuple[str, str | None]:
    """The precision that a model runs in, and a warning where that is not the file's own.

    name: what messages call the model; precision: what its file computes in; asked: `--precision`, None for
    the file's own. A runtime converts an fp32 network to fp16 by itself; nothing else is converted.

    Raises:
        ModelFileError: the runtime does not run the file's precision, or another one was asked for.
    """
    own = precision or "fp32"
    known = get_runtime(runtime).precisions
    if own not in known and not (own == "bf16" and asked == "fp16"):
        ways = [f"export it in {' or '.join(known)}", "name another --runtime"]
        if own == "bf16" and "fp16" in known:
            ways.insert(0, "--precision fp16 takes it for fp16")
        raise ModelFileError(
            f"{name} computes in {own}; {runtime} is known in {', '.join(known)}: {', or '.join(ways)}"
        )
    if asked is None:
        return own, None
    if asked == own:
        return asked, None
    if own == "fp32" and asked == "fp16":
        return asked, f"{name} is an fp32 file: this is as {runtime} runs it once it is converted to fp16"
    if own == "fp32" and asked == "int8" and get_runtime(runtime).invents_int8:
        return asked, f"{name} is an fp32 file, not quantised: int8 stands for what TensorRT may choose"
    if own == "bf16" and asked == "fp16":
        return asked, f"{name} computes in bf16: this is as {runtime} runs it once it is converted to fp16"
    hint = "quantise it first (Q/DQ), or " if asked == "int8" else ""
    raise ModelFileError(
        f"{name} computes in {own}, which contradicts --precision {asked}; {hint}leave --precision away"
    )


def check_table_precision(name: str, precision: str, *, table: str, runtime: str) -> None:
    """Refuse to time a file for a table of another precision.

    Raises:
        ModelFileError: names both.
    """
    own = precision or "fp32"
    if own != table and not (own == "fp32" and table in get_runtime(runtime).precisions):
        raise ModelFileError(
            f"{name} computes in {own}: its timings do not belong in a table of {table} ({runtime}); "
            f"export it in {table}"
        )
