"""confusion.csv: what is written is read; what someone else wrote is read or refused in a line."""

from __future__ import annotations

from pathlib import Path

import pytest

from dsonas_hw.errors import UserError
from dsonas_hw.train.confusion import Confusion, load_confusion, save_confusion


def test_what_is_written_is_read(tmp_path: Path) -> None:
    names, counts = ("cat, black", 'a "dog"'), ((3, 1), (0, 0))
    save_confusion(tmp_path / "confusion.csv", names, counts)
    found = load_confusion(tmp_path / "confusion.csv")
    assert found == Confusion(class_names=names, counts=counts)
    assert (found.accuracy_of(0), found.accuracy_of(1)) == (0.75, None)


@pytest.mark.parametrize(
    "text", ["", "true class\n", "true class,a\na,x\n", "true class,a\na,-1\n", "true class,a,b\na,1,2\n",
             "true class,a\na,1,2\n", "\x00", "true class,a\na,1e3\n"],
)  # fmt: skip
def test_anything_else_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "confusion.csv").write_text(text)
    with pytest.raises(UserError, match="damaged"):
        load_confusion(tmp_path / "confusion.csv")
