"""Which folder is the training side: by any usual spelling of its name, or the user is asked."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsonas_hw.errors import DataError
from dsonas_hw.train.data_layout import TESTS, TRAIN, Sides, find_sides

CLASSES = ("cat", "dog")


def put(root: Path, *folders: str, classes: tuple[str, ...] = CLASSES) -> Path:
    for folder in folders:
        for name in classes:
            (root / folder / name).mkdir(parents=True, exist_ok=True)
            (root / folder / name / "0.png").write_bytes(b"")
    return root


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("train", "val"), ("Training", "Testing"), ("Train", "Test"), ("seg_train", "seg_test"),
        ("Tr", "Te"), ("trainval", "test"),
        ("train", "eval"), ("train", "Val"), ("TRAIN", "VALIDATION"), ("training_set", "test_set"),
        ("train2017", "val2017"),
        ("flowers-train", "flowers-valid"), ("train_images", "dev_images"), ("trainset", "testset"),
        ("01 train", "02 evaluation"), ("x.train.v2", "x.dev.v2"), ("TrainData", "ValidData"),
    ],
)  # fmt: skip
def test_sides_by_their_names(tmp_path: Path, train: str, test: str) -> None:
    assert find_sides(put(tmp_path, train, test)) == Sides(train=tmp_path / train, test=tmp_path / test)


@given(
    word=st.sampled_from(
        ["train", "val", "valid", "validation", "test", "eval", "dev", "testing", "training"]
    ),
    before=st.sampled_from(["", "my_", "seg-", "2024 ", "v1."]),
    after=st.sampled_from(["", "_set", "-images", "2017", ".v2", " (1)", "set"]),
    spell=st.sampled_from([str, str.upper, str.title]),
)
def test_prefixes_suffixes_and_capitals_do_not_matter(
    word: str, before: str, after: str, spell: object
) -> None:
    name = f"{before}{word}{after}".lower()
    is_train = bool(TRAIN.fullmatch(name))
    assert is_train == word.startswith("train")
    assert any(test.fullmatch(name) for test in TESTS.values()) != is_train


@pytest.mark.parametrize("name", ["restrained", "Valencia", "contest", "device", "evaluator", "strain"])
def test_words_that_only_contain_one_of_them_say_nothing(name: str) -> None:
    assert not TRAIN.fullmatch(name.lower())
    assert not any(test.fullmatch(name.lower()) for test in TESTS.values())


def test_a_class_that_is_called_train_is_a_class(tmp_path: Path) -> None:
    assert find_sides(put(tmp_path, "", classes=("bus", "train", "test"))) == Sides(train=tmp_path, test=None)


def test_sides_without_class_folders_are_no_classes(tmp_path: Path) -> None:
    for folder in ("train", "val"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "0.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"train/ and val/ of .* should hold a folder for each class"):
        find_sides(tmp_path)
    (tmp_path / "annotations").mkdir()
    with pytest.raises(DataError, match=r"train/ and val/ of .* should hold a folder for each class"):
        find_sides(tmp_path)
    put(tmp_path, "val/cats")  # one side is as it should be
    (tmp_path / "val" / "0.png").unlink()
    with pytest.raises(DataError, match=r"train/ of .* should hold a folder for each class"):
        find_sides(tmp_path)


@pytest.mark.parametrize("above", [("data",), ("a b/data",), ("data", "scripts")])
def test_a_directory_above_the_data_set_is_no_data_set(tmp_path: Path, above: tuple[str, ...]) -> None:
    put(tmp_path, *above[1:], f"{above[0]}/train", f"{above[0]}/val")
    with pytest.raises(DataError, match="if that is the data set, give --dataset") as caught:
        find_sides(tmp_path)
    given = shlex.split(str(caught.value).partition("give --dataset ")[2])[0]
    assert find_sides(Path(given.removeprefix("folder:"))).test is not None  # the advice can be followed


def test_classes_that_hold_the_sides_are_turned_round(tmp_path: Path) -> None:
    put(tmp_path, "cat", "dog", classes=("train", "val"))
    with pytest.raises(DataError, match=r"cat/, dog/ with train, val; if they are classes"):
        find_sides(tmp_path)


def test_validation_comes_before_test_and_what_is_ignored_is_named(tmp_path: Path) -> None:
    put(tmp_path, "train", "val", "test")
    put(tmp_path, "__MACOSX", classes=("train",))
    (tmp_path / "unlabelled").mkdir()
    assert find_sides(tmp_path) == Sides(
        train=tmp_path / "train", test=tmp_path / "val", ignored=("test", "unlabelled", "__MACOSX")
    )


def test_a_folder_in_a_folder_of_the_same_name(tmp_path: Path) -> None:
    put(tmp_path, "seg_train/seg_train", "seg_test/seg_test")
    found = find_sides(tmp_path)
    assert (found.train, found.test) == (
        tmp_path / "seg_train" / "seg_train",
        tmp_path / "seg_test" / "seg_test",
    )


@pytest.mark.parametrize(
    "folders",
    [("train", "rest"), ("train", "train_extra"), ("Training", "more", "odd")],
)
def test_what_cannot_be_told_is_asked(tmp_path: Path, folders: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match="which folder is which") as caught:
        find_sides(put(tmp_path, *folders))
    words = shlex.split(str(caught.value).partition("with ")[2])
    said = {words[i][2:].replace("-", "_"): Path(words[i + 1]) for i in range(0, len(words), 2)}
    found = find_sides(tmp_path, **said)  # the advice can be followed
    assert found.train == tmp_path / said["train_dir"]
    assert found.test == (tmp_path / said["test_dir"] if "test_dir" in said else None)


def test_no_guess_where_sides_of_the_same_classes_are_alike(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"which folder is which, with --train-dir and --test-dir$"):
        find_sides(put(tmp_path, "fold_a", "fold_b"))


def test_sides_that_are_said(tmp_path: Path) -> None:
    put(tmp_path, "a", "b")
    assert find_sides(tmp_path, train_dir=Path("a")) == Sides(train=tmp_path / "a", test=None)
    for train, test, message in (
        (None, "b", "needs --train-dir"),
        ("a", "a", "the same"),
        ("a", "c", "c is not a"),
    ):
        with pytest.raises(DataError, match=message):
            find_sides(tmp_path, train_dir=train and Path(train), test_dir=Path(test))
