"""Which folders of a directory of images are the training side, the test side, or classes.

People write the sides in many ways: train/val, Training/Testing, seg_train/seg_test, Train/Eval. A side is a
folder that holds class folders; what its name says decides which side. Where names do not tell, or tell
twice, the user is asked: a side that is taken for a class would train a network to tell `train` from `test`.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dsonas_hw.config import DataConfig
from dsonas_hw.errors import DataError
from dsonas_hw.train.data_decode import EXTENSIONS
from dsonas_hw.train.known_images import FOLDER_PREFIX

_AROUND = r"(?:set|data|dataset|imgs?|images?|split|samples|folder|dir)?s?\d*"
TRAIN = re.compile(rf"(?:.*[^a-z])?(?:train|training|trn|tr|trainval){_AROUND}(?:[^a-z].*)?")
TESTS = {
    side: re.compile(rf"(?:.*[^a-z])?(?:{words}){_AROUND}(?:[^a-z].*)?")
    for side, words in (
        ("val", "val|valid|validation|validate"),
        ("eval", "eval|evaluation"),
        ("dev", "dev|development"),
        ("test", "test|testing|tst|te|holdout|heldout"),
    )
}
"""What says that a folder is for testing; the first that is there is used."""


@dataclass(frozen=True, kw_only=True)
class Sides:
    """Where the images are."""

    train: Path
    test: Path | None
    """None: a part of the training folder is split off."""
    ignored: tuple[str, ...] = ()
    """Folders that are left alone."""


def sides_of(data: DataConfig) -> Sides:
    """Find the sides of folder:PATH.

    Raises:
        DataError: there is no such folder, or it cannot be told which of those in it is which.
    """
    path = data.dataset.removeprefix(FOLDER_PREFIX)
    if not path:
        raise DataError("folder: needs a path, as in folder:/data/flowers")
    return find_sides(Path(path).expanduser(), train_dir=data.train_dir, test_dir=data.test_dir)


def find_sides(root: Path, *, train_dir: Path | None = None, test_dir: Path | None = None) -> Sides:
    """Find the sides below a directory.

    train_dir, test_dir: said by the user, relative to `root`.

    Raises:
        DataError: no such directory, or it cannot be told which folder is which.
    """
    for path in (root, *(root / given for given in (train_dir, test_dir) if given is not None)):
        if not path.is_dir():
            raise DataError(
                f"{path} is not a directory; it should hold train/<class>/ and val/<class>/ folders, or "
                "<class>/ folders alone"
            )
    if test_dir is not None and train_dir is None:
        raise DataError(f"--test-dir {test_dir} needs --train-dir, the folder of the training classes")
    if train_dir is not None:
        train, test = root / train_dir, None if test_dir is None else root / test_dir
        if test is not None and train.resolve() == test.resolve():
            raise DataError(f"--train-dir and --test-dir are the same folder, {train}")
        return Sides(train=train, test=test)
    folders = class_folders(root)
    sides = [name for name in folders if _is_side(root / name)]
    trains = [name for name in sides if _side_of(name) == "train"]
    tests = [
        name
        for test in TESTS.values()
        for name in sides
        if test.fullmatch(name.lower()) and name not in trains
    ]
    others = [name for name in sides if name not in (*trains, *tests)]
    if not trains:
        _check_level(root, folders)
        if tests:
            raise DataError(
                f"{root} has {tests[0]}/ but no train/; put the training classes in {root}/train/, or say "
                "which folder is which, with --train-dir and --test-dir"
            )
        if len(others) >= 2 and _hold_the_same_classes(root, others):
            raise _ask(root, f"holds folders of the same classes ({', '.join(others[:4])})", sides)
        return Sides(train=root, test=None, ignored=tuple(_hidden(root)))
    if len(trains) > 1:
        raise _ask(root, f"has {len(trains)} folders of training images ({', '.join(trains)})", sides)
    if not tests and others:
        raise _ask(root, f"has {', '.join(others[:3])} next to {trains[0]}", sides)
    used = {trains[0], *tests[:1]}
    ignored = [name for name in folders if name not in used]
    return Sides(
        train=_unwrapped(root / trains[0]),
        test=_unwrapped(root / tests[0]) if tests else None,
        ignored=(*ignored, *_hidden(root)),
    )


def _check_level(root: Path, folders: list[str]) -> None:
    """Refuse sides that hold images where their classes should be, and a directory above the data set.

    Raises:
        DataError: says which layout is wanted, or which folder is meant.
    """
    others = [name for name in folders if not _side_of(name)]
    flat = [f"{name}/" for name in folders if _side_of(name) and not _is_side(root / name)]
    if flat and not any(any(_image_names(root / name)) for name in others):
        raise DataError(
            f"{' and '.join(flat)} of {root} should hold a folder for each class, as train/<class>/IMAGE and "
            "val/<class>/IMAGE, or the folder <class>/IMAGE alone"
        )
    below = [path for name in others if (path := _data_set_in(root / name, is_alone=len(folders) == 1))]
    if below:
        meant = [f"{path.relative_to(root)}/" for path in below]
        inside = ", ".join(class_folders(below[0])[:3])
        classes = "" if len(below) == 1 else "; if they are classes, put them into train/ and val/"
        raise DataError(
            f"{root} holds {', '.join(meant[:4])} with {inside}{classes}; if that is the data set, give "
            f"--dataset {shlex.quote(f'folder:{below[0]}')}"
        )


def _data_set_in(path: Path, *, is_alone: bool) -> Path | None:
    """The folder that seems to be a data set, `path` or one below it; is_alone: nothing lies beside it."""
    inside = class_folders(path)
    while is_alone and len(inside) == 1:
        inside = class_folders(path := path / inside[0])
    has_sides = {"train", "test"} <= set(map(_side_of, inside))
    return path if has_sides or (is_alone and len(inside) > 1) else None


def _image_names(path: Path) -> Iterator[str]:
    return (name for *_, names in os.walk(path) for name in names if name.lower().endswith(EXTENSIONS))


def _largest(root: Path, sides: list[str]) -> list[str]:
    """The side with the most images; none where two have as many: a guess could train on test images."""
    counts = {name: sum(1 for _ in _image_names(root / name)) for name in sides}
    largest = [name for name in sides if counts[name] == max(counts.values())]
    return largest if len(largest) == 1 else []


def _side_of(name: str) -> str:
    """`train` or `test` if the name of a folder says so."""
    if TRAIN.fullmatch(name.lower()):
        return "train"
    return "test" if any(test.fullmatch(name.lower()) for test in TESTS.values()) else ""


def class_folders(root: Path) -> list[str]:
    """Return the names of the folders that may be classes, sorted."""
    return sorted(e.name for e in os.scandir(root) if e.is_dir() and not _is_hidden(e.name))


def _hidden(root: Path) -> list[str]:
    """Folders that an archive of macOS brings along; those with a leading dot go without saying."""
    return sorted(e.name for e in os.scandir(root) if e.is_dir() and e.name == "__MACOSX")


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _is_side(path: Path) -> bool:
    """Whether a folder holds folders, and no images of its own."""
    has_folder = False
    for entry in os.scandir(path):
        if entry.is_dir():
            has_folder |= not _is_hidden(entry.name)
        elif not entry.name.startswith(".") and entry.name.lower().endswith(EXTENSIONS):
            return False
    return has_folder


def _unwrapped(side: Path) -> Path:
    """The folder of the classes: archives often hold seg_train/seg_train/<class>."""
    folders = class_folders(side)
    return _unwrapped(side / folders[0]) if len(folders) == 1 and _is_side(side / folders[0]) else side


def _hold_the_same_classes(root: Path, names: list[str]) -> bool:
    """Whether these folders look like sides: each holds the same two or more folders."""
    held = [set(class_folders(_unwrapped(root / name))) for name in names]
    return len(held[0]) >= 2 and all(classes == held[0] for classes in held)


def _ask(root: Path, what: str, sides: list[str]) -> DataError:
    trains = [name for name in sides if TRAIN.fullmatch(name.lower())] or _largest(root, sides)
    rest = [name for name in sides if name not in trains]
    message = f"{root} {what}; say which folder is which, "
    if not trains:
        return DataError(f"{message}with --train-dir and --test-dir")
    options = [f"--train-dir {shlex.quote(trains[0])}"]
    options += [f"--test-dir {shlex.quote(name)}" for name in rest[:1]]
    return DataError(f"{message}for example with {' '.join(options)}")
