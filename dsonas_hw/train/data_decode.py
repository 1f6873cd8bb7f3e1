"""One image file → one uint8 tensor, with a plain error for whatever the file turns out to be.

Images become RGB. For evaluation the short side is resized and the centre kept; for training a random part is
kept, mirrored, recoloured and lit otherwise (Szegedy et al. 2015, Krizhevsky et al. 2012; fb.resnet.torch),
drawn from a generator that the caller names.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from math import exp, log
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from dsonas_hw.errors import DataError
from dsonas_hw.train.augment import Augmentation

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
MAX_PIXELS = 80_000_000
"""An image that claims more is refused before it is decoded: it would need hundreds of MB."""
MIN_CROP_AREA = 0.08
"""The smallest fraction of the image that a random resized crop keeps."""
LFS_POINTER = b"version https://git-lfs"
BILINEAR = Image.Resampling.BILINEAR

COLOUR_EIGENVALUES = (0.2175, 0.0188, 0.0045)
"""Eigenvalues of the covariance of ImageNet's colours (0 … 1), as fb.resnet.torch states them."""
COLOUR_COMPONENTS = (
    (-0.5675, 0.7192, 0.4009),
    (-0.5808, -0.0045, -0.8140),
    (-0.5836, -0.6948, 0.4203),
)
"""Its eigenvectors, one a column; rows are red, green, blue."""

# Pillow remarks on odd metadata, once per image, and warns of large images, which are errors here. The filter
# is set once because changing it around each image is not safe in threads.
warnings.filterwarnings("ignore", module=r"PIL\b")


def load_image(path: Path) -> Image.Image:
    """Decode a file to RGB, turned upright as its EXIF data say (phones store photos as the sensor saw them).

    Raises:
        DataError: missing, not an image, damaged, truncated, or larger than MAX_PIXELS.
    """
    with _opened(path) as image:
        return to_rgb(image)


def to_rgb(image: Image.Image) -> Image.Image:
    """Return the image upright, as its EXIF says, with three channels of 8 bits; transparency is dropped.

    Raises:
        ValueError: more than 8 bits per channel.
    """
    if image.mode[0] in "IF":  # Pillow would clip these to white instead of scaling them
        raise ValueError(f"its pixels have more than 8 bits per channel (mode {image.mode})")
    image = ImageOps.exif_transpose(image)
    if "transparency" in image.info:  # Pillow wants to see it before it is dropped
        return image.convert("RGBA").convert("RGB")
    return image.convert("RGB")


def to_gray(image: Image.Image) -> Image.Image:
    """Return the image with one channel of 8 bits, by the weights of ITU-R 601; errors as of `to_rgb`."""
    return to_rgb(image).convert("L")


def image_dimensions(path: Path) -> tuple[int, int]:
    """Return width and height from the header of a file, without decoding it.

    Raises:
        DataError: as `load_image`, as far as the header shows.
    """
    with _opened(path) as image:
        return image.size


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Open an image file; whatever Pillow raises here or in the body becomes a DataError."""
    try:
        with Image.open(path) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise Image.DecompressionBombError(f"it claims {width}×{height} pixels")
            yield image
    except Image.DecompressionBombError as error:
        raise DataError(
            f"{path} is refused as a decompression bomb: {error}; more than {MAX_PIXELS:,} pixels are not "
            "decoded; shrink or remove the file"
        ) from error
    except Exception as error:  # Pillow's plugins raise OSError, SyntaxError, ValueError, struct.error, …
        if _begins_with(path, LFS_POINTER):
            raise DataError(
                f"{path} is not the image but git-lfs's pointer to it; fetch the images with: git lfs pull"
            ) from error
        reason = " ".join(str(error).split())
        raise DataError(
            f"{path} cannot be read as an image: {reason}; replace, convert or remove it"
        ) from error


def _begins_with(path: Path, start: bytes) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(start)) == start
    except OSError:
        return False


def resize_and_crop_centre(image: Image.Image, *, resize: int, crop: int) -> Image.Image:
    """Bring the short side to `resize`, then keep the crop × crop pixels in the middle."""
    width, height = image.size
    if min(width, height) != resize:
        scale = resize / min(width, height)
        size = (max(crop, round(width * scale)), max(crop, round(height * scale)))
        image = image.resize(size, BILINEAR, reducing_gap=2.0)
        width, height = image.size
    left, top = (width - crop) // 2, (height - crop) // 2
    if (width, height) == (crop, crop):
        return image
    return image.crop((left, top, left + crop, top + crop))


def augment_image(
    image: Image.Image, augmentation: Augmentation, *, size: int, rng: random.Random
) -> Image.Image:
    """Return a random resized crop of size × size, mirrored and recoloured as `augmentation` says."""
    box = _random_box(*image.size, rng)
    image = image.resize((size, size), BILINEAR, box=box, reducing_gap=2.0)
    if augmentation.flip and rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if augmentation.colour:
        enhancers = [ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color]
        rng.shuffle(enhancers)
        for enhancer in enhancers:
            image = enhancer(image).enhance(1 + rng.uniform(-augmentation.colour, augmentation.colour))
    return light(image, augmentation.lighting, rng) if augmentation.lighting else image


def light(image: Image.Image, deviation: float, rng: random.Random) -> Image.Image:
    """Add one colour to every pixel, drawn along the principal components of ImageNet's colours."""
    along = [rng.gauss(0.0, deviation) * eigenvalue for eigenvalue in COLOUR_EIGENVALUES]
    added = 255 * np.array(COLOUR_COMPONENTS) @ np.array(along)
    return Image.fromarray(np.rint(np.asarray(image) + added).clip(0, 255).astype(np.uint8))


def image_to_tensor(image: Image.Image) -> Tensor:
    """RGB image → (3, H, W), gray image → (1, H, W), uint8."""
    pixels = np.asarray(image)
    return torch.from_numpy(pixels[None].copy() if pixels.ndim == 2 else pixels.transpose(2, 0, 1).copy())


def _random_box(width: int, height: int, rng: random.Random) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of a part with MIN_CROP_AREA … 1 of the area and a side ratio of 3/4 … 4/3."""
    for _ in range(10):
        area = width * height * rng.uniform(MIN_CROP_AREA, 1.0)
        ratio = exp(rng.uniform(log(3 / 4), log(4 / 3)))
        w, h = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
        if 0 < w <= width and 0 < h <= height:
            left, top = rng.randint(0, width - w), rng.randint(0, height - h)
            return left, top, left + w, top + h
    side = min(width, height)  # a very long image: its middle
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side
