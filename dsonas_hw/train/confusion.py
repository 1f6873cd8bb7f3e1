"""Which class the test images were taken for: confusion.csv, which a spreadsheet opens too.

true class  │ cat │ dog │ …      a row per true class, in it the number of images taken for each class
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dsonas_hw.errors import UserError
from dsonas_hw.files import read_regular, write_text

CONFUSION_NAME = "confusion.csv"
MAX_BYTES = 50_000_000
_CORNER = "true class"


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """Counts of test images by true class (rows) and by the class that the network told (columns)."""

    class_names: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]

    def accuracy_of(self, position: int) -> float | None:
        """Return the fraction of the images of a class that were taken for it; None: there are none."""
        num_images = sum(self.counts[position])
        return self.counts[position][position] / num_images if num_images else None


def save_confusion(path: Path, class_names: Sequence[str], counts: Sequence[Sequence[int]]) -> None:
    """Write confusion.csv.

    Raises:
        RunError: the folder cannot be written.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([_CORNER, *class_names])
    writer.writerows([name, *row] for name, row in zip(class_names, counts, strict=True))
    write_text(path, buffer.getvalue())


def load_confusion(path: Path) -> Confusion:
    """Read confusion.csv, which may come from anyone.

    Raises:
        UserError: it cannot be read, or is not a square table of counts.
    """
    try:
        text = read_regular(path, max_bytes=MAX_BYTES).decode("utf-8")
        head, *rows = csv.reader(io.StringIO(text))
        names = tuple(head[1:])
        counts = tuple(tuple(int(cell) for cell in row[1:]) for row in rows)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, csv.Error) as error:
        raise UserError(f"{path} is damaged: {error}") from None
    is_square = len(counts) == len(names) and all(len(row) == len(names) for row in counts)
    if not names or not is_square or min(map(min, counts)) < 0:
        raise UserError(f"{path} is damaged: it is not a square table of counts")
    return Confusion(class_names=names, counts=counts)
