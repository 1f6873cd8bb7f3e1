"""Folders of images: the layouts, and every way in which a folder can be wrong."""

from __future__ import annotations

import random
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dsonas_hw.config import DataConfig
from dsonas_hw.errors import DataError
from dsonas_hw.train.augment import Augmentation
from dsonas_hw.train.data import _LOADERS, load_dataset
from dsonas_hw.train.data_decode import (
    COLOUR_COMPONENTS,
    COLOUR_EIGENVALUES,
    augment_image,
    image_to_tensor,
    light,
    load_image,
    resize_and_crop_centre,
)
from dsonas_hw.train.data_folder import decode_all, fits_in_memory, scan_classes, scan_sides
from dsonas_hw.train.data_layout import find_sides


def names(files) -> list[str]:
    return [str(files.path(i).relative_to(files.root)) for i in range(len(files))]


def test_two_sides(write_folder):
    write_folder("train", a=2, b=1)
    root = write_folder("validation", a=1, b=1)
    found = scan_sides(find_sides(root))
    train, test = found.train, found.test
    assert found.class_names == ("a", "b")
    assert names(train) == ["a/000.png", "a/001.png", "b/000.png"]
    assert names(test) == ["a/000.png", "b/000.png"]
    assert test.path(0).is_file()


@pytest.mark.parametrize("side", ["", "train"])
def test_one_folder_is_split_the_same_every_time(write_folder, side: str):
    root = write_folder(side, a=10, b=20, c=2)
    found = scan_sides(find_sides(root))
    train, test = found.train, found.test
    assert torch.bincount(test.labels).tolist() == [2, 4, 1]  # a fifth, and at least one
    assert len(train) + len(test) == 32
    assert not set(names(train)) & set(names(test))
    assert names(scan_sides(find_sides(root)).test) == names(test)


def test_files_in_deeper_folders_count_and_hidden_ones_do_not(write_folder):
    root = write_folder("", a=1, b=1)
    (root / "a" / "more").mkdir()
    (root / "a" / "000.png").rename(root / "a" / "more" / "x.PNG")
    (root / "b" / ".hidden.png").write_bytes(b"")
    (root / ".cache").mkdir()
    files, class_names = scan_classes(root)
    assert class_names == ("a", "b")
    assert names(files) == ["a/more/x.PNG", "b/000.png"]


def test_order_does_not_depend_on_the_file_system(write_folder):
    root = write_folder("", a=1, b=1)
    folders = [f"{number * 37 % 40:02}" for number in range(40)]
    for folder in folders:
        (root / "b" / folder).mkdir()
        (root / "b" / folder / "x.png").write_bytes(b"")
    assert names(scan_classes(root)[0])[2:] == [f"b/{folder}/x.png" for folder in sorted(folders)]


def test_other_files_are_left_out_with_a_warning(write_folder, caplog: pytest.LogCaptureFixture):
    root = write_folder("", a=1, b=1)
    (root / "a" / "notes.txt").write_text("hello")
    assert len(scan_classes(root)[0]) == 2
    assert "ignoring 1 file(s) that are not images" in caplog.text


def refused(root: Path, reason: str) -> None:
    with pytest.raises(DataError, match=reason) as caught:
        load_dataset(DataConfig(dataset=f"folder:{root}"))
    assert "\n" not in str(caught.value)


def test_no_such_directory(tmp_path: Path):
    refused(
        tmp_path / "nowhere", "nowhere is not a directory; it should hold train/<class>/ and val/<class>/"
    )


def test_a_file_instead_of_a_directory(tmp_path: Path):
    (tmp_path / "file").write_text("")
    refused(tmp_path / "file", "is not a directory")


def test_no_classes(tmp_path: Path):
    refused(tmp_path, "needs a folder for each of two or more classes, found none")


def test_one_class(write_folder):
    refused(write_folder("train", cat=3), "two or more classes, found only 'cat'")


def test_empty_class(write_folder):
    root = write_folder("", cat=3, dog=3)
    (root / "fox").mkdir()
    refused(root, "fox has no images .found nothing;")


def test_class_of_other_files(write_folder):
    root = write_folder("", cat=3, dog=3)
    (root / "fox").mkdir()
    (root / "fox" / "list.csv").write_text("a,b")
    refused(root, "fox has no images .found only files ending in '.csv'")


def test_class_too_small_to_split(write_folder):
    refused(write_folder("", cat=3, dog=1), "class 'dog' of .* has 1 image; at least 2 are needed")


def test_classes_that_differ(write_folder):
    write_folder("train", cat=1, dog=1, fox=1)
    root = write_folder("val", cat=1, dog=1)
    refused(root, "val lacks 1 of the classes in train/: 'fox'")
    (root / "val" / "fox").mkdir()
    (root / "val" / "owl").mkdir()
    for name in ("fox", "owl"):
        Image.new("RGB", (8, 8)).save(root / "val" / name / "x.png")
    refused(root, "val has 1 class.es. that train/ lacks: 'owl'")


def test_classes_that_differ_in_their_spelling_alone(write_folder):
    refused(write_folder("", Dog=2, cat=2, dog=2), "differ only in how they are written, 'dog' and 'Dog'")


@pytest.mark.parametrize(("one", "other"), [("Dog", "dog"), ("caf\u00e9", "cafe\u0301"), ("dog", "dog ")])
def test_sides_whose_classes_are_spelled_differently(write_folder, one: str, other: str):
    write_folder("train", cat=2, **{one: 2})
    refused(write_folder("val", cat=2, **{other: 2}), "rename one")


def test_test_side_alone(write_folder):
    refused(write_folder("test", cat=1, dog=1), "has test/ but no train/")


def png_that_claims(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header promises a huge image."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("side", [9_000, 10_000, 60_000])  # above our limit, Pillow's warning, Pillow's error
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_decompression_bomb(write_folder, side: int):
    root = write_folder("", cat=3, dog=3)
    (root / "dog" / "002.png").write_bytes(png_that_claims(side, side))
    refused(root, r"dog/002\.png is refused as a decompression bomb")


@pytest.mark.parametrize(
    "content", [b"", b"<html>not found</html>", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0"]
)
def test_file_that_is_no_image(write_folder, content: bytes):
    root = write_folder("", cat=3, dog=3)
    (root / "cat" / "001.png").write_bytes(content)
    refused(root, r"cat/001\.png cannot be read as an image")


def test_pointers_of_git_lfs(write_folder):
    root = write_folder("", cat=3, dog=3)
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0a\nsize 5\n"
    (root / "cat" / "001.png").write_text(pointer)
    refused(root, r"cat/001\.png is not the image but git-lfs's pointer to it; .* git lfs pull")


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_truncated_image(write_folder, suffix: str):
    root = write_folder("", cat=3, dog=3, size=32, suffix=suffix)
    path = root / "cat" / f"001.{suffix}"
    path.write_bytes(path.read_bytes()[:-400])
    refused(root, rf"cat/001\.{suffix} cannot be read as an image")


def test_deep_pixels_are_refused_rather_than_clipped(tmp_path: Path):
    Image.fromarray(np.full((4, 4), 40_000, dtype=np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(DataError, match="more than 8 bits per channel"):
        load_image(tmp_path / "deep.png")


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "LA", "CMYK"])
def test_every_usual_mode_becomes_rgb(tmp_path: Path, mode: str):
    path = tmp_path / ("x.tif" if mode == "CMYK" else "x.png")
    Image.new("RGB", (5, 4), (255, 255, 255)).convert(mode).save(path)
    image = load_image(path)
    assert image.mode == "RGB"
    assert image_to_tensor(image).unique().tolist() == [255]
    assert image_to_tensor(image).shape == (3, 4, 5)


def test_a_photo_is_turned_as_its_orientation_says(tmp_path: Path):
    upright = np.zeros((4, 6, 3), np.uint8)
    upright[0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # the sensor saw it a quarter turn to the left
    Image.fromarray(np.rot90(upright)).save(tmp_path / "photo.png", exif=exif)
    assert np.array_equal(np.asarray(load_image(tmp_path / "photo.png")), upright)


def test_decoding_keeps_pixels_and_order(write_folder):
    root = write_folder("", a=300, b=2)  # more than one piece of work for the threads
    files, _ = scan_classes(root)
    images = decode_all(replace(files, image_size=8)).images
    for position in (0, 255, 256, 299, 301):
        expected = np.asarray(Image.open(files.path(position))).transpose(2, 0, 1)
        assert torch.equal(images[position], torch.from_numpy(expected.copy()))


def test_images_of_other_shapes_are_resized_and_cut(write_folder):
    root = write_folder("", a=2, b=2, size=(30, 10))
    dataset = load_dataset(DataConfig(dataset=f"folder:{root}", image_size=16))
    assert dataset.train.images.shape[1:] == (3, 16, 16)


@pytest.mark.parametrize("size", [(300, 200), (200, 300), (7, 500), (500, 7), (256, 256), (1, 1)])
def test_centre_crop_always_has_the_size(size: tuple[int, int]):
    assert resize_and_crop_centre(Image.new("RGB", size), resize=256, crop=224).size == (224, 224)
    assert resize_and_crop_centre(Image.new("RGB", size), resize=32, crop=32).size == (32, 32)


def test_centre_crop_takes_the_centre():
    pixels = np.zeros((4, 8, 3), dtype=np.uint8)
    pixels[:, 2:6] = 200
    cropped = resize_and_crop_centre(Image.fromarray(pixels), resize=4, crop=4)
    assert image_to_tensor(cropped).unique().tolist() == [200]


@pytest.mark.parametrize("size", [(300, 200), (7, 500), (1, 1)])
def test_random_crop_has_the_size_and_depends_on_its_generator_only(size: tuple[int, int]):
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    augmentation = Augmentation(flip=True, colour=0.4)
    one, again, other = (
        image_to_tensor(augment_image(image, augmentation, size=24, rng=random.Random(seed)))
        for seed in (1, 1, 2)
    )
    assert one.shape == (3, 24, 24)
    assert torch.equal(one, again)
    assert size == (1, 1) or not torch.equal(one, other)


def test_random_crop_of_all_is_the_image(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("dsonas_hw.train.data_decode.MIN_CROP_AREA", 1.0)
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    for seed in range(5):  # area 1 fits at ratio 1 only, so that the middle is taken: here everything
        cropped = augment_image(Image.fromarray(noise), Augmentation(), size=16, rng=random.Random(seed))
        assert np.array_equal(np.asarray(cropped), noise)


def test_lighting_adds_one_colour_along_the_components():
    grey = Image.fromarray(np.full((4, 5, 3), 128, dtype=np.uint8))
    lit = np.asarray(light(grey, 0.1, random.Random(3))).astype(float)
    assert (lit == lit[0, 0]).all()  # one colour for all pixels
    # Each channel moves by Σ component · eigenvalue · a, each a of deviation 0.1 (fb.resnet.torch).
    changes = np.array(
        [np.asarray(light(grey, 0.1, random.Random(seed)))[0, 0] - 128.0 for seed in range(2000)]
    )
    expected = 255 * 0.1 * np.sqrt(((np.array(COLOUR_COMPONENTS) * COLOUR_EIGENVALUES) ** 2).sum(1))
    assert np.allclose(changes.std(0), expected, rtol=0.12)
    assert np.corrcoef(changes.T).min() > 0.9  # nearly all of it is brightness


def test_lighting_is_on_for_imagenet_only_and_by_a_tenth():
    assert {name: augmentation.lighting for name, (_, augmentation) in _LOADERS.items()} == {
        "digits": 0.0, "fashion-mnist": 0.0, "cifar10": 0.0, "cifar100": 0.0, "imagenet": 0.1,
    }  # fmt: skip


def test_what_fits_in_memory():
    assert fits_in_memory(60_000, 32)  # 184 MB
    assert not fits_in_memory(60_000, 224)
    assert not fits_in_memory(1_300_000, 64)  # 16 GB
