"""metrics.jsonl as TensorBoard scalars, for those who live there."""

from __future__ import annotations

from pathlib import Path

from dsonas_hw.errors import RunError, UserError, require
from dsonas_hw.files import read_json_lines
from dsonas_hw.report.numbers import finite

_NOT_SCALARS = ("epoch", "stage")


def write_tensorboard(path: Path, directory: Path) -> int:
    """Write the scalars of a run, or of every job of a study, under DIR/<run>; returns how many.

    Raises:
        MissingDependencyError: TensorBoard is not installed.
        RunError: there is nothing to write, or the folder cannot be written.
    """
    logs = [path / "metrics.jsonl"] if (path / "metrics.jsonl").exists() else []
    logs += sorted(path.glob("jobs/*/run/metrics.jsonl"))
    if not logs:
        raise RunError(f"{path} has logged nothing yet: it has no metrics.jsonl")
    require("tensorboard", extra="tensorboard", purpose="--tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    count = 0
    for log in logs:
        name = path.resolve().name if log.parent == path else log.parent.parent.name
        try:
            writer = SummaryWriter(str(directory / name))
        except OSError as error:
            raise RunError(f"cannot write {directory}: {error.strerror}") from None
        with writer:
            for row in read_json_lines(log):
                epoch = finite(row.get("epoch"))
                if epoch is None:
                    raise UserError(f"{log} is damaged: a line without an epoch")
                for key, value in row.items():
                    number = finite(value)
                    if key not in _NOT_SCALARS and number is not None:
                        writer.add_scalar(f"{row.get('stage', 'run')}/{key}", number, int(epoch))
                        count += 1
    return count
